// Replicas that fail, fall silent or have too much to do: who is sent what then, and where it can be seen.
import { connect } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { eventually, PROFILE, startConfigured, testConfig } from '../fixtures/gateway-under-test.ts';
import type { RawAnswer, RawUpstream } from '../fixtures/raw-upstream.ts';
import { createRawUpstream } from '../fixtures/raw-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const whole = (status: string, body = '{}', more = ''): RawAnswer => ({ socket }) => void socket.write(`HTTP/1.1 ${status}\r\ncontent-type: application/json\r\n${more}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
const fine = whole('200 OK', '{"choices":[]}');
const EVENT = 'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n';
const STREAM_HEAD = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n';

interface Fleet {
  readonly gateway: GatewayUnderTest;
  readonly upstreams: readonly RawUpstream[];
  replica(index: number): Promise<{ readonly state: string; readonly breaker: string; readonly room: number; readonly waitingPrompts: number; readonly runningStreams: number }>;
}

/** `max-clock` sends each request to the replica with the fewest, the first of equals. */
async function start(answers: readonly RawAnswer[], options: { readonly breaker?: string; readonly timeouts?: string; readonly slowStartMs?: number; readonly probesFailMax?: number; readonly more?: string } = {}): Promise<Fleet> {
  const upstreams: RawUpstream[] = [];
  for (const answer of answers) upstreams.push(await createRawUpstream(answer));
  opened.push(...upstreams);
  const replicas = upstreams.map(({ url }, index) => `  - { id: r${index}, url: '${url}', models: [m], profile: ${PROFILE}, concurrencyMax: 10 }\n`).join('');
  const { breaker = 'failuresMax: 3, windowMs: 60000, openMs: 600000', timeouts = '', slowStartMs = 0, probesFailMax = 100, more = '' } = options;
  const gateway = await startConfigured(testConfig(`replicas:\n${replicas}planner: { policy: max-clock }\nhealth: { everyMs: 50, timeoutMs: 2000, failuresMax: ${probesFailMax}, slowStartMs: ${slowStartMs}, breaker: { ${breaker} } }\ntimeouts: { drainMs: 0, ${timeouts} }\n${more}`));
  opened.push(gateway);
  const replicaStates = async () => ((await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as { replicas: Awaited<ReturnType<Fleet['replica']>>[] }).replicas;
  await eventually(async () => (await replicaStates()).every(({ state }) => state === 'up'));
  return { gateway, upstreams, replica: async (index) => (await replicaStates())[index] as never };
}

async function ask({ gateway }: Fleet, stream = false): Promise<{ readonly status: number; readonly replica: string | null; readonly text: string }> {
  const body = JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hi' }], stream });
  const answer = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
  return { status: answer.status, replica: answer.headers.get('x-paceline-replica'), text: await answer.text().catch((error: Error) => error.message) };
}

async function metrics({ gateway }: Fleet): Promise<string[]> {
  return (await (await fetch(`${gateway.adminUrl}/metrics`)).text()).split('\n');
}

const FAILURES: readonly { readonly name: string; readonly answer: RawAnswer; readonly stream?: boolean; readonly timeouts?: string }[] = [
  { name: 'a reset before its answer', answer: ({ socket }) => void socket.resetAndDestroy() },
  { name: 'a close in the middle of an answer', answer: ({ socket }) => void socket.end('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf') },
  { name: 'a reset in the middle of a stream', stream: true, answer: ({ socket }) => void socket.write('HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n', () => socket.resetAndDestroy()) },
  { name: 'what is no HTTP', answer: ({ socket }) => void socket.write('SSH-2.0-OpenSSH_9.9\r\n\r\n') },
  { name: 'no answer in time', answer: () => {}, timeouts: 'firstByteMs: 60' },
  { name: 'a stall in its answer', stream: true, answer: ({ socket }) => void socket.write(STREAM_HEAD + EVENT), timeouts: 'stallMs: 60' },
  { name: '500', answer: whole('500 Internal Server Error') },
  { name: '502', answer: whole('502 Bad Gateway') },
  { name: '504', answer: whole('504 Gateway Timeout', '{}', 'retry-after: 1\r\n') },
];

describe('a breaker', () => {
  test.each(FAILURES)('opens by $name, so many times, and the replica gets no more', async ({ answer, stream = false, timeouts }) => {
    const fleet = await start([answer, fine], timeouts === undefined ? {} : { timeouts });
    for (let index = 0; index < 3; index++) {
      expect((await fleet.replica(0)).breaker).toBe('closed');
      await ask(fleet, stream);
      expect(fleet.upstreams[0]?.requests).toHaveLength(index + 1);
    }
    await eventually(async () => (await fleet.replica(0)).breaker === 'open');
    for (let index = 0; index < 3; index++) expect(await ask(fleet)).toMatchObject({ status: 200, replica: 'r1' });
    expect(fleet.upstreams[0]?.requests).toHaveLength(3);
    expect(await metrics(fleet)).toEqual(expect.arrayContaining(['paceline_replica_breaker{replica="r0",state="open"} 1', 'paceline_replica_breaker_changes_total{replica="r0",state="open"} 1', 'paceline_replica_breaker{replica="r1",state="closed"} 1']));
  });

  test('opens where nobody listens any more, though no request is lost by it', async () => {
    const fleet = await start([fine, fine]);
    await fleet.upstreams[0]?.close();
    opened.splice(opened.indexOf(fleet.upstreams[0] as RawUpstream), 1);
    for (let index = 0; index < 3; index++) expect(await ask(fleet)).toMatchObject({ status: 200, replica: 'r1' });
    expect((await fleet.replica(0)).breaker).toBe('open');
  });

  test('opens for a replica that takes requests and says nothing, long before they time out', async () => {
    const fleet = await start([() => {}, fine], { breaker: 'silentMs: 80, openMs: 600000' });
    const leave = new AbortController();
    const hung = fetch(`${fleet.gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'm', stream: true }), signal: leave.signal }).catch(() => {});
    await eventually(async () => (await fleet.replica(0)).breaker === 'open');
    leave.abort();
    await hung;
    expect(await ask(fleet)).toMatchObject({ status: 200, replica: 'r1' });
  });

  test.each([
    { name: 'an answer without streaming, which may take as long as it likes', asks: [false] },
    { name: 'a stream that waits while another one runs', asks: [true, true] },
  ])('does not take for silence $name', async ({ asks }) => {
    let streams = 0;
    const running: RawAnswer = ({ socket, body }) => {
      if (!(JSON.parse(body.toString()) as { stream: boolean }).stream || streams++ > 0) return;
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n');
      const timer = setInterval(() => socket.write('x'), 10);
      socket.once('close', () => clearInterval(timer));
    };
    const fleet = await start([running], { breaker: 'silentMs: 1000' });
    const leave = new AbortController();
    const asked = asks.map((stream) => fetch(`${fleet.gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'm', stream }), signal: leave.signal }).then((answer) => answer.text()).catch(() => {}));
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    expect((await fleet.replica(0)).breaker).toBe('closed');
    leave.abort();
    await Promise.all(asked);
  });

  test.each([
    { what: '429', status: 429, answer: whole('429 Too Many Requests', '{}', 'retry-after: 30\r\n') },
    { what: '503 with a time to come back', status: 503, answer: whole('503 Service Unavailable', '{}', 'retry-after: 30\r\n') },
    { what: '503 that tells of overload', status: 503, answer: whole('503 Service Unavailable', '{"error":"The request queue is full."}') },
  ])('never opens by $what; the replica has less room for a while', async ({ what, status, answer }) => {
    const fleet = await start([answer, fine], { more: 'upstream: { retriesMax: 0 }' });
    for (let index = 0; index < 6; index++) expect(await ask(fleet)).toMatchObject({ status, replica: 'r0' });
    const { breaker, room } = await fleet.replica(0);
    expect(breaker).toBe('closed');
    // The third does not say for how long; a second may be over by now.
    if (!what.includes('overload')) expect(room).toBe(1);
    expect(await metrics(fleet)).toContain('paceline_replica_saturated_total{replica="r0"} 6');
    expect(fleet.gateway.events.filter(({ kind }) => kind === 'replica-saturated')).toHaveLength(6);
  });

  test('opens by a 503 that says nothing of the kind', async () => {
    const fleet = await start([whole('503 Service Unavailable', '{"error":{"message":"Loading model"}}'), fine]);
    for (let index = 0; index < 3; index++) expect(await ask(fleet)).toMatchObject({ status: 200, replica: 'r1' });
    expect((await fleet.replica(0)).breaker).toBe('open');
  });

  test('never takes the last replica of a model: what comes still goes there, and gets its own answer', async () => {
    const fleet = await start([whole('500 Internal Server Error', '{"mine":true}')]);
    for (let index = 0; index < 8; index++) expect(await ask(fleet)).toEqual({ status: 500, replica: 'r0', text: '{"mine":true}' });
    expect((await fleet.replica(0)).breaker).toBe('open');
    (fleet.upstreams[0] as RawUpstream).answer = fine;
    expect((await ask(fleet)).status).toBe(200);
    expect((await fleet.replica(0)).breaker).toBe('closed');
  });

  test('lets one request at a time try a replica again, and closes by its answer', async () => {
    const fleet = await start([whole('500 Internal Server Error'), fine], { breaker: 'failuresMax: 2, windowMs: 60000, openMs: 100' });
    const [bad] = fleet.upstreams as [RawUpstream];
    for (let index = 0; index < 2; index++) await ask(fleet);
    const trials: (() => void)[] = [];
    bad.answer = (request) => void trials.push(() => fine(request));
    await eventually(async () => (await fleet.replica(0)).breaker === 'half-open');
    const trial = ask(fleet);
    await eventually(() => trials.length === 1);
    for (let index = 0; index < 3; index++) expect(await ask(fleet)).toMatchObject({ replica: 'r1' });
    expect(trials).toHaveLength(1);
    trials[0]?.();
    expect(await trial).toMatchObject({ status: 200, replica: 'r0' });
    expect((await fleet.replica(0)).breaker).toBe('closed');
    bad.answer = fine;
    expect(await ask(fleet)).toMatchObject({ replica: 'r0' });
  });

  test('stays closed where the client left: that is no fault of the replica', async () => {
    const fleet = await start([({ socket }) => void socket.write(STREAM_HEAD + EVENT), fine]);
    for (let index = 0; index < 5; index++) {
      const leave = new AbortController();
      const answer = await fetch(`${fleet.gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'm', stream: true }), signal: leave.signal });
      expect(answer.headers.get('x-paceline-replica')).toBe('r0');
      leave.abort();
      await eventually(() => fleet.gateway.events.filter(({ kind }) => kind === 'ended').length === index + 1);
    }
    expect((await fleet.replica(0)).breaker).toBe('closed');
  });
});

test('a client that does not read its answer is cut, and no breaker opens for it', async () => {
  const piece = Buffer.from(`data: ${'x'.repeat(60_000)}\n\n`);
  const endless: RawAnswer = ({ socket }) => {
    const fill = (): void => {
      while (!socket.destroyed && socket.write(piece));
    };
    socket.write(STREAM_HEAD);
    socket.on('drain', fill);
    fill();
  };
  const fleet = await start([endless, fine], { breaker: 'failuresMax: 1, openMs: 600000', timeouts: 'stallMs: 150' });
  const { hostname, port } = new URL(fleet.gateway.url);
  const client = connect(Number(port), hostname);
  client.on('error', () => {});
  client.pause();
  const body = JSON.stringify({ model: 'm', stream: true });
  client.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
  expect(await fleet.gateway.event('ended')).toMatchObject({ outcome: 'failed' });
  expect((await fleet.replica(0)).breaker).toBe('closed');
  client.destroy();
});

test('a replica that its probes call down, and then up, has its share grow anew, and a closed breaker', async () => {
  const fleet = await start([fine, fine], { breaker: 'failuresMax: 1, openMs: 600000', slowStartMs: 600_000, probesFailMax: 2 });
  const [first] = fleet.upstreams as [RawUpstream];
  expect((await fleet.replica(0)).room).toBe(10);
  first.answer = whole('500 Internal Server Error');
  await ask(fleet);
  expect((await fleet.replica(0)).breaker).toBe('open');
  first.probeStatus = 500;
  await eventually(async () => (await fleet.replica(0)).state === 'down');
  first.probeStatus = 200;
  await eventually(async () => (await fleet.replica(0)).state === 'up');
  expect(await fleet.replica(0)).toMatchObject({ breaker: 'closed', room: 1 });
  expect(await metrics(fleet)).toContain('paceline_replica_room{replica="r0"} 1');
});

describe('a replica that is drained', () => {
  const post = async ({ gateway }: Fleet, path: string): Promise<[number, unknown]> => {
    const answer = await fetch(gateway.adminUrl + path, { method: 'POST' });
    return [answer.status, await answer.json()];
  };

  test('gets no new jobs, lets those that run end, shows both, and is back when it is told', async () => {
    const ends: (() => void)[] = [];
    const fleet = await start([({ socket }) => void socket.write(`HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: ${2 * EVENT.length}\r\n\r\n${EVENT}`, () => ends.push(() => socket.write(EVENT))), fine]);
    const running = ask(fleet, true);
    await eventually(async () => (await fleet.replica(0)).runningStreams === 1);
    expect(await post(fleet, '/paceline/replicas/r0/drain')).toEqual([200, expect.objectContaining({ replicaId: 'r0', state: 'draining', runningStreams: 1 })]);
    for (let index = 0; index < 3; index++) expect(await ask(fleet)).toMatchObject({ status: 200, replica: 'r1' });
    // Probes that succeed meanwhile change nothing.
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(await fleet.replica(0)).toMatchObject({ state: 'draining', runningStreams: 1 });
    expect(await metrics(fleet)).toEqual(expect.arrayContaining(['paceline_replica_up{replica="r0"} 0', 'paceline_replica_state{replica="r0",state="draining"} 1', 'paceline_replica_running_streams{replica="r0"} 1']));
    ends[0]?.();
    expect(await running).toMatchObject({ status: 200, replica: 'r0', text: EVENT + EVENT });
    await eventually(async () => (await fleet.replica(0)).runningStreams === 0);
    expect(await post(fleet, '/paceline/replicas/r0/undrain')).toEqual([200, expect.objectContaining({ state: 'up' })]);
    (fleet.upstreams[0] as RawUpstream).answer = fine;
    expect(await ask(fleet)).toMatchObject({ replica: 'r0' });
  });

  test('is named as it is in the configuration, and is drained once however often it is said', async () => {
    const fleet = await start([fine, fine]);
    expect(await post(fleet, '/paceline/replicas/nobody/drain')).toEqual([404, { error: expect.stringContaining("no replica 'nobody'") }]);
    for (let index = 0; index < 2; index++) expect((await post(fleet, '/paceline/replicas/r1/drain'))[0]).toBe(200);
    expect(fleet.gateway.events.filter((event) => event.kind === 'replica-health' && event.state === 'draining')).toHaveLength(1);
  });

  test('leaves its model without one where it was the last, which is said as it is', async () => {
    const fleet = await start([fine]);
    await post(fleet, '/paceline/replicas/r0/drain');
    expect(await ask(fleet)).toMatchObject({ status: 503, text: expect.stringContaining('no_replica') });
    await post(fleet, '/paceline/replicas/r0/undrain');
    expect((await ask(fleet)).status).toBe(200);
  });
});
