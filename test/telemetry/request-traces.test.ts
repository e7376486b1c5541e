// What an operator's SDK is told of requests through a whole gateway: their spans, what they say, and where they belong.
import { context, propagation, trace, metrics as metricsApi } from '@opentelemetry/api';
import { core, node, tracing, metrics } from '@opentelemetry/sdk-node';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { eventually, PROFILE, startConfigured, startGateway, testConfig } from '../fixtures/gateway-under-test.ts';
import { createStubAgent } from '../fixtures/stub-agent.ts';
import type { Answer, StubUpstream } from '../fixtures/stub-upstream.ts';
import { createStubUpstream, endless } from '../fixtures/stub-upstream.ts';

const SECRET = 'the-prompt-nobody-may-see';
const CHAT = { model: 'm', messages: [{ role: 'user', content: SECRET }], max_tokens: 40 };
const TRACE_ID = '0af7651916cd43dd8448eb211c80319c';
const SAMPLED = `00-${TRACE_ID}-b7ad6b7169203331-01`;
const NOT_SAMPLED = `00-${TRACE_ID}-b7ad6b7169203331-00`;

const exporter = new tracing.InMemorySpanExporter();
const provider = new node.NodeTracerProvider({ sampler: new tracing.ParentBasedSampler({ root: new tracing.AlwaysOnSampler() }), spanProcessors: [new tracing.SimpleSpanProcessor(exporter)] });
const metricExporter = new metrics.InMemoryMetricExporter(metrics.AggregationTemporality.CUMULATIVE);
const reader = new metrics.PeriodicExportingMetricReader({ exporter: metricExporter, exportIntervalMillis: 3_600_000 });
const meters = new metrics.MeterProvider({ readers: [reader] });

beforeAll(() => {
  provider.register({ propagator: new core.CompositePropagator({ propagators: [new core.W3CTraceContextPropagator(), new core.W3CBaggagePropagator()] }) });
  metricsApi.setGlobalMeterProvider(meters);
});
afterAll(async () => {
  await Promise.all([provider.shutdown(), meters.shutdown()]);
  for (const api of [trace, context, propagation, metricsApi]) api.disable();
});
beforeEach(() => exporter.reset());

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function start(answers: readonly (Answer | undefined)[] = [undefined], more = ''): Promise<{ gateway: GatewayUnderTest; upstreams: StubUpstream[] }> {
  const upstreams = await Promise.all(answers.map((answer) => createStubUpstream(answer)));
  opened.push(...upstreams);
  const gateway = await startGateway(upstreams, { more: `timeouts: { drainMs: 0 }\nplanner: { policy: max-clock }\n${more}` });
  opened.push(gateway);
  await eventually(async () => ((await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as { replicas: { state: string }[] }).replicas.every(({ state }) => state === 'up'));
  return { gateway, upstreams };
}

function post(gateway: GatewayUnderTest, { body = CHAT, headers = {}, path = '/v1/chat/completions', signal = null }: { body?: object; headers?: Record<string, string>; path?: string; signal?: AbortSignal | null } = {}): Promise<Response> {
  return fetch(gateway.url + path, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers }, signal });
}

type Told = ReturnType<typeof exporter.getFinishedSpans>[number];
const SERVER = 1;
const CLIENT = 2;
/** The server's, once it has ended, and the tries below it in order. */
async function spans(): Promise<{ server: Told; tries: Told[] }> {
  const all = (kind: number) => exporter.getFinishedSpans().filter((span) => span.kind === kind);
  await eventually(() => all(SERVER).length > 0);
  return { server: all(SERVER)[0] as Told, tries: all(CLIENT).filter((span) => span.parentSpanContext?.spanId === all(SERVER)[0]?.spanContext().spanId) };
}

const refuses = (status: number): Answer => (_request, _incoming, outgoing) => void outgoing.writeHead(status, { 'content-type': 'application/json' }).end('{"error":{"message":"not now"}}');

describe('the span of a request', () => {
  test('says which workflow it is a call of', async () => {
    const { gateway } = await start();
    await (await post(gateway, { body: CHAT, headers: { 'x-paceline-workflow-id': 'w', 'x-paceline-workflow-stage': 'plan', 'x-paceline-workflow-deadline-ms': '30000' } })).text();
    const { server } = await spans();
    expect(server.attributes).toMatchObject({ 'paceline.workflow.id': 'w', 'paceline.workflow.stage': 'plan' });
    expect(server.attributes['paceline.workflow.due_ms']).toBeTypeOf('number');
  });

  test('is named after its operation and model and says what was asked, decided and used', async () => {
    const { gateway } = await start();
    const answer = await post(gateway, { body: { ...CHAT, stream: true }, headers: { 'x-slo-ttft-ms': '5000', 'x-slo-tpot-ms': '500', 'x-request-id': 'mine' } });
    await answer.text();
    const { server, tries } = await spans();
    expect(server.name).toBe('chat m');
    expect(server.attributes).toMatchObject({
      'gen_ai.operation.name': 'chat', 'gen_ai.provider.name': 'paceline', 'gen_ai.request.model': 'm', 'gen_ai.request.max_tokens': 40, 'gen_ai.request.stream': true,
      'gen_ai.usage.input_tokens': 9, 'gen_ai.usage.output_tokens': 3, 'gen_ai.usage.cache_read.input_tokens': 4,
      'http.request.method': 'POST', 'http.route': '/v1/chat/completions', 'http.response.status_code': 200,
      'paceline.request_id': 'mine', 'paceline.tenant': 'anonymous', 'paceline.slo.class': 'custom', 'paceline.slo.ttft_ms': 5_000, 'paceline.slo.tpot_ms': 500,
      'paceline.replica': 'r0', 'paceline.attempts': 1, 'paceline.outcome': 'finished', 'paceline.slo.met': true, 'paceline.predicted.feasible': true,
    });
    for (const name of ['paceline.queue_ms', 'paceline.slack_ms', 'paceline.predicted.ttft_ms', 'gen_ai.response.time_to_first_chunk', 'paceline.energy.modelled_j']) expect(server.attributes[name], name).toBeTypeOf('number');
    expect(server.attributes['error.type']).toBeUndefined();
    expect(server.events.map(({ name }) => name)).toEqual(['paceline.queued']);
    expect(tries).toHaveLength(1);
    expect(tries[0]?.attributes).toMatchObject({ 'server.address': '127.0.0.1', 'server.port': Number(new URL(opened.map((thing) => (thing as StubUpstream).url)[0] ?? '').port), 'http.response.status_code': 200, 'paceline.replica': 'r0' });
    // Whoever adds up tokens over spans counts them once.
    expect(Object.keys(tries[0]?.attributes ?? {}).filter((name) => name.startsWith('gen_ai.usage'))).toEqual([]);
  });

  test('holds nothing of the prompt, the answer or a key', async () => {
    const { gateway } = await start();
    await (await post(gateway, { body: { ...CHAT, user: SECRET }, headers: { authorization: `Bearer ${SECRET}` }, path: `/v1/chat/completions?key=${SECRET}` })).text();
    await spans();
    const told = JSON.stringify(exporter.getFinishedSpans().map(({ name, attributes, events, status }) => ({ name, attributes, events, status })));
    expect(told).toContain('chat m');
    expect(told).not.toContain(SECRET);
    expect(told).not.toContain('Hello there');
  });

  test('says at which point its replica was to run, and why', async () => {
    const agent = await createStubAgent();
    const upstream = await createStubUpstream();
    opened.push(agent, upstream);
    const gateway = await startConfigured(testConfig(`agent: { socket: ${agent.socketPath} }\nreplicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE}, devices: ['sim:0'] }]`));
    opened.push(gateway);
    await eventually(() => agent.puts.length > 0);
    const demanded = async () => ((await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as { replicas: { pointId: string | null }[] }).replicas[0]?.pointId;
    await eventually(async () => typeof (await demanded()) === 'string');
    await (await post(gateway)).text();
    const { server } = await spans();
    expect(server.attributes['paceline.operating_point']).toMatch(/^c?\d+|default/);
    expect(server.attributes['paceline.decision']).toMatch(/^(idle|ttft|tpot|e2e|stability|energy|none-feasible|policy)$/);
    // Without control nothing is demanded, and nothing is claimed.
    await agent.die();
    await eventually(async () => (await demanded()) === null);
    exporter.reset();
    await (await post(gateway)).text();
    expect((await spans()).server.attributes['paceline.decision']).toBeUndefined();
  });

  test('of a request that is refused before it is one is named after its route, and its client is to blame', async () => {
    const { gateway } = await start();
    expect((await post(gateway, { headers: { 'x-slo-ttft-ms': 'soon' } })).status).toBe(400);
    const { server, tries } = await spans();
    expect(server.name).toBe('POST /v1/chat/completions');
    expect(server.attributes).toMatchObject({ 'http.response.status_code': 400, 'error.type': 'bad-request' });
    expect(server.status.code).toBe(0);
    expect(tries).toEqual([]);
  });

  test('ends as cancelled, with its try, where the client leaves', async () => {
    const { gateway, upstreams } = await start([endless(() => {})]);
    const abort = new AbortController();
    const answer = await post(gateway, { body: { ...CHAT, stream: true }, signal: abort.signal });
    await answer.body?.getReader().read();
    abort.abort();
    const { server, tries } = await spans();
    await upstreams[0]?.requests[0]?.aborted;
    expect(server.attributes).toMatchObject({ 'error.type': 'cancelled', 'paceline.outcome': 'cancelled' });
    expect(server.status.code).toBe(0);
    expect(tries.map(({ attributes }) => attributes['error.type'])).toEqual(['cancelled']);
  });

  test('fails where the model server breaks off, and so does its try', async () => {
    const { gateway } = await start([(_request, incoming) => void incoming.socket.destroy()]);
    expect((await post(gateway)).status).toBe(502);
    const { server, tries } = await spans();
    expect(server.attributes).toMatchObject({ 'http.response.status_code': 502, 'error.type': 'upstream-broken' });
    expect(server.status.code).toBe(2);
    expect(tries.map(({ attributes }) => attributes['error.type'])).toEqual(['broken']);
  });
});

test('every try at a model server is a span of its own, one after the other', async () => {
  const { gateway } = await start([refuses(429), refuses(503), undefined], 'upstream: { retriesMax: 2 }');
  await (await post(gateway)).text();
  const { server, tries } = await spans();
  expect(tries.map(({ attributes }) => [attributes['paceline.replica'], attributes['http.response.status_code'], attributes['http.request.resend_count']])).toEqual([
    ['r0', 429, undefined],
    ['r1', 503, 1],
    ['r2', 200, 2],
  ]);
  expect(tries.map(({ status }) => status.code)).toEqual([2, 2, 0]);
  expect(server.attributes).toMatchObject({ 'paceline.attempts': 3, 'paceline.replica': 'r2', 'http.response.status_code': 200 });
});

describe('W3C context', () => {
  test("of the client is the span's parent, and the model server gets the try's, with state and baggage", async () => {
    const { gateway, upstreams } = await start();
    await (await post(gateway, { headers: { traceparent: SAMPLED, tracestate: 'vendor=1', baggage: 'team=red' } })).text();
    const { server, tries } = await spans();
    expect(server.spanContext().traceId).toBe(TRACE_ID);
    expect(server.parentSpanContext?.spanId).toBe('b7ad6b7169203331');
    expect(upstreams[0]?.requests[0]?.headers).toMatchObject({ traceparent: `00-${TRACE_ID}-${tries[0]?.spanContext().spanId}-01`, tracestate: 'vendor=1', baggage: 'team=red' });
  });

  test('that is not sampled makes no span, and stays not sampled on its way', async () => {
    const { gateway, upstreams } = await start();
    await (await post(gateway, { headers: { traceparent: NOT_SAMPLED } })).text();
    expect(upstreams[0]?.requests[0]?.headers['traceparent']).toMatch(new RegExp(`^00-${TRACE_ID}-[0-9a-f]{16}-00$`));
    await (await post(gateway, { headers: { traceparent: SAMPLED } })).text();
    await eventually(() => exporter.getFinishedSpans().length >= 2);
    expect(exporter.getFinishedSpans()).toHaveLength(2);
  });

  test('that is no such thing is not believed: a new trace begins, and goes on', async () => {
    const { gateway, upstreams } = await start();
    await (await post(gateway, { headers: { traceparent: '00-nonsense' } })).text();
    const { server } = await spans();
    expect(server.parentSpanContext).toBeUndefined();
    expect(upstreams[0]?.requests[0]?.headers['traceparent']).toContain(server.spanContext().traceId);
  });
});

test("the SDK's meter is told the conventions' metrics, with units and bounds", async () => {
  const { gateway } = await start();
  await (await post(gateway, { body: { ...CHAT, stream: true } })).text();
  await gateway.event('ended');
  metricExporter.reset();
  await meters.forceFlush();
  const told = metricExporter.getMetrics().flatMap(({ scopeMetrics }) => scopeMetrics).flatMap((scope) => scope.metrics);
  const of = (name: string) => told.find(({ descriptor }) => descriptor.name === name);
  for (const name of ['gen_ai.server.request.duration', 'gen_ai.server.time_to_first_token', 'gen_ai.server.time_per_output_token']) {
    expect(of(name)?.descriptor.unit, name).toBe('s');
    expect(of(name)?.dataPoints[0]?.attributes, name).toMatchObject({ 'gen_ai.operation.name': 'chat', 'gen_ai.provider.name': 'paceline', 'gen_ai.request.model': 'm' });
  }
  expect(of('gen_ai.client.token.usage')?.descriptor.unit).toBe('{token}');
  expect(of('gen_ai.client.token.usage')?.dataPoints.map(({ attributes }) => attributes['gen_ai.token.type']).sort()).toEqual(['input', 'output']);
  expect(of('gen_ai.server.time_to_first_token')?.dataPoints[0]?.value).toMatchObject({ buckets: { boundaries: [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10] } });
  expect(of('paceline.energy')?.descriptor.unit).toBe('J');
});
