// A tenant's limits as its clients see them: through whole gateways, alone and on one Redis.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { afterEach, describe, expect, test } from 'vitest';
import { goDuration } from '../../src/http/rate-limit-headers.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { eventually, PROFILE, startConfigured, testConfig } from '../fixtures/gateway-under-test.ts';
import { startRedis } from '../fixtures/redis.ts';
import type { Answer, StubUpstream } from '../fixtures/stub-upstream.ts';
import { createStubUpstream, endless } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const KEY_HASH = createHash('sha256').update('sk-acme').digest('hex');
async function start(tenant: string, { answer, more = '', gateways = 1 }: { answer?: Answer; more?: string; gateways?: number } = {}): Promise<{ gateway: GatewayUnderTest; all: GatewayUnderTest[]; upstream: StubUpstream }> {
  const upstream = await createStubUpstream(answer);
  opened.push(upstream);
  const all: GatewayUnderTest[] = [];
  for (let index = 0; index < gateways; index++) {
    const yaml = `replicas:\n  - { id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE} }\ntimeouts: { drainMs: 100 }\nslo: { classes: { fast: { ttftMs: 500 }, slow: { e2eMs: 600000 } }, default: fast }\ntenants:\n  - { name: acme, apiKeySha256: [${KEY_HASH}], ${tenant} }\n${more}`;
    const gateway = await startConfigured(testConfig(yaml));
    opened.push(gateway);
    all.push(gateway);
  }
  return { gateway: all[0] as GatewayUnderTest, all, upstream };
}
const CHAT = { model: 'm', messages: [{ role: 'user', content: 'hi' }], max_completion_tokens: 50 };
function post(gateway: GatewayUnderTest, body: object = CHAT, path = '/v1/chat/completions'): Promise<Response> {
  return fetch(gateway.url + path, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json', authorization: 'Bearer sk-acme' } });
}
interface Status {
  readonly limits: { readonly scope: string; readonly tenants: readonly { readonly concurrent: number; readonly tokensRemaining: number | null; readonly joulesRemaining: number | null }[] };
}
async function status(gateway: GatewayUnderTest): Promise<Status['limits']> {
  return ((await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as Status).limits;
}
const rates = ({ headers }: Response) => Object.fromEntries([...headers].filter(([name]) => name.startsWith('x-ratelimit-')));

describe('one gateway', () => {
  test('says on every answer what is left, and refuses in OpenAI\'s words what is over', async () => {
    const { gateway } = await start('limits: { requestsPerMinute: 2, tokensPerMinute: 1000 }');
    const first = await post(gateway);
    expect(first.status).toBe(200);
    expect(rates(first)).toMatchObject({ 'x-ratelimit-limit-requests': '2', 'x-ratelimit-remaining-requests': '1', 'x-ratelimit-limit-tokens': '1000', 'x-ratelimit-remaining-tokens': '949' });
    expect(first.headers.get('x-ratelimit-reset-requests')).toMatch(/^(1m0\.?\d*s|60(\.\d+)?s|59\.\d+s|1m1s)$/);
    await first.text();
    // What it took: 9 and 3.
    await eventually(async () => (await status(gateway)).tenants[0]?.tokensRemaining === 988);
    // That prompt showed that a byte here is two tokens, at least.
    const second = await post(gateway, { ...CHAT, stream: true });
    expect(rates(second)).toMatchObject({ 'x-ratelimit-remaining-requests': '0', 'x-ratelimit-remaining-tokens': '934' });
    await second.text();
    const refused = await post(gateway);
    expect(refused.status).toBe(429);
    expect(await refused.json()).toEqual({ error: { message: expect.stringMatching(/^Rate limit reached for 'acme': 2 requests per minute; try again in \d+(\.\d+)? s$/), type: 'requests', param: null, code: 'rate_limit_exceeded' } });
    expect(Object.fromEntries(refused.headers)).toMatchObject({ 'x-should-retry': 'true', 'x-llm-d-request-dropped-reason': 'rejected-saturated', 'x-ratelimit-remaining-requests': '0' });
    expect(Number(refused.headers.get('retry-after-ms'))).toBeGreaterThan(55_000);
    expect(Number(refused.headers.get('retry-after'))).toBeLessThanOrEqual(61);
  });

  test('says of one that can never fit that it should not come back', async () => {
    const { gateway } = await start('limits: { tokensPerMinute: 100 }');
    const refused = await post(gateway, { ...CHAT, max_completion_tokens: 100 });
    expect(refused.status).toBe(429);
    expect(await refused.json()).toMatchObject({ error: { type: 'tokens', code: 'rate_limit_exceeded', message: expect.stringContaining('it may take 101 tokens') } });
    expect(refused.headers.get('x-should-retry')).toBe('false');
  });

  test('sends Anthropic\'s clients their own words', async () => {
    const { gateway } = await start('limits: { requestsPerMinute: 1 }');
    await post(gateway, { ...CHAT, max_tokens: 5 }, '/v1/messages');
    expect(await (await post(gateway, { ...CHAT, max_tokens: 5 }, '/v1/messages')).json()).toMatchObject({ type: 'error', error: { type: 'rate_limit_error' } });
  });

  test('frees a place when the body has ended, and when its client leaves', async () => {
    const { gateway } = await start('limits: { concurrencyMax: 1 }', { answer: endless(() => {}) });
    const leaving = httpRequest(`${gateway.url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: 'Bearer sk-acme' } });
    leaving.on('error', () => {});
    leaving.end(JSON.stringify({ ...CHAT, stream: true }));
    const [answer] = await once(leaving, 'response');
    await once(answer, 'data');
    const refused = await post(gateway);
    expect(refused.status).toBe(429);
    expect(await refused.json()).toMatchObject({ error: { type: 'concurrency', code: 'rate_limit_exceeded' } });
    expect(refused.headers.get('retry-after')).toBe('1');
    leaving.destroy();
    await eventually(async () => (await status(gateway)).tenants[0]?.concurrent === 0);
  });

  test('frees the place, and gives all tokens back, of what the scheduler refuses and of what no server could be sent', async () => {
    const { gateway, upstream } = await start('limits: { concurrencyMax: 3, tokensPerMinute: 1000 }', { more: 'health: { everyMs: 50, timeoutMs: 500, failuresMax: 1 }' });
    upstream.healthStatus = 500;
    await eventually(async () => (await fetch(`${gateway.adminUrl}/readyz`)).status !== 200);
    expect((await post(gateway)).status).toBe(503);
    expect((await status(gateway)).tenants).toMatchObject([{ concurrent: 0, tokensRemaining: 1000 }]);
  });

  test('at the end of the energy budget gives the class it should, and tells what is left', async () => {
    const { gateway } = await start('energyBudget: { joulesPerDay: 0.001, atEnd: { class: slow } }');
    await (await post(gateway)).text();
    await eventually(async () => (await status(gateway)).tenants[0]?.joulesRemaining === 0);
    await (await post(gateway)).text();
    expect(gateway.events.filter((event) => event.kind === 'arrived').map(({ job }) => [job.sloClass, job.slo])).toEqual([['fast', { ttftMs: 500 }], ['slow', { e2eMs: 600_000 }]]);
    const page = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
    expect(page).toContain('paceline_tenant_energy_remaining_joules{tenant="acme"} 0');
    expect(page).toContain('paceline_limit_decisions_total{limit="energy",decision="class",scope="gateway"} 1');
  });

  test('or refuses until midnight', async () => {
    const { gateway } = await start('energyBudget: { joulesPerDay: 0.001 }');
    await (await post(gateway)).text();
    await eventually(async () => (await status(gateway)).tenants[0]?.joulesRemaining === 0);
    const refused = await post(gateway);
    expect(refused.status).toBe(429);
    expect(await refused.json()).toMatchObject({ error: { code: 'insufficient_quota' } });
    expect(refused.headers.get('x-should-retry')).toBe('false');
    expect(Number(refused.headers.get('retry-after'))).toBeLessThanOrEqual(86_400);
  });

  test('says that its limits are of itself alone', async () => {
    const { gateway } = await start('limits: { requestsPerMinute: 1 }');
    await post(gateway);
    expect(await status(gateway)).toMatchObject({ scope: 'this gateway alone', store: null, tenants: [{ scope: 'gateway' }] });
  });

  test('a tenant without limits has no headers of them', async () => {
    const { gateway } = await start('weight: 1');
    expect(rates(await post(gateway))).toEqual({});
    expect((await status(gateway)).tenants).toEqual([]);
  });
});

describe('three gateways on one Redis', () => {
  test('let through what one would, and go on when it is gone', async () => {
    const redis = await startRedis();
    opened.push({ close: redis.stop });
    const { all } = await start('limits: { requestsPerMinute: 30 }', { gateways: 3, more: `store: { redisUrl: '${redis.url}', fleet: test, timeoutMs: 1000, whenLost: open }` });
    expect(await status(all[2] as GatewayUnderTest)).toMatchObject({ scope: 'fleet', store: { kind: 'up' } });
    const codes = await Promise.all(Array.from({ length: 60 }, async (_, index) => (await post(all[index % 3] as GatewayUnderTest)).status));
    expect(codes.filter((code) => code === 200)).toHaveLength(30);
    expect(codes.filter((code) => code === 429)).toHaveLength(30);
    await redis.stop();
    await eventually(async () => (await status(all[0] as GatewayUnderTest)).scope === 'store lost');
    expect((await post(all[0] as GatewayUnderTest)).status).toBe(200);
    const page = await (await fetch(`${(all[0] as GatewayUnderTest).adminUrl}/metrics`)).text();
    expect(page).toContain('paceline_store_up 0');
    expect(page).toContain('paceline_limit_decisions_total{limit="none",decision="admitted",scope="open"} 1');
  });
});

test.each([[0, '0s'], [1, '1ms'], [120, '120ms'], [999.2, '1s'], [1_000, '1s'], [6_500, '6.5s'], [60_000, '1m0s'], [61_001, '1m1.001s'], [3_600_000, '1h0m0s'], [90_061_500, '25h1m1.5s']])('%d ms is %s', (ms, text) => {
  expect(goDuration(ms)).toBe(text);
});
