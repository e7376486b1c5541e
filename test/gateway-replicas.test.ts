// Replicas that are added and taken out while the gateway runs: who comes gets requests, who goes ends what it has.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { openAccountsFile } from '../src/accounts/accounts-file.ts';
import type { EnergySnapshot } from '../src/gateway-energy.ts';
import { eventually, type GatewayUnderTest, PROFILE, startConfigured, testConfig } from './fixtures/gateway-under-test.ts';
import { createStubAgent, type StubAgent } from './fixtures/stub-agent.ts';
import { createStubUpstream, type StubUpstream } from './fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function upstreams(count: number): Promise<StubUpstream[]> {
  const made = await Promise.all(Array.from({ length: count }, () => createStubUpstream()));
  opened.push(...made);
  return made;
}

type Keys = { readonly id: string; readonly at: StubUpstream; readonly models?: string; readonly more?: string };
const yamlOf = (replicas: readonly Keys[], more = ''): string =>
  `replicas:\n${replicas.map(({ id, at, models = 'm', more: keys = '' }) => `  - { id: ${id}, url: '${at.url}', models: [${models}], profile: ${PROFILE}${keys} }`).join('\n')}\n${more}\n`;

async function start(yaml: string): Promise<GatewayUnderTest> {
  const gateway = await startConfigured(testConfig(yaml));
  opened.push(gateway);
  return gateway;
}

async function ask(gateway: GatewayUnderTest, model = 'm'): Promise<{ status: number; replica: string | null }> {
  const answer = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model }) });
  await answer.arrayBuffer();
  return { status: answer.status, replica: answer.headers.get('x-paceline-replica') };
}

interface Status {
  readonly replicas: readonly { readonly replicaId: string; readonly state: string; readonly controlled: boolean }[];
  readonly clockControl: string;
}

async function statusOf(gateway: GatewayUnderTest): Promise<Status> {
  return (await fetch(`${gateway.adminUrl}/paceline/status`)).json() as never;
}

async function stateOf(gateway: GatewayUnderTest, id: string): Promise<string | undefined> {
  return (await statusOf(gateway)).replicas.find(({ replicaId }) => replicaId === id)?.state;
}

/** A stream that goes on until it is told to end. */
function held(upstream: StubUpstream): () => void {
  let finish = (): void => {};
  upstream.answer = (_request, _incoming, outgoing) => {
    outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
    outgoing.write('data: {"choices":[{"delta":{"content":"a"}}]}\n\n');
    finish = () => outgoing.end('data: {"choices":[{"delta":{"content":"b"}}]}\n\ndata: [DONE]\n\n');
  };
  return () => finish();
}

test('one that is added serves its models as soon as it is up, also those that nobody served before', async () => {
  const [a, b] = (await upstreams(2)) as [StubUpstream, StubUpstream];
  const gateway = await start(yamlOf([{ id: 'r0', at: a }]));
  expect((await ask(gateway, 'n')).status).toBe(404);
  expect(gateway.reload(() => testConfig(yamlOf([{ id: 'r0', at: a }, { id: 'r1', at: b, models: 'n' }])))).toBe(true);
  await eventually(async () => (await stateOf(gateway, 'r1')) === 'up');
  expect(await ask(gateway, 'n')).toEqual({ status: 200, replica: 'r1' });
  expect(await ask(gateway, 'm')).toEqual({ status: 200, replica: 'r0' });
});

test('one that is taken out ends its stream, gets nothing more, and is gone; its model then is nobody’s', async () => {
  const [a, b] = (await upstreams(2)) as [StubUpstream, StubUpstream];
  const gateway = await start(yamlOf([{ id: 'r0', at: a }, { id: 'r1', at: b, models: 'n' }]));
  const finish = held(b);
  const stream = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'n', stream: true }) });
  expect(gateway.reload(() => testConfig(yamlOf([{ id: 'r0', at: a }])))).toBe(true);
  expect(await stateOf(gateway, 'r1')).toBe('draining');
  expect((await ask(gateway, 'n')).status).toBe(404);
  finish();
  const text = await stream.text();
  expect(text).toContain('"content":"b"');
  expect(text).toContain('[DONE]');
  expect(b.requests).toHaveLength(1);
  await eventually(async () => (await stateOf(gateway, 'r1')) === undefined);
  expect(await ask(gateway, 'm')).toEqual({ status: 200, replica: 'r0' });
  // Its id is free again.
  expect(gateway.reload(() => testConfig(yamlOf([{ id: 'r0', at: a }, { id: 'r1', at: a, models: 'o' }])))).toBe(true);
});

test('one that is on its way out stays where the next configuration has it again, and is refused as another one', async () => {
  const [a, b] = (await upstreams(2)) as [StubUpstream, StubUpstream];
  const both = yamlOf([{ id: 'r0', at: a }, { id: 'r1', at: b, models: 'n' }]);
  const gateway = await start(both);
  const finish = held(b);
  const stream = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'n', stream: true }) });
  gateway.reload(() => testConfig(yamlOf([{ id: 'r0', at: a }])));
  expect(gateway.reload(() => testConfig(yamlOf([{ id: 'r0', at: a }, { id: 'r1', at: a, models: 'n' }])))).toBe(false);
  expect(gateway.reload(() => testConfig(both))).toBe(true);
  expect(await stateOf(gateway, 'r1')).toBe('up');
  finish();
  await stream.text();
  b.answer = a.answer;
  expect(await ask(gateway, 'n')).toEqual({ status: 200, replica: 'r1' });
});

test('the clocks of one that is added are driven, and given back when it is taken out; those of another node are not touched', async () => {
  const [a, b] = (await upstreams(2)) as [StubUpstream, StubUpstream];
  const agents: StubAgent[] = [await createStubAgent(['sim:0']), await createStubAgent(['sim:0'])];
  opened.push(...agents);
  const agentsYaml = (count: number): string => `agents:\n${agents.slice(0, count).map(({ socketPath }, index) => `  n${index}: { socket: ${socketPath} }`).join('\n')}`;
  const driven = (id: string, at: StubUpstream, index: number): Keys => ({ id, at, more: `, agent: n${index}, devices: ['sim:0']` });
  const one = yamlOf([driven('r0', a, 0)], agentsYaml(1));
  const gateway = await start(one);
  await eventually(async () => (await statusOf(gateway)).clockControl === 'held');
  const leases = agents[0]?.leases.length;
  gateway.reload(() => testConfig(yamlOf([driven('r0', a, 0), driven('r1', b, 1)], agentsYaml(2))));
  await eventually(async () => (await statusOf(gateway)).replicas.every(({ controlled }) => controlled));
  expect(agents[1]?.leases).toHaveLength(1);
  gateway.reload(() => testConfig(one));
  await eventually(async () => (await stateOf(gateway, 'r1')) === undefined);
  await eventually(() => agents[1]?.leases.every(({ ended }) => ended !== 'open') === true);
  expect(agents[0]?.leases).toHaveLength(leases ?? 0);
  expect((await statusOf(gateway)).clockControl).toBe('held');
});

test('all of them replaced at once refused requests until the new ones had been probed', async () => {
  const ups = (await upstreams(4)) as [StubUpstream, StubUpstream, StubUpstream, StubUpstream];
  const slow = 'health: { everyMs: 400, timeoutMs: 500, failuresMax: 3 }';
  const gateway = await start(yamlOf([{ id: 'a0', at: ups[0] }, { id: 'a1', at: ups[1] }], slow));
  // It is not ready when it is asked for the first time.
  ups[2].healthStatus = ups[3].healthStatus = 503;
  expect(gateway.reload(() => testConfig(yamlOf([{ id: 'b0', at: ups[2] }, { id: 'b1', at: ups[3] }], slow)))).toBe(true);
  expect((await ask(gateway)).replica).toMatch(/^a/);
  ups[2].healthStatus = ups[3].healthStatus = 200;
  const seen = new Set<number>();
  await eventually(async () => {
    const { status, replica } = await ask(gateway);
    seen.add(status);
    return replica?.startsWith('b') === true;
  });
  expect([...seen]).toEqual([200]);
  await eventually(async () => (await statusOf(gateway)).replicas.every(({ replicaId }) => replicaId.startsWith('b')));
  // What is gone has no series: a fleet whose ids are ever new would fill the page, and one whose id comes back would count on.
  const page = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  expect(page).toContain('replica="b0"');
  expect(page).not.toMatch(/replica="a[01]"/);
});

test('what a replica took since the accounts were last written was lost when it was taken out', async () => {
  const [a, b] = (await upstreams(2)) as [StubUpstream, StubUpstream];
  const directory = mkdtempSync(join(tmpdir(), 'paceline-gone-'));
  opened.push({ close: async () => rmSync(directory, { recursive: true, force: true }) });
  const agent = await createStubAgent(['sim:0', 'sim:1']);
  opened.push(agent);
  agent.misbehave = (_method, path) => (path.startsWith('/v1/samples') ? { text: JSON.stringify({ at_ns: 1, samples: ['sim:0', 'sim:1'].map((device) => ({ device, energy_mj: Math.round(300 * performance.now()), energy_age_ms: 0, power_mw: 300_000 })) }) } : null);
  const file = join(directory, 'accounts.sqlite');
  const more = `agent: { socket: ${agent.socketPath} }\naccounts: { file: ${file}, flushEveryMs: 600000 }`;
  const both: Keys[] = [{ id: 'r0', at: a, more: ", devices: ['sim:0']" }, { id: 'r1', at: b, more: ", devices: ['sim:1']" }];
  const gateway = await start(yamlOf(both, more));
  const idleOf = async (id: string): Promise<number> => ((await (await fetch(`${gateway.adminUrl}/paceline/energy`)).json()) as EnergySnapshot).replicas.find(({ replicaId }) => replicaId === id)?.idle.meteredJ ?? 0;
  // Idling is read every five seconds.
  await eventually(async () => (await idleOf('r1')) > 0, 15_000);
  gateway.reload(() => testConfig(yamlOf(both.slice(0, 1), more)));
  await eventually(async () => (await stateOf(gateway, 'r1')) === undefined);
  const accounts = openAccountsFile(file, { write: false });
  const rows = accounts.replicas(0, 1e11);
  accounts.close();
  expect(rows.find(({ replica }) => replica === 'r1')?.idleMeteredJ).toBeGreaterThan(300);
}, 30_000);
