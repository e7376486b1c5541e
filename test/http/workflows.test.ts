// Workflows over HTTP, through a whole gateway and real sockets: declared and discovered, and every reason to refuse one or a call of it.
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import { eventually, type GatewayUnderTest, PROFILE, startConfigured, testConfig } from '../fixtures/gateway-under-test.ts';
import { createStubUpstream, type StubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

interface Setup {
  readonly gateway: GatewayUnderTest;
  readonly upstream: StubUpstream;
}

const hashOf = (key: string): string => createHash('sha256').update(key).digest('hex');
const TENANTS = `tenants:
  - { name: ada, apiKeySha256: ['${hashOf('sk-ada')}'], models: [m], bounds: { e2eMs: { min: 500, max: 10000 } }, limits: { workflowsMax: 2 } }
  - { name: bob, apiKeySha256: ['${hashOf('sk-bob')}'], admission: { infeasible: refuse }, class: steady }
slo: { classes: { steady: { ttftMs: 20000 } } }
`;

async function start(more = ''): Promise<Setup> {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const gateway = await startConfigured(testConfig(`replicas: [{ id: r0, url: '${upstream.url}', models: [m, other], profile: ${PROFILE} }]\n${more}`));
  opened.push(gateway);
  return { gateway, upstream };
}

const CHAIN = {
  name: 'report',
  deadlineMs: 60_000,
  nodes: [{ stage: 'plan', model: 'm', promptTokens: 500, outputTokens: 50 }, { stage: 'search', toolMs: 40 }, { stage: 'write', model: 'm', outputTokens: 200 }],
  edges: [['plan', 'search'], ['search', 'write']],
};

type Headers = Readonly<Record<string, string>>;

async function ask(url: string, path: string, options: { readonly method?: string; readonly body?: unknown; readonly headers?: Headers } = {}) {
  const { body, headers = {}, method = body === undefined ? 'GET' : 'POST' } = options;
  const response = await fetch(`${url}${path}`, { method, headers: { 'content-type': 'application/json', ...headers }, ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }) });
  return { status: response.status, headers: response.headers, body: (await response.json()) as any };
}

const declare = (url: string, body: unknown, headers: Headers = {}) => ask(url, '/v1/workflows', { body, headers });
const call = (url: string, headers: Headers, model = 'm') => ask(url, '/v1/chat/completions', { body: { model, messages: [{ role: 'user', content: 'hello' }] }, headers });
const of = (id: string, stage: string, more: Headers = {}): Headers => ({ 'x-paceline-workflow-id': id, 'x-paceline-workflow-stage': stage, ...more });
const within = (id: string, stage: string, deadlineMs: number, name = 'agent'): Headers => of(id, stage, { 'x-paceline-workflow-deadline-ms': `${deadlineMs}`, 'x-paceline-workflow-name': name });

describe('a declared workflow', () => {
  test('says by when each of its parts is due, takes its calls, and tells at its end what came of it', async () => {
    const { gateway, upstream } = await start();
    const { url } = gateway;
    const declared = await declare(url, { ...CHAIN, id: 'w1' });
    expect(declared.status).toBe(201);
    expect(declared.headers.get('location')).toBe('/v1/workflows/w1');
    expect(declared.body).toMatchObject({ id: 'w1', object: 'workflow', state: 'open', name: 'report', verdict: 'meets', deadlineInMs: 60_000, spentJoules: 0 });
    expect(declared.body.stages.map(({ stage, kind, state }: any) => [stage, kind, state])).toEqual([['plan', 'call', 'waiting'], ['search', 'tool', 'waiting'], ['write', 'call', 'waiting']]);
    const [plan, search, write] = declared.body.stages;
    expect(plan.startInMs).toBe(0);
    expect(plan.dueInMs).toBeLessThanOrEqual(search.dueInMs);
    expect(write.dueInMs).toBeLessThanOrEqual(60_000);
    expect(declared.body.expectedJoules).toBeGreaterThan(0);
    expect(declared.body.fastestMs).toBeLessThan(60_000);

    const first = await call(url, of('w1', 'plan'));
    expect(first.status).toBe(200);
    const dueMs = Number(first.headers.get('x-paceline-workflow-due-ms'));
    expect(dueMs).toBeGreaterThan(0);
    expect(dueMs).toBeLessThan(60_000);
    const sent = upstream.requests[0]?.headers ?? {};
    expect(Object.keys(sent).filter((name) => name.startsWith('x-paceline'))).toEqual([]);
    expect(Number(sent['x-request-deadline-ms'])).toBeLessThanOrEqual(dueMs);
    expect((await ask(url, '/v1/workflows/w1')).body.stages[0]).toMatchObject({ stage: 'plan', state: 'ended' });

    await call(url, of('w1', 'write'));
    const ended = { id: 'w1', object: 'workflow', state: 'ended', name: 'report', outcome: 'finished', met: true, deadlineMs: 60_000, calls: 2 };
    expect((await ask(url, '/v1/workflows/w1')).body).toMatchObject(ended);
    expect((await ask(url, '/v1/workflows/w1', { method: 'DELETE' })).body).toMatchObject(ended);
    const page = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
    expect(page).toContain('paceline_workflows_total{tenant="anonymous",outcome="finished",met="met"} 1');
    expect(page).toMatch(/paceline_workflow_duration_seconds_count\{tenant="anonymous",outcome="finished"\} 1/);
    expect(page).toMatch(/paceline_workflow_energy_joules_total\{tenant="anonymous"\} \d/);
    expect(page).toContain('paceline_workflows_open 0');
    const status = (await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as any;
    expect(status.workflows).toEqual({ open: 0, lately: [{ tenant: 'anonymous', name: 'report', met: 1, missed: 0, unknown: 0, tookShare: expect.any(Number), energyJ: expect.any(Number) }] });
    expect(await (await fetch(`${gateway.adminUrl}/paceline/dashboard`)).text()).toMatch(/<td>report<\/td><td>anonymous<\/td><td class="number">1<\/td>/);
  });

  test('has an id of ours where it has none, may be due at an instant, and is ended by its client', async () => {
    const { gateway: { url } } = await start();
    const { deadlineMs: _, ...rest } = CHAIN;
    const declared = await declare(url, { ...rest, deadlineAt: new Date(Date.now() + 30_000).toISOString() });
    expect(declared.body.id).toMatch(/^wf-[0-9a-f-]{36}$/);
    expect(declared.body.deadlineInMs).toBeGreaterThan(25_000);
    const path = `/v1/workflows/${declared.body.id}`;
    expect((await ask(url, path, { method: 'DELETE' })).body).toMatchObject({ state: 'ended', outcome: 'ended-by-client', met: null });
    expect((await ask(url, path)).body).toMatchObject({ state: 'ended' });
  });

  test('takes a stage again that has failed, and another try after its end as a call like any other', async () => {
    const { gateway: { url, events }, upstream } = await start();
    await declare(url, { ...CHAIN, id: 'w2' });
    const { answer } = upstream;
    upstream.answer = (_, __, outgoing) => void outgoing.writeHead(500, { 'content-type': 'application/json' }).end('{"error":{"message":"x"}}');
    expect((await call(url, of('w2', 'plan'))).status).toBe(500);
    expect((await ask(url, '/v1/workflows/w2')).body.stages[0]).toMatchObject({ state: 'waiting' });
    upstream.answer = answer;
    expect((await call(url, of('w2', 'plan'))).status).toBe(200);
    await call(url, of('w2', 'write'));
    expect((await ask(url, '/v1/workflows/w2')).body).toMatchObject({ state: 'ended', outcome: 'finished', calls: 2 });
    expect((await call(url, of('w2', 'write'))).status).toBe(200);
    const jobs = events.flatMap((event) => (event.kind === 'arrived' ? [event.job] : []));
    expect(jobs.at(-1)?.workflow).toBeUndefined();
    expect(jobs.at(-1)?.slo.e2eMs).toBeGreaterThan(50_000);
  });

  test('stays when a client goes away in the middle of a call: the stage is expected again', async () => {
    const { gateway: { url, event }, upstream } = await start();
    await declare(url, { ...CHAIN, id: 'w3' });
    upstream.answer = () => {};
    const leaving = new AbortController();
    const gone = fetch(`${url}/v1/chat/completions`, { method: 'POST', signal: leaving.signal, headers: { 'content-type': 'application/json', ...of('w3', 'plan') }, body: JSON.stringify({ model: 'm', messages: [] }) }).catch(() => 'gone');
    await upstream.next();
    expect((await ask(url, '/v1/workflows/w3')).body.stages[0]).toMatchObject({ state: 'running' });
    leaving.abort();
    expect(await gone).toBe('gone');
    expect((await event('ended')).outcome).toBe('cancelled');
    expect((await ask(url, '/v1/workflows/w3')).body.stages[0]).toMatchObject({ state: 'waiting' });
  });

  test('is its tenant’s alone', async () => {
    const { gateway: { url } } = await start(TENANTS);
    const [ada, bob] = [{ authorization: 'Bearer sk-ada' }, { authorization: 'Bearer sk-bob' }];
    expect((await declare(url, { ...CHAIN, id: 'shared' }, ada)).status).toBe(201);
    expect((await ask(url, '/v1/workflows/shared', { headers: bob })).status).toBe(404);
    expect((await ask(url, '/v1/workflows/shared', { method: 'DELETE', headers: bob })).status).toBe(404);
    expect((await call(url, { ...of('shared', 'plan'), ...bob })).body.error.message).toMatch(/no such workflow is open at this gateway/);
    expect((await declare(url, { ...CHAIN, id: 'shared' }, bob)).status).toBe(201);
    expect((await declare(url, CHAIN)).status).toBe(401);
  });
});

describe('a declaration is refused, and told why:', () => {
  test.each<[string, unknown, number, string | null, RegExp]>([
    ['no JSON', '{', 400, null, /could not parse the JSON body/],
    ['no object', [1], 400, null, /^the workflow: got a list of 1/],
    ['an unknown key', { ...CHAIN, deadline: 5 }, 400, null, /^unknown key 'deadline'; known: id, deadlineAt, name, deadlineMs, nodes, edges$/],
    ['an id that is the folder it is in', { ...CHAIN, id: '.' }, 400, 'id', /^id: got "\."; want 1 to 128 letters, digits or .* not \. or \.\. alone/],
    ['an id that is the folder above', { ...CHAIN, id: '..' }, 400, 'id', /^id: got "\.\."; want 1 to 128/],
    ['an id that is an object', `{"id":${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)},"deadlineMs":1000,"nodes":[{"stage":"a","toolMs":1}]}`, 400, 'id', /^id: got an object of a; want 1 to 128/],
    ['a stage that is the folder above', { ...CHAIN, nodes: [{ stage: '..', model: 'm' }], edges: [] }, 400, 'nodes[0].stage', /want a name other than \. and \.\./],
    ['a name that is a folder', { ...CHAIN, name: '.' }, 400, 'name', /want a name other than \. and \.\./],
    ['no deadline', { ...CHAIN, deadlineMs: undefined }, 400, 'deadlineMs', /missing; want milliseconds from now, or deadlineAt/],
    ['a deadline of nothing', { ...CHAIN, deadlineMs: 0 }, 400, 'deadlineMs', /got 0/],
    ['a deadline beyond a month', { ...CHAIN, deadlineMs: 2_592_000_001 }, 400, 'deadlineMs', /^deadlineMs: got 2592000001; want a number of milliseconds, 1 to 2592000000 \(30 days\)$/],
    ['a node that is a call and a tool', { ...CHAIN, nodes: [...CHAIN.nodes, { stage: 'x', model: 'm', toolMs: 5 }] }, 400, 'nodes[3].toolMs', /got 5 beside the model "m"; want one of the two/],
    ['two deadlines', { ...CHAIN, deadlineAt: '2100-01-01T00:00:00Z' }, 400, 'deadlineAt', /there is deadlineMs as well/],
    ['a deadline that is past', { ...CHAIN, deadlineMs: undefined, deadlineAt: '2020-01-01T00:00:00Z' }, 400, 'deadlineAt', /which is past by \d+ ms/],
    ['a deadline without a zone', { ...CHAIN, deadlineMs: undefined, deadlineAt: '2100-01-01T00:00:00' }, 400, 'deadlineAt', /with its zone/],
    ['a deadline in another century', { ...CHAIN, deadlineMs: undefined, deadlineAt: '2100-01-01T00:00:00Z' }, 400, 'deadlineAt', /at most 2592000000 ms from now/],
    ['a cycle', { ...CHAIN, edges: [...CHAIN.edges, ['write', 'plan']] }, 400, 'edges', /→ .* is a cycle/],
    ['an unknown stage', { ...CHAIN, edges: [['plan', 'writ']] }, 400, 'edges[0]', /got 'writ', and no node has that stage/],
    ['a stage twice', { ...CHAIN, nodes: [...CHAIN.nodes, CHAIN.nodes[0]] }, 400, 'nodes[3].stage', /stages are unique/],
    ['a stage that no header can hold', { ...CHAIN, nodes: [{ stage: 'plän', model: 'm' }], edges: [] }, 400, 'nodes[0].stage', /its call names it in a header/],
    ['too many nodes', { ...CHAIN, nodes: Array.from({ length: 1_001 }, (_, index) => ({ stage: `s${index}`, toolMs: 1 })), edges: [] }, 400, 'nodes', /got a list of 1001/],
    ['a bad id', { ...CHAIN, id: 'a b' }, 400, 'id', /got "a b"; want 1 to 128 letters/],
    ['an unknown model', { ...CHAIN, nodes: [...CHAIN.nodes, { stage: 'x', model: 'gpt' }] }, 404, 'nodes[3].model', /'gpt' does not exist/],
    ['a body beyond all bounds', `{"name":"${'x'.repeat(2_200_000)}"}`, 413, null, /larger than the 2097152 bytes allowed/],
  ])('%s', async (_, body, status, param, message) => {
    const { gateway: { url } } = await start();
    const refused = await declare(url, body);
    expect([refused.status, refused.body.error.param]).toEqual([status, param]);
    expect(refused.body.error.message).toMatch(message);
  });

  test('a model that its tenant may not use, a deadline below its bounds, one id twice, more than it may have open', async () => {
    const { gateway: { url } } = await start(TENANTS);
    const ada = { authorization: 'Bearer sk-ada' };
    expect((await declare(url, { ...CHAIN, nodes: [{ stage: 'a', model: 'other' }], edges: [] }, ada)).status).toBe(404);
    expect((await declare(url, { ...CHAIN, deadlineMs: 499 }, ada)).body.error).toMatchObject({ param: 'deadlineMs', message: "deadlineMs: got 499; tenant 'ada' may ask for 500 ms or more" });
    expect((await declare(url, { ...CHAIN, id: 'one' }, ada)).status).toBe(201);
    expect((await declare(url, { ...CHAIN, id: 'one' }, ada)).status).toBe(409);
    // Discovered ones count as well.
    expect((await call(url, { ...within('two', 'plan', 5_000), ...ada })).status).toBe(200);
    const full = await declare(url, { ...CHAIN, id: 'three' }, ada);
    expect([full.status, full.body.error.code, full.headers.get('retry-after')]).toEqual([429, 'workflow_limit_exceeded', '5']);
    expect((await call(url, { ...within('four', 'plan', 5_000), ...ada })).body.error.message).toMatch(/'ada' has as many workflows open as allowed: 2/);
    await ask(url, '/v1/workflows/one', { method: 'DELETE', headers: ada });
    expect((await declare(url, { ...CHAIN, id: 'three' }, ada)).status).toBe(201);
  });

  test('a deadline that the fastest cannot keep, where its tenant wants that', async () => {
    const { gateway: { url } } = await start(TENANTS);
    const refused = await declare(url, { ...CHAIN, id: 'w', deadlineMs: 100 }, { authorization: 'Bearer sk-bob' });
    expect([refused.status, refused.body.error.code, refused.headers.get('x-should-retry')]).toEqual([429, 'deadline_infeasible', 'false']);
    expect(refused.body.error.message).toMatch(/cannot be finished within 100 ms: with all of its calls at full speed it takes about \d+ ms/);
    const others = await start();
    expect((await declare(others.gateway.url, { ...CHAIN, deadlineMs: 100 })).body).toMatchObject({ state: 'open', verdict: 'lost' });
  });

  test('another method', async () => {
    const { gateway: { url } } = await start();
    const wrong = await ask(url, '/v1/workflows', { method: 'PUT', body: {} });
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'POST, OPTIONS']);
    expect((await ask(url, '/v1/workflows/x')).status).toBe(404);
  });
});

describe('a call’s headers are refused, and told why:', () => {
  test('counts as a request of its tenant, and takes none of its tokens and places', async () => {
    const { gateway } = await start(`tenants: [{ name: cat, apiKeySha256: ['${hashOf('sk-cat')}'], limits: { requestsPerMinute: 2, tokensPerMinute: 1000, concurrencyMax: 1 } }]`);
    const key = { authorization: 'Bearer sk-cat' };
    const wrong = await declare(gateway.url, { ...CHAIN, nodes: [] }, key);
    const first = await declare(gateway.url, { ...CHAIN, id: 'c1' }, key);
    expect([wrong.status, first.status]).toEqual([400, 201]);
    expect(Object.fromEntries(first.headers)).toMatchObject({ 'x-ratelimit-limit-requests': '2', 'x-ratelimit-remaining-requests': '1', 'x-ratelimit-remaining-tokens': '1000' });
    expect((await call(gateway.url, of('c1', 'plan', key))).status).toBe(200);
    const refused = await declare(gateway.url, { ...CHAIN, id: 'c2' }, key);
    expect(refused.status).toBe(429);
    expect(refused.body).toEqual({ error: { message: expect.stringMatching(/^Rate limit reached for 'cat': 2 requests per minute; try again in \d+(\.\d+)? s$/), type: 'requests', param: null, code: 'rate_limit_exceeded' } });
    expect(Object.fromEntries(refused.headers)).toMatchObject({ 'x-should-retry': 'true', 'x-llm-d-request-dropped-reason': 'rejected-saturated', 'x-ratelimit-remaining-requests': '0' });
    expect(Number(refused.headers.get('retry-after-ms'))).toBeGreaterThan(50_000);
    expect((await ask(gateway.url, '/v1/workflows/c2', { headers: key })).status).toBe(404);
    const page = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
    expect(page).toContain('paceline_limit_decisions_total{limit="none",decision="admitted",scope="gateway"} 2');
    expect(page).toContain('paceline_limit_decisions_total{limit="requests",decision="refused",scope="gateway"} 1');
  });

  test.each<[string, Headers, string, RegExp]>([
    ['a stage without an id', { 'x-paceline-workflow-stage': 'a' }, 'x-paceline-workflow-stage', /there is no x-paceline-workflow-id/],
    ['a deadline without an id', { 'x-paceline-workflow-deadline-ms': '5' }, 'x-paceline-workflow-deadline-ms', /there is no x-paceline-workflow-id/],
    ['a name without an id', { 'x-paceline-workflow-name': 'a' }, 'x-paceline-workflow-name', /there is no x-paceline-workflow-id/],
    ['a bad id', of('a b', 'x'), 'x-paceline-workflow-id', /got 'a b'; want 1 to 128/],
    ['an id that is a folder', of('..', 'x'), 'x-paceline-workflow-id', /got '\.\.'; want 1 to 128 .* not \. or \.\. alone/],
    ['a stage that is a folder', of('a', '.'), 'x-paceline-workflow-stage', /got '\.'; want 1 to 128 .* not \. or \.\. alone/],
    ['a name that is a folder', within('a', 'x', 5_000, '..'), 'x-paceline-workflow-name', /got '\.\.'; want 1 to 128 .* not \. or \.\. alone/],
    ['a long stage', of('a', 'x'.repeat(129)), 'x-paceline-workflow-stage', /want 1 to 128/],
    ['a deadline of nothing', within('a', 'x', 0), 'x-paceline-workflow-deadline-ms', /want a number of milliseconds, 1 to 2592000000/],
    ['a deadline that is no number', of('a', 'x', { 'x-paceline-workflow-deadline-ms': 'soon' }), 'x-paceline-workflow-deadline-ms', /got 'soon'/],
    ['an id that nobody knows', of('nobody', 'x'), 'x-paceline-workflow-id', /declare it \(POST \/v1\/workflows\), or send x-paceline-workflow-deadline-ms .* Gateways do not share workflows/],
  ])('%s', async (_, headers, param, message) => {
    const { gateway: { url }, upstream } = await start();
    const refused = await call(url, headers);
    expect([refused.status, refused.body.error.param]).toEqual([400, param]);
    expect(refused.body.error.message).toMatch(message);
    expect(upstream.requests).toEqual([]);
  });

  test('a stage that was not declared, or none, with those that were', async () => {
    const { gateway: { url } } = await start();
    await declare(url, { ...CHAIN, id: 'w' });
    expect((await call(url, of('w', 'plam'))).body.error.message).toBe("header x-paceline-workflow-stage: got 'plam'; workflow 'w' was declared with the stages plan, write");
    expect((await call(url, { 'x-paceline-workflow-id': 'w' })).body.error.message).toMatch(/missing; .* plan, write/);
    // A tool is nobody's call.
    expect((await call(url, of('w', 'search'))).status).toBe(400);
  });
});

describe('a discovered workflow', () => {
  test('is open from its first call, and the next of its name is planned as it was', async () => {
    const { gateway: { url, events } } = await start();
    for (const stage of ['plan', 'act', 'act']) expect((await call(url, within('run-1', stage, 30_000))).status).toBe(200);
    expect((await ask(url, '/v1/workflows/run-1')).body.stages.map(({ stage }: any) => stage)).toEqual(['plan', 'act', 'act#2']);
    // Its client says that this was all.
    expect((await ask(url, '/v1/workflows/run-1', { method: 'DELETE' })).body).toMatchObject({ outcome: 'finished', met: true, calls: 3 });
    await call(url, within('run-2', 'plan', 30_000));
    const second = (await ask(url, '/v1/workflows/run-2')).body;
    expect(second.stages.filter(({ kind }: any) => kind === 'call').map(({ stage, state }: any) => [stage, state])).toEqual([['plan', 'ended'], ['act', 'waiting'], ['act#2', 'waiting']]);
    expect(events.find((event) => event.kind === 'arrived')).toMatchObject({ job: { workflow: { workflowId: 'run-1', stage: 'plan', discovered: { deadlineMs: 30_000, name: 'agent' } } } });
  });

  test('has its stage and its name by default, and one deadline, its first', async () => {
    const { gateway: { url } } = await start();
    await call(url, { 'x-paceline-workflow-id': 'bare', 'x-paceline-workflow-deadline-ms': '20000' });
    await call(url, { 'x-paceline-workflow-id': 'bare', 'x-paceline-workflow-deadline-ms': '90000' });
    const { body } = await ask(url, '/v1/workflows/bare');
    expect(body.name).toBe('call');
    expect(body.deadlineInMs).toBeLessThanOrEqual(20_000);
    expect(body.stages.map(({ stage }: any) => stage)).toEqual(['call', 'call#2']);
  });

  test('that was over goes on with what is left of its deadline', async () => {
    const { gateway: { url } } = await start();
    await call(url, within('again', 'plan', 20_000));
    await ask(url, '/v1/workflows/again', { method: 'DELETE' });
    await call(url, within('again', 'act', 90_000));
    expect((await ask(url, '/v1/workflows/again')).body.deadlineInMs).toBeLessThanOrEqual(20_000);
  });

  test('its call keeps a limit of its own where that is earlier', async () => {
    const { gateway: { url } } = await start();
    const tight = await call(url, { ...within('own', 'plan', 60_000), 'x-slo-e2e-ms': '3000' });
    expect(Number(tight.headers.get('x-paceline-workflow-due-ms'))).toBeLessThanOrEqual(3_000);
  });
});

test('how many a tenant may have open is taken over by a reload', async () => {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const config = (max: number) => testConfig(`replicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE} }]\ntenants: [{ name: ada, apiKeySha256: ['${hashOf('sk-ada')}'], limits: { workflowsMax: ${max} } }]\n`);
  const gateway = await startConfigured(config(0));
  opened.push(gateway);
  const headers = { authorization: 'Bearer sk-ada' };
  expect((await declare(gateway.url, CHAIN, headers)).status).toBe(429);
  expect(gateway.reload(() => config(1))).toBe(true);
  await eventually(async () => (await declare(gateway.url, CHAIN, headers)).status === 201);
});
