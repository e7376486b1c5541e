// Two gateways in front of one replica, with a real Redis between them.
import { afterEach, expect, test } from 'vitest';
import { eventually, type GatewayUnderTest, PROFILE, startConfigured, testConfig } from './fixtures/gateway-under-test.ts';
import { startRedis } from './fixtures/redis.ts';
import { createStubUpstream, streamEvents } from './fixtures/stub-upstream.ts';

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

test('a second gateway begins with the step time that the first has learnt of a replica, and with the bytes of its tokens', async () => {
  const redis = await startRedis();
  closing.push(() => redis.stop());
  // A step takes far longer than the profile says.
  const upstream = await createStubUpstream(async ({ body }, _incoming, outgoing) => {
    const { model } = JSON.parse(body) as { model: string };
    outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
    for (const event of streamEvents({ id: 'c', created: 1, model }, Array.from({ length: 40 }, () => 'word '))) {
      outgoing.write(event);
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    outgoing.end();
  });
  closing.push(() => upstream.close());
  const start = async (): Promise<GatewayUnderTest> => {
    const gateway = await startConfigured(testConfig(`replicas:\n  - { id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE} }\nstore: { redisUrl: '${redis.url}', fleet: test }`));
    closing.push(() => gateway.close());
    return gateway;
  };
  const residual = async (gateway: GatewayUnderTest): Promise<number> => ((await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as { replicas: { stepTimeResidual: number }[] }).replicas[0]?.stepTimeResidual ?? Number.NaN;
  const first = await start();
  await (await fetch(`${first.url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ model: 'm', stream: true, messages: [{ role: 'user', content: 'hello there' }] }) })).text();
  const learnt = await residual(first);
  expect(learnt).toBeGreaterThan(1.1);
  const second = await start();
  await eventually(async () => Math.abs((await residual(second)) - learnt) < 0.001, 15_000);
  expect(second.events.findLast((event) => event.kind === 'learnt')?.learning.bytesPerToken.get('m')?.samples).toBe(1);
  // It has seen nothing by itself, and tells nothing on.
  expect(await residual(first)).toBe(learnt);
});
