// The probes answer for the gateway's event loop without being in it.
import { once } from 'node:events';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import type { AddressInfo } from 'node:net';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { createGateway } from '../../src/gateway.ts';
import { eventually, PROFILE, startGateway, testConfig } from '../fixtures/gateway-under-test.ts';
import type { Served } from '../fixtures/served.ts';
import { startServed } from '../fixtures/served.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function upstreamOf() {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  return upstream;
}

/** A gateway that can be told to stand still. */
async function standing(stuckMs: number): Promise<Served> {
  const upstream = await upstreamOf();
  const served = await startServed(['test/fixtures/blocked-gateway.ts', `replicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE} }]\nprobes: { port: 0, stuckMs: ${stuckMs} }`]);
  opened.push(served);
  await eventually(async () => (await statusOf(`${served.probesUrl}/readyz`)) === 200);
  return served;
}

async function statusOf(url: string): Promise<number> {
  const answer = await fetch(url);
  await answer.arrayBuffer();
  return answer.status;
}

test('an event loop that is blocked for seconds is alive and as ready as it was, though nothing else answers', async () => {
  const served = await standing(60_000);
  served.write('20000');
  await eventually(() => served.stdout().includes('standing still'));
  await expect(fetch(`${served.adminUrl}/healthz`, { signal: AbortSignal.timeout(500) })).rejects.toThrow();
  const seen = new Set<number>();
  for (let probes = 0; probes < 20; probes++) for (const path of ['livez', 'readyz', 'startupz']) seen.add(await statusOf(`${served.probesUrl}/${path}`));
  expect(served.stdout()).not.toContain('going on');
  expect([...seen]).toEqual([200]);
});

test('an event loop that stands still for longer than allowed is dead, and alive again when it goes on', async () => {
  const served = await standing(1_000);
  served.write('8000');
  await eventually(() => served.stdout().includes('standing still'));
  await eventually(async () => (await statusOf(`${served.probesUrl}/livez`)) === 503);
  const answer = await fetch(`${served.probesUrl}/livez`);
  const { silentMs, ...said } = (await answer.json()) as { silentMs: number };
  expect(said).toEqual({ status: 'stuck', stuckMs: 1_000 });
  expect(silentMs).toBeGreaterThan(1_000);
  expect(await statusOf(`${served.probesUrl}/readyz`)).toBe(503);
  expect(await statusOf(`${served.probesUrl}/startupz`)).toBe(200);
  expect(served.stdout()).not.toContain('going on');
  await eventually(async () => (await statusOf(`${served.probesUrl}/livez`)) === 200, 15_000);
  expect(served.stdout()).toContain('going on');
});

test('readiness follows the replicas, and goes at once when the gateway leaves', async () => {
  const upstream = await upstreamOf();
  upstream.healthStatus = 500;
  const gateway = await startGateway([upstream], { waitUp: false, more: 'probes: { port: 0 }\ntimeouts: { readinessLagMs: 1500, drainMs: 100 }' });
  const body = async (path: string): Promise<unknown> => (await fetch(`${gateway.probesUrl}/${path}`)).json();
  expect(await body('readyz')).toEqual({ status: 'not ready' });
  expect(await body('startupz')).toEqual({ status: 'started' });
  upstream.healthStatus = 200;
  await eventually(async () => (await statusOf(`${gateway.probesUrl}/readyz`)) === 200);
  upstream.healthStatus = 500;
  await eventually(async () => (await statusOf(`${gateway.probesUrl}/readyz`)) === 503);
  upstream.healthStatus = 200;
  await eventually(async () => (await statusOf(`${gateway.probesUrl}/readyz`)) === 200);
  const closing = gateway.close();
  expect(await body('readyz')).toEqual({ status: 'draining' });
  expect(await statusOf(`${gateway.probesUrl}/livez`)).toBe(200);
  await closing;
  await expect(fetch(`${gateway.probesUrl}/livez`)).rejects.toThrow();
});

test('what is no probe is refused, and who does not finish a request is closed', async () => {
  const gateway = await startGateway([await upstreamOf()], { more: 'probes: { port: 0 }' });
  opened.push(gateway);
  const probesUrl = gateway.probesUrl as string;
  expect(await statusOf(`${probesUrl}/metrics`)).toBe(404);
  expect((await fetch(`${probesUrl}/livez`, { method: 'POST', body: 'x' })).status).toBe(405);
  expect((await fetch(`${probesUrl}/livez`, { method: 'HEAD' })).status).toBe(200);
  const slow = connect(Number(new URL(probesUrl).port), '127.0.0.1');
  slow.on('error', () => {});
  const closed = once(slow, 'close');
  slow.resume();
  slow.write('GET /livez HTTP/1.1\r\n');
  await closed;
});

test('connections beyond those that probes need are closed, and those that go make room', async () => {
  const gateway = await startGateway([await upstreamOf()], { more: 'probes: { port: 0 }' });
  opened.push(gateway);
  const { port } = new URL(gateway.probesUrl as string);
  const sockets = Array.from({ length: 64 }, () => connect(Number(port), '127.0.0.1'));
  await Promise.all(sockets.map((socket) => once(socket, 'connect')));
  const more = connect(Number(port), '127.0.0.1');
  more.on('error', () => {});
  await once(more, 'close');
  for (const socket of sockets) socket.destroy();
  await eventually(async () => (await statusOf(`${gateway.probesUrl}/livez`).catch(() => 0)) === 200);
});

test('a port of the probes that is taken is told by its key, and nothing stays open', async () => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as AddressInfo;
  const config = testConfig(`replicas: [{ id: r0, url: 'http://127.0.0.1:1', models: [m], profile: ${PROFILE} }]\nprobes: { port: ${port} }`);
  await expect(createGateway(config)).rejects.toThrow(`probes: EADDRINUSE: another process listens on 127.0.0.1:${port}; choose another with probes.port`);
  taken.close();
});

// A compiler and a cold start: seconds, and many more on a machine that does much else.
test('what is built of the sources has its probes too', { timeout: 180_000 }, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-built-'));
  opened.push({ close: async () => rmSync(directory, { recursive: true, force: true }) });
  execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json', '--noCheck', '--declaration', 'false', '--sourceMap', 'false', '--outDir', join(directory, 'dist')]);
  symlinkSync(resolve('node_modules'), join(directory, 'node_modules'));
  writeFileSync(join(directory, 'package.json'), '{"type":"module"}');
  const upstream = await upstreamOf();
  writeFileSync(join(directory, 'paceline.yaml'), `listen: { port: 0 }\nadmin: { port: 0 }\nprobes: { port: 0 }\nreplicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${resolve(PROFILE)} }]\n`);
  const served = await startServed(['dist/main.js', 'serve', '--config', 'paceline.yaml'], { cwd: directory });
  opened.push(served);
  await eventually(async () => (await statusOf(`${served.probesUrl}/readyz`)) === 200, 30_000);
  expect(await statusOf(`${served.probesUrl}/livez`)).toBe(200);
  served.signal('SIGTERM');
  expect(await served.exited).toBe(0);
});
