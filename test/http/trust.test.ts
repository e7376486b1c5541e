// What a caller says stays with the gateway: it chooses no host, its key goes nowhere, and a replica gets its own key only.
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import { parseConfig } from '../../src/config.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { PROFILE, startConfigured } from '../fixtures/gateway-under-test.ts';
import { openRawClient, rawPost } from '../fixtures/raw-client.ts';
import type { RawUpstream } from '../fixtures/raw-upstream.ts';
import { createRawUpstream } from '../fixtures/raw-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
const CHAT = '/v1/chat/completions';
const KEYS = { a: 'sk-tenant-a-5f1c', b: 'sk-tenant-b-9d2e', replica0: 'sk-replica-0-77aa', replica1: 'sk-replica-1-88bb' };

async function upstreamOf(): Promise<RawUpstream> {
  const upstream = await createRawUpstream(({ socket }) => void socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}'));
  opened.push(upstream);
  return upstream;
}

/** Two tenants; tenant a may use model `m0`, which the first replica serves, and tenant b `m1` of the second. */
async function start(): Promise<{ gateway: GatewayUnderTest; upstreams: readonly [RawUpstream, RawUpstream]; trap: RawUpstream }> {
  const upstreams = [await upstreamOf(), await upstreamOf()] as const;
  const trap = await upstreamOf();
  const yaml = `
listen: { port: 0 }
admin: { port: 0 }
health: { everyMs: 50, timeoutMs: 500, failuresMax: 2 }
logging: { level: silent }
passThrough: ['/v1/files/*']
replicas:
  - { id: r0, url: '${upstreams[0].url}', models: [m0, both], profile: ${PROFILE}, apiKeyEnv: R0 }
  - { id: r1, url: '${upstreams[1].url}', models: [m1, both], profile: ${PROFILE}, apiKeyEnv: R1 }
tenants:
  - { name: a, apiKeySha256: [${sha256(KEYS.a)}], models: [m0, both] }
  - { name: b, apiKeySha256: [${sha256(KEYS.b)}], models: [m1, both] }
`;
  const gateway = await startConfigured(parseConfig(yaml, { fileName: 'test.yaml', directory: process.cwd(), environment: { R0: KEYS.replica0, R1: KEYS.replica1 } }));
  opened.push(gateway);
  return { gateway, upstreams, trap };
}

async function post(gateway: GatewayUnderTest, path: string, body: string, headers: readonly string[]): Promise<number> {
  const client = await openRawClient(gateway.url);
  client.write(rawPost(path, body, headers));
  const { status } = await client.read();
  client.socket.destroy();
  return status;
}

describe('no header, target or body of a caller chooses a host', () => {
  const cases = (host: string): [what: string, headers: readonly string[]][] => [
    ['routing of Envoy and llm-d', [`x-gateway-destination-endpoint: ${host}`, `x-gateway-destination-endpoint-subset: ${host}`, `x-prefiller-host-port: ${host}`, `x-encoder-hosts-ports: ${host}`, `x-data-parallel-host-port: ${host}`, `x-kv-cache-source-host-port: ${host}`, `x-envoy-original-dst-host: ${host}`]],
    ['routing of other gateways', [`x-portkey-custom-host: http://${host}/v1`, `x-portkey-config: {"custom_host":"http://${host}"}`, `x-base-url: http://${host}`, `x-upstream-url: http://${host}`, `x-target-url: http://${host}`, `helicone-target-url: http://${host}`, `api-base: http://${host}`, `target-pod: ${host}`]],
    ['what proxies say of themselves', [`x-forwarded-host: ${host}`, `x-forwarded-server: ${host}`, `forwarded: host=${host}`, `x-host: ${host}`, `x-original-host: ${host}`, `x-original-url: http://${host}${CHAT}`, `x-rewrite-url: http://${host}${CHAT}`, `proxy: http://${host}`, `x-http-proxy: ${host}`]],
  ];

  test.each(cases('').map(([what], index) => [what, index] as const))('%s', async (_what, index) => {
    const { gateway, upstreams, trap } = await start();
    const { host } = new URL(trap.url);
    const headers = (cases(host)[index] as [string, readonly string[]])[1];
    expect(await post(gateway, CHAT, '{"model":"m0"}', [`authorization: Bearer ${KEYS.a}`, ...headers])).toBe(200);
    expect(upstreams[0].requests).toHaveLength(1);
    expect(upstreams[0].requests[0]?.head).not.toContain(host);
    expect([upstreams[1].requests, trap.requests]).toEqual([[], []]);
  });

  test('a host of its own, in the header and in the target', async () => {
    const { gateway, upstreams, trap } = await start();
    const client = await openRawClient(gateway.url);
    client.write(`POST ${trap.url}${CHAT} HTTP/1.1\r\nhost: ${new URL(trap.url).host}\r\nauthorization: Bearer ${KEYS.a}\r\ncontent-length: 14\r\n\r\n{"model":"m0"}`);
    expect((await client.read()).status).toBe(200);
    client.socket.destroy();
    expect(upstreams[0].requests[0]?.headers['host']).toBe(new URL(upstreams[0].url).host);
    expect(trap.requests).toEqual([]);
  });

  test('fields of the body that other gateways obey', async () => {
    const { gateway, upstreams, trap } = await start();
    const body = JSON.stringify({ model: 'm0', base_url: trap.url, api_base: trap.url, custom_host: trap.url, nvext: { endpoint: trap.url } });
    expect(await post(gateway, CHAT, body, [`authorization: Bearer ${KEYS.a}`])).toBe(200);
    expect(upstreams[0].requests[0]?.body.toString()).toBe(body);
    expect(trap.requests).toEqual([]);
  });

  test('CONNECT opens no tunnel', async () => {
    const { gateway, trap } = await start();
    const client = await openRawClient(gateway.url);
    const { host } = new URL(trap.url);
    client.write(`CONNECT ${host} HTTP/1.1\r\nhost: ${host}\r\n\r\n`);
    await client.read().catch(() => null);
    client.socket.destroy();
    expect(trap.requests).toEqual([]);
  });

  test('a path that climbs out of one that passes', async () => {
    const { gateway, upstreams } = await start();
    for (const path of ['/v1/files/plain', '/v1/files/../../metrics', '/v1/files/..%2f..%2fmetrics', '/v1/files/%2e%2e/%2e%2e/metrics', '/v1/files//etc', '/v1/files/a\\..\\b']) await post(gateway, `${path}?model=m0`, '', [`authorization: Bearer ${KEYS.a}`]);
    expect(upstreams[0].requests.map(({ path }) => path)).toContain('/v1/files/plain?model=m0');
    for (const { path } of upstreams[0].requests) expect(path).toMatch(/^\/v1\/files\/(?!.*(\.\.|%2e%2e))/i);
  });
});

describe('keys', () => {
  test('of callers reach no server, whatever header they come in; each server gets its own key and no other', async () => {
    const { gateway, upstreams } = await start();
    for (const [key, model] of [[KEYS.a, 'm0'], [KEYS.a, 'both'], [KEYS.b, 'm1'], [KEYS.b, 'both']] as const) {
      for (const header of [`authorization: Bearer ${key}`, `x-api-key: ${key}`]) {
        const more = ['api-key', 'x-goog-api-key', 'openai-api-key', 'proxy-authorization', 'cookie', 'x-custom', 'openai-organization', 'baggage-key'].map((name) => `${name}: ${key}`);
        expect(await post(gateway, CHAT, JSON.stringify({ model }), [header, ...more])).toBe(200);
      }
    }
    for (const [index, upstream] of upstreams.entries()) {
      const [own, other] = index === 0 ? [KEYS.replica0, KEYS.replica1] : [KEYS.replica1, KEYS.replica0];
      expect(upstream.requests.length).toBeGreaterThan(1);
      for (const { head, headers } of upstream.requests) {
        expect(headers['authorization']).toBe(`Bearer ${own}`);
        for (const foreign of [KEYS.a, KEYS.b, other]) expect(head).not.toContain(foreign);
      }
    }
  });

  test("of one tenant open nothing of another's, and no key opens nothing at all", async () => {
    const { gateway, upstreams } = await start();
    expect(await post(gateway, CHAT, '{"model":"m1"}', [`authorization: Bearer ${KEYS.a}`])).toBe(404);
    expect(await post(gateway, CHAT, '{"model":"m0"}', [`authorization: Bearer ${KEYS.b}`])).toBe(404);
    const wrong = ['authorization: Bearer sk-tenant-a', `authorization: Bearer ${sha256(KEYS.a)}`, `authorization: Basic ${KEYS.a}`, `authorization: Bearer ${KEYS.replica0}`, `cookie: ${KEYS.a}`, 'x-tenant: a'];
    for (const header of wrong) expect([header, await post(gateway, CHAT, '{"model":"m0"}', [header])]).toEqual([header, 401]);
    expect(upstreams.flatMap(({ requests }) => requests)).toEqual([]);
  });
});
