// `paceline serve` at its most talkative, with every kind of secret it can hold, while everything that may fail does: no secret
// is in what it prints, in what operators read, or in what clients are told.
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { eventually, PROFILE } from '../fixtures/gateway-under-test.ts';
import { openRawClient } from '../fixtures/raw-client.ts';
import { freePort, startRedis } from '../fixtures/redis.ts';
import { startServed } from '../fixtures/served.ts';
import { createStubAgent } from '../fixtures/stub-agent.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const SECRETS = {
  tenant: 'sk-tenant-3f9b77e1',
  stranger: 'sk-stranger-a4c2d0',
  replica: 'sk-replica-c0ffee42',
  redis: 'redis-password-91d7',
  wrongRedis: 'redis-wrong-5e5e5e',
  operator: 'sk-operator-b52d88',
  agent: 'agent-token-0badcafe',
  prompt: 'what the patient has, in 1 word',
};
const CHAT = '/v1/chat/completions';

function directoryOf(files: Readonly<Record<string, string>>): string {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-secrets-'));
  opened.push({ close: async () => rmSync(directory, { recursive: true, force: true }) });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text, { mode: 0o600 });
  return directory;
}

function expectNone(where: string, text: string): void {
  for (const [kind, secret] of Object.entries(SECRETS)) {
    // Also as it would stand in a URL, in Basic credentials, or cut.
    for (const form of [secret, encodeURIComponent(secret), Buffer.from(`:${secret}`).toString('base64'), secret.slice(0, -3)]) expect(text.includes(form), `${where} holds the secret of the ${kind}: ${text.slice(Math.max(0, text.indexOf(form) - 200), text.indexOf(form) + 100)}`).toBe(false);
  }
}

test('no secret is printed, counted, shown or told, whatever fails', async () => {
  const redis = await startRedis({ arguments: ['--requirepass', SECRETS.redis] });
  let redisIsUp = true;
  opened.push({ close: async () => void (redisIsUp && (await redis.stop())) });
  const agent = await createStubAgent(['sim:0'], { tcp: true });
  opened.push(agent);
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const directory = directoryOf({
    'agent.token': SECRETS.agent,
    'paceline.yaml': `
listen: { port: 0 }
admin: { port: 0, keyEnv: OPERATOR_KEY }
probes: { port: 0 }
agent: { url: 'http://127.0.0.1:${agent.port}', tokenFile: agent.token, ttlMs: 300 }
replicas:
  - { id: r0, url: '${upstream.url}', models: [m], profile: ${resolve(PROFILE)}, devices: ['sim:0'], apiKeyEnv: REPLICA_KEY }
tenants: [{ name: a, apiKeySha256: [${createHash('sha256').update(SECRETS.tenant).digest('hex')}] }]
store: { redisUrlEnv: REDIS_URL }
health: { everyMs: 50, timeoutMs: 500, failuresMax: 2 }
limits: { bodyBytesMax: 4096 }
logging: { level: debug }
`,
  });
  const served = await startServed([resolve('src/main.ts'), 'serve', '--config', join(directory, 'paceline.yaml')], {
    environment: { OPERATOR_KEY: SECRETS.operator, REPLICA_KEY: SECRETS.replica, REDIS_URL: `redis://:${SECRETS.redis}@127.0.0.1:${redis.port}` },
  });
  opened.push(served);
  const operator = { authorization: `Bearer ${SECRETS.operator}` };
  const operators = async (path: string): Promise<string> => (await fetch(`${served.adminUrl}${path}`, { headers: operator })).text();
  await eventually(async () => (await fetch(`${served.probesUrl}/readyz`)).status === 200);
  await eventually(async () => (await operators('/paceline/status')).includes('"connected"'));
  await eventually(() => agent.leases.length > 0);
  expect(agent.authorizations).toContain(`Bearer ${SECRETS.agent}`);

  const told: string[] = [];
  const ask = async (url: string, init: RequestInit = {}): Promise<void> => {
    const answer = await fetch(url, init).catch((error: Error) => error);
    told.push(answer instanceof Error ? answer.message : `${answer.status} ${JSON.stringify([...answer.headers])} ${await answer.text().catch(String)}`);
  };
  const chat = (key: string, more: object = {}, headers: Record<string, string> = {}): Promise<void> =>
    ask(`${served.url}${CHAT}`, { method: 'POST', headers: { authorization: `Bearer ${key}`, ...headers }, body: JSON.stringify({ model: 'm', messages: [{ role: 'user', content: SECRETS.prompt }], ...more }) });
  await chat(SECRETS.tenant);
  expect(told[0]).toMatch(/^200 /);
  expect(upstream.requests[0]?.headers.authorization).toBe(`Bearer ${SECRETS.replica}`);

  // Refused: a stranger, a bad header, a body too large, no such model, routes and queries with keys in them.
  await chat(SECRETS.stranger);
  await ask(`${served.url}${CHAT}`, { method: 'POST', headers: { 'x-api-key': SECRETS.stranger }, body: '{}' });
  await chat(SECRETS.tenant, {}, { 'x-slo-ttft-ms': 'soon' });
  await chat(SECRETS.tenant, { user: 'x'.repeat(5_000) });
  await chat(SECRETS.tenant, { model: 'nothing' });
  for (const query of [`?api_key=${SECRETS.tenant}`, `?key=${SECRETS.stranger}`]) await ask(`${served.url}/v1/nowhere${query}`);
  for (const path of ['/paceline/status', '/metrics', '/nothing']) await ask(`${served.adminUrl}${path}?key=${SECRETS.operator}`, { headers: { authorization: `Bearer ${SECRETS.stranger}` } });
  // What is no HTTP, with keys in it.
  const raw = await openRawClient(served.url);
  raw.write(`GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization : Bearer ${SECRETS.tenant}\r\n\r\n`);
  told.push((await raw.read()).body.toString());
  raw.socket.destroy();

  // The server refuses our key, fails, breaks off, and goes.
  const answers: (() => void)[] = [];
  for (const status of [401, 403, 500]) answers.push(() => (upstream.answer = (_request, _incoming, outgoing) => void outgoing.writeHead(status, { 'www-authenticate': `Bearer realm="${SECRETS.replica}"` }).end('{"error":{"message":"no"}}')));
  answers.push(() => (upstream.answer = (_request, _incoming, outgoing) => void (outgoing.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: {}\n\n'), setTimeout(() => outgoing.destroy(), 20))));
  answers.push(() => (upstream.answer = (_request, incoming) => void incoming.socket.destroy()));
  for (const set of answers) {
    set();
    await chat(SECRETS.tenant, { stream: true });
  }
  // Redis dies; the agent refuses, talks nonsense and dies.
  await redis.stop();
  redisIsUp = false;
  await eventually(async () => (await operators('/paceline/status')).includes('"lost"'));
  agent.misbehave = () => ({ status: 403 });
  agent.endLease('token-revoked');
  await eventually(() => /clock control is lost/.test(served.stderr()));
  agent.misbehave = () => ({ text: 'no json' });
  await new Promise((done) => setTimeout(done, 300));
  await agent.die();
  opened.splice(opened.indexOf(agent), 1);
  await chat(SECRETS.tenant);

  for (const path of ['/metrics', '/paceline/status', '/nothing']) expectNone(path, await operators(path));
  for (const path of ['/livez', '/readyz', '/startupz', '/nothing']) expectNone(path, await (await fetch(`${served.probesUrl}${path}`)).text());
  expectNone('what clients are told', told.join('\n'));
  served.signal('SIGTERM');
  expect(await served.exited).toBe(0);
  // It did talk.
  for (const word of ['request ended', 'request refused', 'failed a request', 'Redis is lost', 'clock control']) expect(served.stderr()).toContain(word);
  expectNone('stderr', served.stderr());
  expectNone('stdout', served.stdout());
});

test.each([
  ['a Redis that refuses the password', (port: number) => ({ REDIS_URL: `redis://:${SECRETS.wrongRedis}@127.0.0.1:${port}` }), null],
  ['a Redis that is no Redis', () => ({ REDIS_URL: `http://user:${SECRETS.redis}@127.0.0.1` }), 2],
  ['a URL that is none', () => ({ REDIS_URL: `redis://:${SECRETS.redis}@[` }), 2],
  ['a key of operators with a line end', () => ({ OPERATOR_KEY: `${SECRETS.operator}\n` }), 2],
])('%s is told of without the secret', async (_what, environmentOf, code) => {
  const redis = await startRedis({ arguments: ['--requirepass', SECRETS.redis] });
  opened.push({ close: () => redis.stop() });
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const directory = directoryOf({ 'paceline.yaml': `listen: { port: 0 }\nadmin: { port: 0, keyEnv: OPERATOR_KEY }\nreplicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${resolve(PROFILE)} }]\nstore: { redisUrlEnv: REDIS_URL }\nlogging: { level: debug }\n` });
  const environment = { OPERATOR_KEY: SECRETS.operator, REDIS_URL: `redis://127.0.0.1:${await freePort()}`, ...environmentOf(redis.port) };
  const served = await startServed([resolve('src/main.ts'), 'serve', '--config', join(directory, 'paceline.yaml')], { environment });
  opened.push(served);
  if (code === null) await eventually(() => served.stderr().includes('Redis is lost'));
  else expect(await served.exited).toBe(code);
  expect(served.stderr()).not.toBe('');
  expectNone('stderr', served.stderr());
  expectNone('stdout', served.stdout());
});
