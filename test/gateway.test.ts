// The whole gateway: operator routes, clocks through an agent, shutdown, and the official client in front of it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { connect } from 'node:tls';
import OpenAI, { APIConnectionError, APIError, BadRequestError, InternalServerError, NotFoundError } from 'openai';
import { afterEach, expect, test } from 'vitest';
import { ConfigError } from '../src/config/config-problems.ts';
import { createGateway } from '../src/gateway.ts';
import type { GatewayUnderTest } from './fixtures/gateway-under-test.ts';
import { eventually, PROFILE, startConfigured, startGateway, testConfig } from './fixtures/gateway-under-test.ts';
import { createStubAgent } from './fixtures/stub-agent.ts';
import type { Answer, StubUpstream } from './fixtures/stub-upstream.ts';
import { createStubUpstream } from './fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function upstreamOf(answer?: Answer): Promise<StubUpstream> {
  const upstream = await createStubUpstream(answer);
  opened.push(upstream);
  return upstream;
}

async function gatewayOf(upstream: StubUpstream, more = ''): Promise<GatewayUnderTest> {
  const gateway = await startGateway([upstream], { more });
  opened.push(gateway);
  return gateway;
}

function clientOf(gateway: { readonly url: string }): OpenAI {
  return new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'sk-any', maxRetries: 0 });
}
const CHAT = { model: 'm', messages: [{ role: 'user' as const, content: 'hi' }] };
const json = async (url: string): Promise<unknown> => (await fetch(url)).json();

test('the official client gets an answer', async () => {
  const gateway = await gatewayOf(await upstreamOf());
  const { data, request_id: requestId } = await clientOf(gateway).chat.completions.create(CHAT).withResponse();
  expect(data.choices[0]?.message.content).toBe('Hello there!');
  expect(requestId).toMatch(/^[0-9a-f-]{36}$/);
});

test('the official client gets a stream', async () => {
  const gateway = await gatewayOf(await upstreamOf());
  let text = '';
  for await (const chunk of await clientOf(gateway).chat.completions.create({ ...CHAT, stream: true })) text += chunk.choices[0]?.delta.content ?? '';
  expect(text).toBe('Hello there!');
});

test('the official client lists the models of all replicas, each once', async () => {
  const [first, second] = [await upstreamOf(), await upstreamOf()];
  const gateway = await startConfigured(testConfig(`replicas:\n  - { id: a, url: '${first.url}', models: [x, org/y], profile: ${PROFILE} }\n  - { id: b, url: '${second.url}', models: [x], profile: ${PROFILE} }`));
  opened.push(gateway);
  const { data } = await clientOf(gateway).models.list();
  expect(data.map(({ id }) => id)).toEqual(['x', 'org/y']);
  expect(await clientOf(gateway).models.retrieve('org/y')).toMatchObject({ id: 'org/y', object: 'model' });
});

test('the official client knows our errors by their class', async () => {
  const upstream = await upstreamOf((_request, incoming) => void incoming.socket.destroy());
  const client = clientOf(await gatewayOf(upstream));
  await expect(client.chat.completions.create({ ...CHAT, model: 'nope' })).rejects.toThrow(NotFoundError);
  await expect(client.chat.completions.create(CHAT, { headers: { 'x-slo-ttft-ms': 'soon' } })).rejects.toThrow(BadRequestError);
  await expect(client.chat.completions.create(CHAT)).rejects.toThrow(InternalServerError);
});

test('the official client does not take a stream that broke off for a whole one', async () => {
  const upstream = await upstreamOf((_request, incoming, outgoing) => {
    outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
    outgoing.write('data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n', () => setTimeout(() => incoming.socket.destroy(), 20));
  });
  const stream = await clientOf(await gatewayOf(upstream)).chat.completions.create({ ...CHAT, stream: true });
  const drained = (async () => {
    for await (const _chunk of stream);
  })();
  await expect(drained).rejects.toThrow(APIError);
});

test('the official client obeys when it is told to come again', async () => {
  let calls = 0;
  const upstream = await upstreamOf((_request, _incoming, outgoing) => {
    calls++;
    if (calls === 1) outgoing.writeHead(503, { 'retry-after-ms': '10', 'x-should-retry': 'true' }).end('{}');
    else outgoing.writeHead(200, { 'content-type': 'application/json' }).end('{"choices":[]}');
  });
  const gateway = await gatewayOf(upstream);
  const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'sk-any', maxRetries: 1 });
  await client.chat.completions.create(CHAT);
  expect(calls).toBe(2);
});

test('operators have a listener of their own, and readiness follows the replicas', async () => {
  const upstream = await upstreamOf();
  const gateway = await gatewayOf(upstream);
  expect(await json(`${gateway.adminUrl}/healthz`)).toEqual({ status: 'ok' });
  expect(await json(`${gateway.adminUrl}/paceline/status`)).toMatchObject({ policy: { kind: 'paceline' }, clockControl: 'off', inFlight: 0, queued: 0, replicas: [{ replicaId: 'r0', state: 'up' }] });
  expect(await (await fetch(`${gateway.adminUrl}/metrics`)).text()).toContain('paceline_replica_up{replica="r0"} 1');
  expect((await fetch(`${gateway.adminUrl}/v1/models`)).status).toBe(404);
  upstream.healthStatus = 500;
  await eventually(async () => (await fetch(`${gateway.adminUrl}/readyz`)).status === 503);
});

test('a server that refuses connections is found out by the request that meets it', async () => {
  const upstream = await upstreamOf();
  const gateway = await startConfigured(testConfig(`replicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE} }]\nhealth: { everyMs: 60000, timeoutMs: 500, failuresMax: 3 }`));
  opened.push(gateway);
  await upstream.close();
  opened.splice(0, 1);
  const answer = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(CHAT) });
  expect(answer.status).toBe(502);
  await eventually(async () => (await fetch(`${gateway.adminUrl}/readyz`)).status === 503);
});

test('clocks go through the agent while there is one, and requests are served when there is none', async () => {
  const agent = await createStubAgent();
  opened.push(agent);
  const upstream = await upstreamOf();
  const gateway = await startGateway([upstream], { replica: "devices: ['sim:0']", more: `agent: { socket: ${agent.socketPath} }` });
  opened.push(gateway);
  const status = () => json(`${gateway.adminUrl}/paceline/status`) as Promise<{ clockControl: string; replicas: { controlled: boolean }[] }>;
  await eventually(async () => (await status()).replicas[0]?.controlled === true);
  await eventually(() => agent.puts.some(({ targets }) => targets.some((target) => target.clock_mhz !== null)));

  await agent.die();
  await eventually(async () => (await status()).clockControl === 'lost');
  expect((await status()).replicas[0]?.controlled).toBe(false);
  expect((await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(CHAT) })).status).toBe(200);

  await agent.comeBack();
  await eventually(async () => (await status()).clockControl === 'held');
  expect(agent.leases).toHaveLength(2);
});

test('a server with a prefill and a decode group has two targets, each from its own limits, and status and metrics show both', async () => {
  const agent = await createStubAgent(['sim:0', 'sim:1', 'sim:2']);
  opened.push(agent);
  const upstream = await upstreamOf();
  const gateway = await startGateway([upstream], { replica: "devices: { prefill: ['sim:0'], decode: ['sim:1', 'sim:2'] }", more: `agent: { socket: ${agent.socketPath} }` });
  opened.push(gateway);
  const status = () => json(`${gateway.adminUrl}/paceline/status`) as Promise<{ replicas: { controlled: boolean; groups: Record<string, { controlled: boolean; why: { binding: string } }> }[] }>;
  await eventually(async () => (await status()).replicas[0]?.controlled === true);
  expect(agent.leases[0]?.devices.toSorted()).toEqual(['sim:0', 'sim:1', 'sim:2']);
  const clocksOf = (device: string) => agent.puts.flatMap(({ targets }) => targets.filter(({ devices }) => devices.includes(device)).map(({ clock_mhz: clockMhz }) => clockMhz));
  await eventually(() => clocksOf('sim:0').length > 0 && clocksOf('sim:1').length > 0);
  // Some 10,000 tokens that want their first token soon, and any pace after it.
  const answer = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', headers: { 'x-slo-ttft-ms': '500', 'x-slo-tpot-ms': '5000' }, body: JSON.stringify({ ...CHAT, messages: [{ role: 'user', content: 'word '.repeat(8_000) }] }) });
  await answer.text();
  const parked = clocksOf('sim:1')[0] as number;
  await eventually(() => clocksOf('sim:0').some((clockMhz) => clockMhz != null && clockMhz > parked));
  expect(new Set(clocksOf('sim:1'))).toEqual(new Set([parked]));
  expect(agent.puts.flatMap(({ targets }) => targets).filter(({ devices }) => devices.includes('sim:0') && devices.length > 1)).toEqual([]);
  // It has nothing to do from the next control period on.
  await eventually(async () => (await status()).replicas[0]?.groups['decode']?.why.binding === 'idle');
  expect(await status()).toMatchObject({ replicas: [{ controlled: true, groups: { prefill: { controlled: true }, decode: { controlled: true } } }] });
  const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  expect(metrics).toContain('paceline_replica_group_controlled{replica="r0",group="prefill"} 1');
  expect(metrics).toMatch(/paceline_replica_group_operating_point\{replica="r0",group="decode",point="[^"]+",binding="idle"\} 1/);
});

test('each node has its agent: one that dies costs its own replica the control, and status and metrics say which', async () => {
  const [a, b] = [await createStubAgent(), await createStubAgent()];
  opened.push(a, b);
  const upstreams = [await upstreamOf(), await upstreamOf()];
  const replicas = upstreams.map(({ url }, index) => `  - { id: r${index}, url: '${url}', models: [m], profile: ${PROFILE}, agent: node-${index}, devices: ['sim:0'] }`);
  const gateway = await startConfigured(testConfig(`agents:\n  node-0: { socket: ${a.socketPath} }\n  node-1: { socket: ${b.socketPath} }\nreplicas:\n${replicas.join('\n')}`));
  opened.push(gateway);
  const status = () => json(`${gateway.adminUrl}/paceline/status`) as Promise<{ clockControl: string; agents: Record<string, { state: string }>; replicas: { controlled: boolean }[] }>;
  await eventually(async () => (await status()).clockControl === 'held');
  await a.die();
  await eventually(async () => (await status()).clockControl === 'partial');
  expect(await status()).toMatchObject({ agents: { 'node-0': { kind: 'paceline', state: 'lost' }, 'node-1': { kind: 'paceline', state: 'held' } }, replicas: [{ controlled: false }, { controlled: true }] });
  const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  expect(metrics).toContain('paceline_agent_state{agent="node-0",state="lost"} 1');
  expect(metrics).toContain('paceline_clock_control_up 0');
});

test('a token file that is not there is refused at the start', async () => {
  const config = testConfig(`agent: { url: 'http://127.0.0.1:1', tokenFile: /nowhere/token }\nreplicas:\n  - { id: r0, url: 'http://127.0.0.1:1', models: [m], profile: ${PROFILE}, devices: ['sim:0'] }`);
  await expect(createGateway(config)).rejects.toThrow(/^agent\.tokenFile: the token file \/nowhere\/token cannot be read: ENOENT/);
});

test('at shutdown requests in flight end, new ones are told to go elsewhere, and the lease is given back', async () => {
  const agent = await createStubAgent();
  opened.push(agent);
  let finish = (): void => {};
  const upstream = await upstreamOf((_request, _incoming, outgoing) => {
    finish = () => outgoing.writeHead(200, { 'content-type': 'application/json' }).end('{"choices":[]}');
  });
  const gateway = await startGateway([upstream], { replica: "devices: ['sim:0']", more: `agent: { socket: ${agent.socketPath} }\ntimeouts: { drainMs: 3000 }` });
  await eventually(() => agent.leases.length === 1);
  const inFlight = fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(CHAT) });
  await eventually(() => upstream.requests.length === 1);
  const closing = gateway.close();
  await expect(clientOf(gateway).chat.completions.create(CHAT)).rejects.toThrow(APIConnectionError);
  expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(503);
  expect(agent.leases[0]?.ended).toBe('open');
  finish();
  expect((await inFlight).status).toBe(200);
  await closing;
  expect(agent.leases[0]?.ended).toBe('released');
});

test('what does not end in time at shutdown is cut, and the server is let go', async () => {
  const upstream = await upstreamOf(() => {});
  const gateway = await startGateway([upstream], { more: 'timeouts: { drainMs: 50 }' });
  const inFlight = fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(CHAT) });
  const failed = expect(inFlight).rejects.toThrow();
  await eventually(() => upstream.requests.length === 1);
  await gateway.close();
  await failed;
  await upstream.requests[0]?.aborted;
});

test('a static point that a profile does not have is refused, with those it has', async () => {
  const upstream = await upstreamOf();
  await expect(startConfigured(testConfig(`replicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE} }]\nplanner: { policy: 'static:warp' }`))).rejects.toThrow(ConfigError);
});

interface Served {
  readonly url: string;
  readonly adminUrl: string;
  readonly exited: Promise<number | null>;
  readonly stderr: () => string;
  stop(signal: NodeJS.Signals): void;
}

async function serve(yaml: string, ...args: string[]): Promise<Served> {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-serve-'));
  const file = join(directory, 'paceline.yaml');
  writeFileSync(file, yaml);
  const child = spawn(process.execPath, ['src/main.ts', 'serve', '--config', file, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  opened.push({
    close: async () => {
      child.kill('SIGKILL');
      await exited;
      rmSync(directory, { recursive: true, force: true });
    },
  });
  const line = await Promise.race([once(createInterface(child.stdout), 'line').then(([text]) => String(text)), exited.then(() => '{"url":"","adminUrl":""}')]);
  return { ...(JSON.parse(line) as { url: string; adminUrl: string }), exited, stderr: () => stderr, stop: (signal) => child.kill(signal) };
}

test.each(['SIGTERM', 'SIGINT'] as const)('paceline serve says where it listens, serves, and ends well on %s', async (signal) => {
  const upstream = await upstreamOf();
  const served = await serve(`replicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${process.cwd()}/${PROFILE} }]\nlisten: { port: 1 }\n`, '--listen', '127.0.0.1:0', '--admin', '0', '--policy', 'max-clock');
  await eventually(async () => (await fetch(`${served.adminUrl}/readyz`)).status === 200);
  expect((await fetch(`${served.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(CHAT) })).status).toBe(200);
  expect(await json(`${served.adminUrl}/paceline/status`)).toMatchObject({ policy: { kind: 'max-clock' } });
  served.stop(signal);
  expect(await served.exited).toBe(0);
});

test('paceline serve goes on where there is nothing to read again on SIGHUP', async () => {
  const upstream = await upstreamOf();
  const served = await serve(`replicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${process.cwd()}/${PROFILE} }]\nlisten: { port: 0 }\nadmin: { port: 0 }\n`);
  served.stop('SIGHUP');
  await eventually(async () => (await fetch(`${served.adminUrl}/readyz`)).status === 200);
  served.stop('SIGTERM');
  expect(await served.exited).toBe(0);
});

test('paceline serve takes a new certificate on SIGHUP and goes on', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-tls-'));
  opened.push({ close: async () => rmSync(directory, { recursive: true, force: true }) });
  const put = (name: 'first' | 'second'): void => {
    for (const kind of ['cert', 'key']) copyFileSync(`test/fixtures/tls/${name}.${kind}.pem`, join(directory, `${kind}.pem`));
  };
  put('first');
  const upstream = await upstreamOf();
  const served = await serve(
    `replicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${process.cwd()}/${PROFILE} }]\nlisten: { port: 0, tls: { certFile: ${directory}/cert.pem, keyFile: ${directory}/key.pem } }\nadmin: { port: 0 }\n`,
  );
  const subject = async (): Promise<unknown> => {
    const socket = connect({ port: Number(new URL(served.url).port), host: '127.0.0.1', rejectUnauthorized: false });
    await once(socket, 'secureConnect');
    const { CN } = socket.getPeerCertificate().subject;
    socket.destroy();
    return CN;
  };
  expect(await subject()).toBe('first.test');
  put('second');
  served.stop('SIGHUP');
  await eventually(async () => (await subject()) === 'second.test');
  served.stop('SIGTERM');
  expect(await served.exited).toBe(0);
});

test('paceline serve refuses a certificate that is not there in one line that names the file', async () => {
  const served = await serve(`replicas: [{ id: r0, url: 'http://127.0.0.1:1', models: [m], profile: ${process.cwd()}/${PROFILE} }]\nlisten: { port: 0, tls: { certFile: /nowhere/cert.pem, keyFile: k.pem } }\nadmin: { port: 0 }\n`);
  expect(await served.exited).toBe(2);
  expect(served.stderr()).toMatch(/listen\.tls\.certFile: \/nowhere\/cert\.pem cannot be read: ENOENT/);
});

test('paceline serve refuses a wrong file in one line with its place', async () => {
  const served = await serve('replicas:\n  - id: r0\n    modle: m\n');
  expect(await served.exited).toBe(2);
  expect(served.stderr()).toContain('paceline.yaml:3: replicas[0].modle: unknown key');
});
