// A request that does not stay where it was sent first: refused by a server, or for a model that nobody serves now. Once each,
// under one id, with what is left of its deadline; never after output.
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import { REFUSED_BYTES_MAX } from '../../src/http/refused-answer.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { eventually, PROFILE, startConfigured, testConfig } from '../fixtures/gateway-under-test.ts';
import type { Answer, StubUpstream } from '../fixtures/stub-upstream.ts';
import { completion, createStubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const refuses = (status: number, body = `{"error":{"message":"${status} of mine"}}`, headers: Record<string, string> = {}): Answer => (_request, _incoming, outgoing) => {
  outgoing.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body);
};

interface Fleet {
  readonly gateway: GatewayUnderTest;
  readonly upstreams: readonly StubUpstream[];
}

/** By replica what it answers, and the models it serves; under `max-clock` the first of those with the fewest requests gets the next. */
async function start(servers: readonly { readonly answer?: Answer; readonly models?: string; readonly up?: boolean }[], more = ''): Promise<Fleet> {
  const upstreams: StubUpstream[] = [];
  for (const { answer, up = true } of servers) {
    const upstream = await createStubUpstream(answer ?? completion);
    upstream.healthStatus = up ? 200 : 500;
    upstreams.push(upstream);
  }
  opened.push(...upstreams);
  const replicas = servers.map(({ models = '[m]' }, index) => `  - { id: r${index}, url: '${upstreams[index]?.url}', models: ${models}, profile: ${PROFILE} }\n`).join('');
  const gateway = await startConfigured(testConfig(`replicas:\n${replicas}planner: { policy: max-clock }\ntimeouts: { drainMs: 0 }\n${more}`));
  opened.push(gateway);
  const seen = async () => ((await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as { replicas: { state: string }[] }).replicas;
  await eventually(async () => (await seen()).every(({ state }, index) => state === (servers[index]?.up === false ? 'down' : 'up')));
  await eventually(() => gateway.events.filter(({ kind }) => kind === 'replica-health').length >= servers.length);
  return { gateway, upstreams };
}

const CHAT = { model: 'm', messages: [{ role: 'user', content: 'hi' }] };
function post({ gateway }: Fleet, body: object = CHAT, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) });
}

const asked = ({ upstreams }: Fleet): number[] => upstreams.map(({ requests }) => requests.length);

async function metrics({ gateway }: Fleet): Promise<string[]> {
  return (await (await fetch(`${gateway.adminUrl}/metrics`)).text()).split('\n');
}

describe('a request that a server refuses', () => {
  test.each([
    { status: 429, stream: false },
    { status: 429, stream: true },
    { status: 503, stream: false },
    { status: 503, stream: true },
  ])('with $status (stream $stream) is served by another one, under one id, with its body as it came and what is left of its deadline', async ({ status, stream }) => {
    const slow: Answer = async (...args) => {
      await new Promise((resolve) => setTimeout(resolve, 120));
      await refuses(status)(...args);
    };
    const fleet = await start([{ answer: slow }, {}]);
    const answer = await post(fleet, { ...CHAT, stream }, { 'x-request-id': 'one', 'x-request-deadline-ms': '60000', 'x-slo-ttft-ms': '30000' });
    expect([answer.status, answer.headers.get('x-paceline-replica'), answer.headers.get('x-request-id')]).toEqual([200, 'r1', 'one']);
    expect(await answer.text()).toContain('Hello');
    expect(asked(fleet)).toEqual([1, 1]);
    const [first, second] = fleet.upstreams.map(({ requests }) => requests[0]);
    expect(second?.body).toBe(first?.body);
    expect(first?.headers['x-request-id']).toMatch(/^one-[0-9a-f]{12}$/);
    expect(second?.headers['x-request-id']).toBe(first?.headers['x-request-id']);
    for (const name of ['x-request-deadline-ms', 'x-slo-ttft-ms']) expect(Number(first?.headers[name]) - Number(second?.headers[name])).toBeGreaterThanOrEqual(119);
    expect(await metrics(fleet)).toContain('paceline_upstream_retries_total{replica="r0"} 1');
    await eventually(() => fleet.gateway.events.filter((event) => event.kind === 'ended' && event.outcome === 'finished').length === 1);
  });

  test('by every server gets the answer of the last, as it is', async () => {
    const fleet = await start([{ answer: refuses(503) }, { answer: refuses(429, '{"mine":1}', { 'retry-after': '7' }) }]);
    const answer = await post(fleet);
    expect([answer.status, answer.headers.get('x-paceline-replica'), answer.headers.get('retry-after'), await answer.text()]).toEqual([429, 'r1', '7', '{"mine":1}']);
    expect(asked(fleet)).toEqual([1, 1]);
    expect(await fleet.gateway.event('ended')).toMatchObject({ outcome: 'failed' });
  });

  test('and whose other server has gone meanwhile gets the first one’s answer as it was, not one of ours', async () => {
    const fleet = await start([{ answer: refuses(429, '{"mine":1}', { 'retry-after': '7' }) }, {}], 'health: { everyMs: 60000, timeoutMs: 500, failuresMax: 100 }');
    const gone = fleet.upstreams[1] as StubUpstream;
    await gone.close();
    opened.splice(opened.indexOf(gone), 1);
    const answer = await post(fleet, CHAT, { 'x-request-id': 'one' });
    expect([answer.status, answer.headers.get('x-paceline-replica'), answer.headers.get('retry-after'), answer.headers.get('x-request-id'), await answer.text()]).toEqual([429, 'r0', '7', 'one', '{"mine":1}']);
    await eventually(async () => ((await (await fetch(`${fleet.gateway.adminUrl}/paceline/status`)).json()) as { inFlight: number }).inFlight === 0);
  });

  test('that waits for another one which is full gets the refusal once its time in the queue is over', async () => {
    const fleet = await start([{ answer: refuses(503, '{"mine":1}', { 'retry-after': '0' }), models: '[m]' }, { answer: () => {}, models: '[m], concurrencyMax: 1' }], 'admission: { queueTimeoutMs: 400 }');
    const leave = new AbortController();
    // The first goes to r0, is refused and stays at r1 for good; the second finds r1 full.
    const held = fetch(`${fleet.gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(CHAT), signal: leave.signal }).catch(() => {});
    await eventually(() => fleet.upstreams[1]?.requests.length === 1);
    const answer = await post(fleet);
    expect([answer.status, await answer.text()]).toEqual([503, '{"mine":1}']);
    expect(asked(fleet)).toEqual([2, 1]);
    leave.abort();
    await held;
  });

  test.each([
    { retriesMax: 0, tried: [1, 0, 0, 0] },
    { retriesMax: 1, tried: [1, 1, 0, 0] },
    { retriesMax: 2, tried: [1, 1, 1, 0] },
    { retriesMax: 9, tried: [1, 1, 1, 1] },
  ])('is tried $retriesMax times more at most', async ({ retriesMax, tried }) => {
    const fleet = await start(Array.from({ length: 4 }, () => ({ answer: refuses(503) })), `upstream: { retriesMax: ${retriesMax} }`);
    expect((await post(fleet)).status).toBe(503);
    expect(asked(fleet)).toEqual(tried);
  });

  test('after its deadline is not tried again', async () => {
    const late: Answer = async (...args) => {
      await new Promise((resolve) => setTimeout(resolve, 60));
      await refuses(503)(...args);
    };
    const fleet = await start([{ answer: late }, {}]);
    expect((await post(fleet, CHAT, { 'x-request-deadline-ms': '30' })).status).toBe(503);
    expect(asked(fleet)).toEqual([1, 0]);
  });

  test('with more words than are kept gets them all, and is not tried again', async () => {
    const long = `{"error":"${'x'.repeat(REFUSED_BYTES_MAX)}"}`;
    const fleet = await start([{ answer: refuses(429, long) }, {}]);
    const answer = await post(fleet);
    expect([answer.status, (await answer.text()) === long]).toEqual([429, true]);
    expect(asked(fleet)).toEqual([1, 0]);
  });

  test('with as many words as are kept is tried again', async () => {
    const fleet = await start([{ answer: refuses(429, 'x'.repeat(REFUSED_BYTES_MAX)) }, {}]);
    expect((await post(fleet)).status).toBe(200);
  });

  test('and whose client leaves while the refusal comes is not sent again', async () => {
    const fleet = await start([{ answer: (_request, _incoming, outgoing) => void outgoing.writeHead(429, { 'content-type': 'application/json' }).write('{"half":') }, {}]);
    const leave = new AbortController();
    const left = fetch(`${fleet.gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(CHAT), signal: leave.signal }).catch(() => 'left');
    await eventually(() => fleet.gateway.events.some(({ kind }) => kind === 'replica-saturated'));
    leave.abort();
    await fleet.upstreams[0]?.requests[0]?.aborted;
    expect([await left, asked(fleet)]).toEqual(['left', [1, 0]]);
    expect(await fleet.gateway.event('ended')).toMatchObject({ outcome: 'cancelled' });
  });
});

test.each([
  ['500', refuses(500), 500],
  ['502', refuses(502), 502],
  ['504', refuses(504), 504],
  ['529', refuses(529), 529],
  ['a refusal that breaks off', ((_request, incoming, outgoing) => void outgoing.writeHead(503, { 'content-length': '100' }).write('half', () => incoming.socket.destroy())) as Answer, 502],
  ['a close before its answer', ((_request, incoming) => void incoming.socket.destroy()) as Answer, 502],
  ['an error inside a stream', ((_request, _incoming, outgoing) => void outgoing.writeHead(200, { 'content-type': 'text/event-stream' }).end('data: {"error":{"code":503}}\n\n')) as Answer, 200],
])('%s is not tried again: the server may have worked on it', async (_what, answer, status) => {
  const fleet = await start([{ answer }, {}]);
  expect((await post(fleet)).status).toBe(status);
  expect(asked(fleet)).toEqual([1, 0]);
});

test('a connection that was kept open and closes before the answer is not tried again: nobody can tell what the server has done', async () => {
  let answers = 0;
  const fleet = await start([{ answer: (...args) => (answers++ === 0 ? completion(...args) : void args[1].socket.destroy()) }, {}]);
  expect((await post(fleet)).status).toBe(200);
  expect((await post(fleet)).status).toBe(502);
  expect(asked(fleet)).toEqual([2, 0]);
});

const hash = (key: string): string => createHash('sha256').update(key).digest('hex');
const as = (key: string) => ({ authorization: `Bearer ${key}` });
async function listed({ gateway }: Fleet, key?: string): Promise<string[]> {
  const answer = await fetch(`${gateway.url}/v1/models`, key === undefined ? {} : { headers: as(key) });
  return ((await answer.json()) as { data: { id: string }[] }).data.map(({ id }) => id);
}

describe('an alias', () => {
  const MODELS = 'models: { fast: { aliasOf: m }, "org/x": { aliasOf: n } }';

  test('is listed, and served by the model behind it, under the name that its server knows', async () => {
    const fleet = await start([{ models: '{ m: long/name }' }, { models: '[n]' }], MODELS);
    expect(await listed(fleet)).toEqual(['m', 'n', 'fast', 'org/x']);
    expect((await fetch(`${fleet.gateway.url}/v1/models/org/x`)).status).toBe(200);
    const answer = await post(fleet, { ...CHAT, model: 'fast' });
    expect([answer.status, answer.headers.get('x-paceline-model')]).toEqual([200, null]);
    await post(fleet, { ...CHAT, model: 'org/x' });
    expect(fleet.upstreams.map(({ requests }) => (JSON.parse(requests[0]?.body ?? '{}') as { model: string }).model)).toEqual(['long/name', 'n']);
    expect(await fleet.gateway.event('arrived')).toMatchObject({ job: { model: 'm' } });
  });

  test('brings its model to a tenant who may use it, by that name alone', async () => {
    const tenants = `tenants:\n  - { name: a, apiKeySha256: ['${hash('a')}'], models: [fast] }\n  - { name: b, apiKeySha256: ['${hash('b')}'], models: [m] }`;
    const fleet = await start([{ models: '[m, n]' }], `${MODELS}\n${tenants}`);
    expect([await listed(fleet, 'a'), await listed(fleet, 'b')]).toEqual([['fast'], ['m']]);
    const statuses = await Promise.all([['a', 'fast'], ['a', 'm'], ['b', 'm'], ['b', 'fast']].map(async ([key, model]) => (await post(fleet, { ...CHAT, model }, as(key as string))).status));
    expect(statuses).toEqual([200, 404, 200, 404]);
  });

  test('of the only model leaves it the only one, so that it need not be named', async () => {
    const fleet = await start([{}], 'models: { fast: { aliasOf: m } }');
    expect((await fetch(`${fleet.gateway.url}/tokenize`, { method: 'POST', body: '{"prompt":"x"}' })).status).toBe(200);
  });

  test('has the SLO class of its model', async () => {
    const fleet = await start([{ models: '[m, n]' }], `${MODELS}\nslo: { classes: { quick: { ttftMs: 300 } }, models: { m: quick } }`);
    await post(fleet, { ...CHAT, model: 'fast' });
    expect(await fleet.gateway.event('arrived')).toMatchObject({ job: { sloClass: 'quick' } });
  });
});

describe('a model without a replica', () => {
  const FALLBACKS = 'models: { m: { fallbacks: [n, o] }, fast: { aliasOf: m } }';

  test.each(['m', 'fast'])('asked for as %s is served by the first fallback that has one, which the answer names', async (model) => {
    const fleet = await start([{ models: '[m]', up: false }, { models: '[n]', up: false }, { models: '{ o: other-name }' }], FALLBACKS);
    const answer = await post(fleet, { ...CHAT, model }, { 'x-request-id': 'one', authorization: 'Bearer sk-client', 'x-slo-ttft-ms': '5000' });
    expect([answer.status, answer.headers.get('x-paceline-model'), answer.headers.get('x-paceline-replica'), answer.headers.get('x-request-id')]).toEqual([200, 'o', 'r2', 'one']);
    const [request] = fleet.upstreams[2]?.requests ?? [];
    expect(JSON.parse(request?.body ?? '{}')).toEqual({ ...CHAT, model: 'other-name' });
    expect(request?.headers).toMatchObject({ 'x-request-id': expect.stringMatching(/^one-/) });
    expect(request?.headers.authorization).toBeUndefined();
    expect(Number(request?.headers['x-slo-ttft-ms'])).toBeLessThanOrEqual(5_000);
    expect(await metrics(fleet)).toEqual(expect.arrayContaining(['paceline_model_fallbacks_total{from="m",to="n"} 1', 'paceline_model_fallbacks_total{from="n",to="o"} 1']));
    expect(fleet.gateway.events.filter(({ kind }) => kind === 'ended')).toHaveLength(1);
  });

  test('is named by its fallback also where that has letters that no header can hold', async () => {
    const fleet = await start([{ up: false }, { models: "['模型/70b']" }], "models: { m: { fallbacks: ['模型/70b'] } }");
    const answer = await post(fleet);
    expect([answer.status, decodeURIComponent(answer.headers.get('x-paceline-model') ?? '')]).toEqual([200, '模型/70b']);
  });

  test('whose replicas cannot be reached is served by a fallback, with what is left of its deadlines', async () => {
    const fleet = await start([{ models: '[m]' }, { models: '[n]' }], `${FALLBACKS.replace(', o]', ']')}\nhealth: { everyMs: 60000, timeoutMs: 500, failuresMax: 100 }`);
    const gone = fleet.upstreams[0] as StubUpstream;
    await gone.close();
    opened.splice(opened.indexOf(gone), 1);
    const answer = await post(fleet, CHAT, { 'x-slo-e2e-ms': '9000', 'x-slo-tpot-ms': '50' });
    expect([answer.status, answer.headers.get('x-paceline-model')]).toEqual([200, 'n']);
    const [first, second] = fleet.gateway.events.flatMap((event) => (event.kind === 'arrived' ? [event.job] : []));
    expect(first?.slo).toEqual({ e2eMs: 9_000, tpotMs: 50 });
    expect(second?.slo.tpotMs).toBe(50);
    expect(second?.slo.e2eMs).toBeLessThan(9_000);
    expect(second).toMatchObject({ model: 'n', sloClass: first?.sloClass });
    // It is the same job to whoever counts them.
    expect(second?.jobId).toBe(first?.jobId);
  });

  test('whose time in the queue goes on with it, and is not taken twice by two fallbacks', async () => {
    const fleet = await start([{ models: '[m], concurrencyMax: 1', answer: () => {} }, { models: '[n]', up: false }, { models: '[o]' }], `${FALLBACKS}\nadmission: { queueTimeoutMs: 60000 }`);
    const leave = new AbortController();
    const held = fetch(`${fleet.gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify(CHAT), signal: leave.signal }).catch(() => {});
    await eventually(() => asked(fleet)[0] === 1);
    const waiting = post(fleet);
    await eventually(() => fleet.gateway.events.filter(({ kind }) => kind === 'arrived').length === 2);
    await new Promise((resolve) => setTimeout(resolve, 200));
    // Whoever waits is told at once that nobody is left, and goes on.
    await fetch(`${fleet.gateway.adminUrl}/paceline/replicas/r0/drain`, { method: 'POST' });
    expect((await waiting).headers.get('x-paceline-model')).toBe('o');
    const [first = 0, second = 0, third = 0] = fleet.gateway.events.flatMap((event) => (event.kind === 'arrived' && event.job.jobId === 'job-2' ? [event.job.queueTimeoutMs ?? 0] : []));
    expect(first).toBe(60_000);
    expect(first - second).toBeGreaterThanOrEqual(199);
    // From one fallback to the next hardly any time passes.
    expect(second - third).toBeLessThan((first - second) / 2);
    leave.abort();
    await held;
  });

  test('has no fallback that the tenant may not use, nor one without a replica; then it is said that there is none', async () => {
    const tenants = `tenants:\n  - { name: a, apiKeySha256: ['${hash('a')}'], models: [m, o] }\n  - { name: b, apiKeySha256: ['${hash('b')}'], models: [m, n] }`;
    const fleet = await start([{ models: '[m]', up: false }, { models: '[n]' }, { models: '[o]', up: false }], `${FALLBACKS}\n${tenants}`);
    const refused = await post(fleet, CHAT, as('a'));
    expect([refused.status, await refused.json()]).toEqual([503, { error: expect.objectContaining({ code: 'no_replica' }) }]);
    expect((await post(fleet, CHAT, as('b'))).headers.get('x-paceline-model')).toBe('n');
    expect(asked(fleet)).toEqual([0, 1, 0]);
  });

  test('falls back for want of a replica alone: what its server says stays what is said', async () => {
    const fleet = await start([{ models: '[m]', answer: refuses(429, '{"mine":1}') }, { models: '[n]' }, { models: '[o]' }], FALLBACKS);
    const answer = await post(fleet);
    expect([answer.status, answer.headers.get('x-paceline-model'), await answer.text()]).toEqual([429, null, '{"mine":1}']);
    expect(asked(fleet)).toEqual([1, 0, 0]);
  });
});
