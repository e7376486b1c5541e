// Another configuration for a gateway that runs: for the next requests, with no stream disturbed.
import { createHash } from 'node:crypto';
import { afterEach, expect, test } from 'vitest';
import { ConfigError } from '../src/config/config-problems.ts';
import { type GatewayUnderTest, PROFILE, startConfigured, testConfig } from './fixtures/gateway-under-test.ts';
import { createStubUpstream, type StubUpstream } from './fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const hash = (key: string): string => createHash('sha256').update(key).digest('hex');
const tenant = (name: string, key: string, more = ''): string => `{ name: ${name}, apiKeySha256: ['${hash(key)}']${more} }`;

async function start(more: string): Promise<{ gateway: GatewayUnderTest; upstream: StubUpstream; yaml: (more: string) => string }> {
  const upstream = await createStubUpstream();
  const yaml = (also: string): string => `replicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE} }]\n${also}\n`;
  const gateway = await startConfigured(testConfig(yaml(more)));
  opened.push(upstream, gateway);
  return { gateway, upstream, yaml };
}

function ask(gateway: GatewayUnderTest, key: string, body: object = {}): Promise<Response> {
  return fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'm', ...body }), headers: { authorization: `Bearer ${key}` } });
}

async function statusOf(gateway: GatewayUnderTest, key: string): Promise<number> {
  const answer = await ask(gateway, key);
  await answer.arrayBuffer();
  return answer.status;
}

async function stateOf(gateway: GatewayUnderTest): Promise<{ config: { refused: { problems: string[] } | null } }> {
  return (await fetch(`${gateway.adminUrl}/paceline/status`)).json() as never;
}

test('new keys, tenants, classes and names of models are there for the next request, and what is gone is refused', async () => {
  const { gateway, yaml } = await start(`tenants: [${tenant('acme', 'old')}]`);
  expect(await statusOf(gateway, 'old')).toBe(200);
  const taken = gateway.reload(() => testConfig(yaml(`tenants: [${tenant('acme', 'new')}, ${tenant('beta', 'other', ', class: quick')}]\nslo: { classes: { quick: { ttftMs: 123 } } }\nmodels: { short: { aliasOf: m } }`)));
  expect(taken).toBe(true);
  expect([await statusOf(gateway, 'old'), await statusOf(gateway, 'new'), await statusOf(gateway, 'other')]).toEqual([401, 200, 200]);
  expect(gateway.events.findLast((event) => event.kind === 'arrived')).toMatchObject({ job: { tenant: 'beta', sloClass: 'quick', slo: { ttftMs: 123 } } });
  expect((await ask(gateway, 'new', { model: 'short' })).status).toBe(200);
});

test('a stream under way does not notice ten of them, even where its own key is gone', async () => {
  const { gateway, upstream, yaml } = await start(`tenants: [${tenant('acme', 'k')}]`);
  let write: (text: string) => void = () => {};
  let finish = (): void => {};
  upstream.answer = (_request, _incoming, outgoing) => {
    outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
    write = (text) => void outgoing.write(`data: {"choices":[{"delta":{"content":"${text}"}}]}\n\n`);
    write('0');
    finish = () => outgoing.end('data: [DONE]\n\n');
  };
  const stream = await ask(gateway, 'k', { stream: true, stream_options: { include_usage: true } });
  for (let turn = 1; turn <= 10; turn++) {
    expect(gateway.reload(() => testConfig(yaml(`tenants: [${tenant('acme', `k${turn}`)}]`)))).toBe(true);
    write(String(turn));
  }
  finish();
  const tokens = [...(await stream.text()).matchAll(/"content":"(\d+)"/g)].map(([, token]) => Number(token));
  expect(tokens).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  expect(await statusOf(gateway, 'k')).toBe(401);
});

test('one that is wrong is refused whole, the old one stays in force, and the status and metrics say why until one is good', async () => {
  const { gateway, yaml } = await start(`tenants: [${tenant('acme', 'k')}]`);
  expect(gateway.reload(() => testConfig(yaml('tenants: [{ name: acme, weigth: 2 }]')))).toBe(false);
  expect(await statusOf(gateway, 'k')).toBe(200);
  expect((await stateOf(gateway)).config.refused?.problems[0]).toMatch(/^test\.yaml:\d+: tenants\[0\]\.weigth: unknown key/);
  const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  expect(metrics).toContain('paceline_config_last_reload_successful 0');
  expect(metrics).toContain('paceline_config_reloads_total{result="refused"} 1');
  expect(gateway.reload(() => testConfig(yaml(`tenants: [${tenant('acme', 'k2')}]`)))).toBe(true);
  expect((await stateOf(gateway)).config.refused).toBeNull();
});

test.each([
  ['other keys of a replica', (yaml: string) => yaml.replace('models: [m]', 'models: [m, n]'), [expect.stringMatching(/^replicas: 'r0' has changed; .* Give it another id$/)]],
  ['a replica whose profile is not there', (yaml: string) => yaml.replace('}]', '}, { id: r1, url: "http://127.0.0.1:9", models: [m], profile: nowhere.json }]'), [expect.stringMatching(/^profile of replica 'r1': .*nowhere.json/)]],
  ['another port and other timeouts', (yaml: string) => `${yaml}listen: { port: 1 }\ntimeouts: { stallMs: 5 }\n`, ['listen: changed; it is taken over by a restart only', 'timeouts: changed; it is taken over by a restart only']],
])('one that asks for what takes a restart is refused whole and says for which keys: %s', async (_, change, problems) => {
  const { gateway, yaml } = await start('tenants: []');
  expect(gateway.reload(() => testConfig(change(yaml(`tenants: [${tenant('acme', 'k')}]`))))).toBe(false);
  expect((await stateOf(gateway)).config.refused?.problems).toEqual(problems);
  // Nothing of it is in force, the new tenant neither.
  expect(await statusOf(gateway, 'anything')).toBe(200);
});

test('a file that cannot be read at all is no more than that', async () => {
  const { gateway } = await start('tenants: []');
  expect(gateway.reload(() => { throw new ConfigError(['paceline.yaml: cannot be read: ENOENT']); })).toBe(false);
  expect(await statusOf(gateway, 'anything')).toBe(200);
});

test('a key that expires is refused from that instant on, whatever becomes of the file', async () => {
  const { gateway, yaml } = await start(`tenants: [${tenant('acme', 'k')}]`);
  const config = testConfig(yaml(`tenants: [${tenant('acme', 'k')}]`));
  gateway.reload(() => ({ ...config, keyExpiresAtUnixMs: new Map([[hash('k'), Date.now() + 60_000]]) }));
  expect(await statusOf(gateway, 'k')).toBe(200);
  gateway.reload(() => ({ ...config, keyExpiresAtUnixMs: new Map([[hash('k'), Date.now()]]) }));
  expect(await statusOf(gateway, 'k')).toBe(401);
});

test('a price and a carbon intensity are taken over; where accounts are written down takes a restart', async () => {
  const { gateway, yaml } = await start('accounts: { pricePerKwh: 0.2 }');
  expect(gateway.reload(() => testConfig(yaml('accounts: { pricePerKwh: 0.3, carbonGPerKwh: 400, currency: USD, pue: 1.2 }')))).toBe(true);
  expect(gateway.reload(() => testConfig(yaml('accounts: { pricePerKwh: 0.3, file: /tmp/elsewhere.sqlite }')))).toBe(false);
  expect((await stateOf(gateway)).config.refused?.problems).toEqual([expect.stringContaining('accounts: changed; it is taken over by a restart only')]);
});
