// The admin listener and its key: what is open, what is not, and that no listener beyond this machine is without one.
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import { createGateway } from '../../src/gateway.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { PROFILE, startGateway, testConfig } from '../fixtures/gateway-under-test.ts';
import { openRawClient } from '../fixtures/raw-client.ts';
import { startServed } from '../fixtures/served.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function start(admin: string): Promise<GatewayUnderTest> {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const gateway = await startGateway([upstream], { more: `admin: { port: 0, ${admin} }` });
  opened.push(gateway);
  return gateway;
}

async function ask(gateway: GatewayUnderTest, path: string, headers: Record<string, string> = {}): Promise<number> {
  const answer = await fetch(`${gateway.adminUrl}${path}`, { headers });
  await answer.arrayBuffer();
  return answer.status;
}

async function statusOf(gateway: GatewayUnderTest, headers: Record<string, string> = {}): Promise<unknown> {
  return (await fetch(`${gateway.adminUrl}/paceline/status`, { headers })).json();
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

describe('with a key', () => {
  test('all but health and readiness want it, routes that do not exist too', async () => {
    const gateway = await start('keyEnv: OPERATOR_KEY');
    for (const path of ['/healthz', '/readyz']) expect(await ask(gateway, path)).toBe(200);
    for (const path of ['/metrics', '/paceline/status', '/paceline/anything', '/', '/healthz/', '//healthz', '/readyz/../metrics', '/HEALTHZ']) expect([path, await ask(gateway, path)]).toEqual([path, 401]);
    for (const path of ['/metrics', '/paceline/status']) expect(await ask(gateway, path, bearer('sk-operator'))).toBe(200);
    expect(await ask(gateway, '/paceline/anything', bearer('sk-operator'))).toBe(404);
  });

  test.each([
    ['another key', bearer('sk-operator2')],
    ['a beginning of it', bearer('sk-operato')],
    ['its hash', bearer(sha256('sk-operator'))],
    ['the key of a replica', bearer('sk-replica')],
    ['an empty one', { authorization: 'Bearer ' }],
    ['another scheme', { authorization: `Basic ${Buffer.from('sk-operator:').toString('base64')}` }],
    ['no scheme', { authorization: 'sk-operator' }],
    ['a header that tenants may use', { 'x-api-key': 'sk-operator' }],
    ['a header that names another path', { 'x-original-url': '/healthz', 'x-rewrite-url': '/healthz' }],
  ])('%s is 401, in the shape of all errors, and counted', async (_what, headers) => {
    const gateway = await start('keyEnv: OPERATOR_KEY');
    const answer = await fetch(`${gateway.adminUrl}/paceline/status`, { headers: headers as Record<string, string> });
    expect(answer.status).toBe(401);
    expect(await answer.json()).toMatchObject({ error: { type: 'invalid_request_error', code: 'invalid_api_key' } });
    expect(answer.headers.get('www-authenticate')).toBe('Bearer');
    const metrics = await (await fetch(`${gateway.adminUrl}/metrics`, { headers: bearer('sk-operator') })).text();
    expect(metrics).toContain('paceline_requests_refused_total{kind="unauthorized"} 1');
  });

  test('nobody drains a replica without it', async () => {
    const gateway = await start('keyEnv: OPERATOR_KEY');
    const drain = async (headers: Record<string, string>): Promise<number> => (await fetch(`${gateway.adminUrl}/paceline/replicas/r0/drain`, { method: 'POST', headers })).status;
    expect(await drain({})).toBe(401);
    expect(await drain(bearer('sk-replica'))).toBe(401);
    expect(await statusOf(gateway, bearer('sk-operator'))).toMatchObject({ replicas: [{ state: 'up' }] });
    expect(await drain(bearer('sk-operator'))).toBe(200);
    expect(await statusOf(gateway, bearer('sk-operator'))).not.toMatchObject({ replicas: [{ state: 'up' }] });
  });

  test('several keys count while one is replaced', async () => {
    const gateway = await start(`keyEnv: OPERATOR_KEY, keySha256: [${sha256('old')}, ${sha256('new')}]`);
    for (const key of ['old', 'new', 'sk-operator']) expect(await ask(gateway, '/metrics', bearer(key))).toBe(200);
    expect(await ask(gateway, '/metrics', bearer('older'))).toBe(401);
  });

  test('metrics may be open to scrapers, and the status stays closed', async () => {
    const gateway = await start('keyEnv: OPERATOR_KEY, metricsOpen: true');
    expect(await ask(gateway, '/metrics')).toBe(200);
    expect(await ask(gateway, '/paceline/status')).toBe(401);
  });

  test("a tenant's listener does not know the operators' key or routes", async () => {
    const gateway = await start('keyEnv: OPERATOR_KEY');
    for (const path of ['/metrics', '/paceline/status', '/healthz']) expect((await fetch(`${gateway.url}${path}`, { headers: bearer('sk-operator') })).status).toBe(404);
  });
});

describe('without a key', () => {
  test.each<[path: string, method: string, allowed: string]>([
    ...['/healthz', '/readyz', '/metrics', '/', '/paceline/status', '/paceline/energy', '/paceline/power', '/paceline/dashboard', '/paceline/dashboard/script.js', '/paceline/replicas/r0/profile'].map((path): [string, string, string] => [path, 'POST', 'GET, HEAD, OPTIONS']),
    ['/paceline/power/budgets/all', 'POST', 'GET, HEAD, PUT, DELETE, OPTIONS'],
    ['/paceline/replicas/r0/drain', 'GET', 'POST, OPTIONS'],
    ['/paceline/replicas/r0/undrain', 'DELETE', 'POST, OPTIONS'],
  ])('%s with %s is 405 and says what it takes', async (path, method, allowed) => {
    const { adminUrl } = await start('host: localhost');
    const wrong = await fetch(`${adminUrl}${path}`, { method });
    expect([wrong.status, wrong.headers.get('allow'), await wrong.json()]).toEqual([405, allowed, { error: `${path} takes ${allowed}, and not ${method}` }]);
    const asked = await fetch(`${adminUrl}${path}`, { method: 'OPTIONS' });
    expect([asked.status, asked.headers.get('allow')]).toEqual([204, allowed]);
    if (!allowed.includes('HEAD')) return;
    expect((await fetch(`${adminUrl}${path}`, { method: 'HEAD', redirect: 'manual' })).status).not.toBe(405);
  });

  test('a path that there is not is 404 with any method', async () => {
    const { adminUrl } = await start('host: localhost');
    for (const path of ['/paceline', '/paceline/replicas/r0', '/paceline/power/budgets', '/paceline/dashboard/other']) for (const method of ['GET', 'POST', 'OPTIONS']) expect([path, (await fetch(`${adminUrl}${path}`, { method })).status]).toEqual([path, 404]);
  });

  test('everything is open on a loopback address', async () => {
    const gateway = await start('host: localhost');
    for (const path of ['/metrics', '/paceline/status']) expect(await ask(gateway, path)).toBe(200);
  });

  test.each([{ origin: 'https://evil.test' }, { origin: 'null' }, { 'sec-fetch-site': 'cross-site' }, { 'sec-fetch-site': 'same-site' }])("a page in an operator's browser (%o) reads nothing and drains nothing", async (headers) => {
    const gateway = await start('host: 127.0.0.1');
    const client = await openRawClient(gateway.adminUrl);
    for (const request of ['GET /paceline/status', 'GET /metrics', 'POST /paceline/replicas/r0/drain']) {
      client.write(`${request} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n${Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`);
      expect((await client.read()).status).toBe(401);
    }
    client.socket.destroy();
    expect(await statusOf(gateway)).toMatchObject({ replicas: [{ replicaId: 'r0', state: 'up' }] });
  });

  test.each(['0.0.0.0', '"::"', '10.1.2.3', 'example.test', '127.example.test', '"::ffff:10.1.2.3"'])('an address such as %s is refused at the start, with the ways out', async (host) => {
    const config = testConfig(`replicas: [{ id: r0, url: 'http://127.0.0.1:1', models: [m], profile: ${PROFILE} }]\nadmin: { host: ${host}, port: 0 }`);
    await expect(createGateway(config)).rejects.toThrow(/^admin: listens on .*, which others than this machine can reach, and has no key; set admin\.keyEnv or admin\.keySha256, or listen on 127\.0\.0\.1$/);
  });

  test('an address of the command line is judged as one of the file', async () => {
    const served = await startServed(['src/main.ts', 'serve', '--config', 'config/paceline.example.yaml', '--listen', '127.0.0.1:0', '--admin', '0.0.0.0:0']);
    opened.push(served);
    expect(await served.exited).toBe(2);
    expect(served.stderr()).toMatch(/^paceline: admin: listens on 0\.0\.0\.0/);
  });
});

describe('without a key', () => {
  const statusUnder = async (host: string): Promise<number> => {
    const gateway = await start('');
    const client = await openRawClient(gateway.adminUrl);
    opened.push({ close: async () => void client.socket.destroy() });
    client.socket.write(`GET /paceline/status HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`);
    return (await client.read()).status;
  };

  test.each(['127.0.0.1:8081', 'localhost:8081', 'LOCALHOST', '[::1]:8081', 'gateway.localhost:9'])('it answers under a name of this machine: %s', async (host) => {
    expect(await statusUnder(host)).toBe(200);
  });

  // A browser may be led here under any name (DNS rebinding), and then takes the answer for that site's own.
  test.each(['evil.test', 'evil.test:8081', '127.0.0.1.evil.test', 'localhost.evil.test', '10.0.0.7'])('it answers nobody under another name: %s', async (host) => {
    expect(await statusUnder(host)).toBe(401);
  });
});
