// Two gateways in front of one replica, with a real Redis between them.
import { afterEach, expect, test } from 'vitest';
import { eventually, type GatewayUnderTest, PROFILE, startConfigured, testConfig } from './fixtures/gateway-under-test.ts';
import { startRedis } from './fixtures/redis.ts';
import { createStubUpstream } from './fixtures/stub-upstream.ts';

const closing: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});

test('a gateway plans with what another one has sent to the same replica, and forgets it when that one is gone', async () => {
  const redis = await startRedis();
  closing.push(() => redis.stop());
  const upstream = await createStubUpstream(() => {});
  closing.push(() => upstream.close());
  const gateways: GatewayUnderTest[] = [];
  for (let index = 0; index < 2; index++) {
    const gateway = await startConfigured(testConfig(`replicas:\n  - { id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE} }\nstore: { redisUrl: '${redis.url}', fleet: test }`));
    closing.push(() => gateway.close());
    gateways.push(gateway);
  }
  const [first, second] = gateways as [GatewayUnderTest, GatewayUnderTest];
  const peersOf = (gateway: GatewayUnderTest) => gateway.events.findLast((event) => event.kind === 'peer-load');

  const leaving = new AbortController();
  const request = fetch(`${first.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'm', stream: true, messages: [{ role: 'user', content: 'wait' }] }),
    signal: leaving.signal,
  }).catch(() => 'left');
  await eventually(() => (peersOf(second)?.waiting ?? 0) + (peersOf(second)?.running ?? 0) === 1);
  leaving.abort();
  await request;
  await eventually(() => (peersOf(second)?.waiting ?? 1) + (peersOf(second)?.running ?? 1) === 0);
  expect(await (await fetch(`${second.adminUrl}/paceline/status`)).json()).toMatchObject({ fleetLoad: { kind: 'connected', gateways: 1 } });
});

test('a Redis that is not there costs no request anything and is said in the status', async () => {
  const upstream = await createStubUpstream(() => {});
  closing.push(() => upstream.close());
  const gateway = await startConfigured(testConfig(`replicas:\n  - { id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE} }\nstore: { redisUrl: 'redis://127.0.0.1:1' }`));
  closing.push(() => gateway.close());
  await eventually(async () => ((await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as { fleetLoad: { kind: string } }).fleetLoad.kind === 'lost');
  expect((await fetch(`${gateway.url}/v1/models`)).status).toBe(200);
});
