// How a gateway leaves: not ready at once, serving while load balancers notice, then draining, then gone with the clocks given back.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { eventually, PROFILE } from '../fixtures/gateway-under-test.ts';
import type { Served } from '../fixtures/served.ts';
import { startServed } from '../fixtures/served.ts';
import { createStubAgent } from '../fixtures/stub-agent.ts';
import type { StubUpstream } from '../fixtures/stub-upstream.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function start(timeouts: string): Promise<{ served: Served; upstream: StubUpstream; agent: Awaited<ReturnType<typeof createStubAgent>> }> {
  const [upstream, agent] = [await createStubUpstream(), await createStubAgent()];
  const directory = mkdtempSync(join(tmpdir(), 'paceline-shutdown-'));
  writeFileSync(
    join(directory, 'paceline.yaml'),
    `listen: { port: 0 }\nadmin: { port: 0 }\nprobes: { port: 0 }\nagent: { socket: ${agent.socketPath} }\nreplicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${resolve(PROFILE)}, devices: ['sim:0'] }]\ntimeouts: { ${timeouts} }\n`,
  );
  const served = await startServed(['src/main.ts', 'serve', '--config', join(directory, 'paceline.yaml')]);
  opened.push({ close: async () => rmSync(directory, { recursive: true, force: true }) }, upstream, agent, served);
  await eventually(async () => (await statusOf(`${served.probesUrl}/readyz`)) === 200);
  await eventually(() => agent.leases.length === 1);
  return { served, upstream, agent };
}

async function statusOf(url: string): Promise<number> {
  const answer = await fetch(url);
  await answer.arrayBuffer();
  return answer.status;
}

const ask = (served: Served, body: object = {}): Promise<Response> => fetch(`${served.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'm', ...body }) });

test('on SIGTERM it is not ready at once, serves on while that is noticed, then accepts nothing, ends its streams, gives the clocks back and exits with 0', async () => {
  const { served, upstream, agent } = await start('readinessLagMs: 6000, drainMs: 20000');
  let finish = (): void => {};
  upstream.answer = (_request, _incoming, outgoing) => {
    outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
    outgoing.write('data: {"choices":[{"delta":{"content":"a"}}]}\n\n');
    finish = () => outgoing.end('data: [DONE]\n\n');
  };
  const stream = await ask(served, { stream: true });
  served.signal('SIGTERM');
  await eventually(async () => (await statusOf(`${served.probesUrl}/readyz`)) === 503, 3_000);
  expect(await statusOf(`${served.adminUrl}/readyz`)).toBe(503);
  expect(await statusOf(`${served.probesUrl}/livez`)).toBe(200);
  upstream.answer = (_request, _incoming, outgoing) => void outgoing.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  expect((await ask(served)).status).toBe(200);
  await eventually(async () => (await ask(served).catch(() => null)) === null, 15_000);
  // Alive and holding its lease while the stream goes on: nobody may restart it now.
  expect(await statusOf(`${served.probesUrl}/livez`)).toBe(200);
  expect(agent.leases[0]?.ended).toBe('open');
  finish();
  expect(await stream.text()).toContain('data: [DONE]');
  expect(await served.exited).toBe(0);
  expect(agent.leases[0]?.ended).toBe('released');
});

test('a second SIGTERM ends it at once, and the lease falls with its connection', async () => {
  const { served, agent } = await start('readinessLagMs: 60000');
  served.signal('SIGTERM');
  await eventually(async () => (await statusOf(`${served.probesUrl}/readyz`)) === 503);
  served.signal('SIGTERM');
  expect(await served.exited).toBeNull();
  await eventually(() => agent.leases[0]?.ended === 'closed');
});
