// A gateway in front of a replica that has no profile: what it asks of the agent, and what comes of it.
import { afterEach, expect, test } from 'vitest';
import { loadProfile, profileProblems } from '../src/profile-file.ts';
import type { Profile } from '../src/frontier/profile.ts';
import { type GatewayUnderTest, startConfigured, testConfig } from './fixtures/gateway-under-test.ts';
import { createStubAgent, type StubAgent } from './fixtures/stub-agent.ts';
import { createStubUpstream, type StubUpstream } from './fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function started({ learn = '{}', agent, devices = "['sim:0']" }: { learn?: string; agent: StubAgent | null; devices?: string }): Promise<{ gateway: GatewayUnderTest; upstream: StubUpstream }> {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const gateway = await startConfigured(testConfig(`replicas:\n  - { id: r0, url: '${upstream.url}', models: [m], profile: { learn: ${learn} }, devices: ${devices} }\n${agent === null ? '' : `agent: { socket: ${agent.socketPath} }\n`}`));
  opened.push(gateway);
  return { gateway, upstream };
}

async function agentWith(...devices: readonly object[]): Promise<StubAgent> {
  const agent = await createStubAgent();
  opened.push(agent);
  agent.devices = devices.map((device, index) => ({ device: `sim:${index}`, controls: ['clock'], ...device }));
  return agent;
}

function ask(gateway: GatewayUnderTest): Promise<string> {
  return fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'm', stream: true, messages: [{ role: 'user', content: 'x'.repeat(400) }] }) }).then((answer) => answer.text());
}

const TOKEN = 'data: {"choices":[{"delta":{"content":"a"}}]}\n\n';

test('is begun at the highest clock that all of its devices have, and is written out as a profile once enough was seen', async () => {
  const agent = await agentWith({ clocks_mhz: [600, 900, 1200, 1500], power_limit_mw: 500_000, name: 'A' }, { clocks_mhz: [600, 1200, 1410], power_limit_mw: 400_000 });
  const { gateway, upstream } = await started({ agent, devices: "['sim:0', 'sim:1']", learn: '{ maxSequences: 32 }' });
  upstream.answer = (_request, _incoming, outgoing) => {
    outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
    let tokens = 0;
    const timer = setInterval(() => {
      outgoing.write(TOKEN);
      if (++tokens < 22) return;
      clearInterval(timer);
      outgoing.end('data: [DONE]\n\n');
    }, 2);
  };
  const status = async (): Promise<{ replicas: { why: { binding: string }; pointId: string | null }[] }> => (await fetch(`${gateway.adminUrl}/paceline/status`)).json() as never;
  await ask(gateway);
  const profile = (): Promise<Response> => fetch(`${gateway.adminUrl}/paceline/replicas/r0/profile`);
  const early = await profile();
  expect([early.status, await early.text()]).toEqual([409, expect.stringContaining('too little was seen')]);
  await expect.poll(async () => (await status()).replicas[0]?.why.binding).toBe('learning');
  await expect.poll(() => agent.puts.flatMap(({ targets }) => targets.map(({ clock_mhz }) => clock_mhz)).at(-1)).toBe(1200);
  for (let round = 0; round < 80 && (await profile()).status !== 200; round++) await ask(gateway);
  const learnt = (await (await profile()).json()) as Profile;
  expect(profileProblems(learnt)).toEqual([]);
  expect(learnt.points.map(({ id }) => id)).toEqual(['c1200', 'c600']);
  expect(learnt).toMatchObject({ deviceGroup: { device: 'A', devices: 2 }, serving: { maxSequences: 32 }, provenance: { measuredBy: 'paceline, learned while serving' } });
  expect((await fetch(`${gateway.adminUrl}/paceline/replicas/nobody/profile`)).status).toBe(404);
}, 30_000);

test('a replica with a profile is written out too, with what was learnt of it', async () => {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const gateway = await startConfigured(testConfig(`replicas:\n  - { id: r0, url: '${upstream.url}', models: [m], profile: config/profiles/mistral-7b.v100.json }\n`));
  opened.push(gateway);
  const learnt = (await (await fetch(`${gateway.adminUrl}/paceline/replicas/r0/profile`)).json()) as Profile;
  expect(profileProblems(learnt)).toEqual([]);
  expect(learnt.points.map(({ id }) => id)).toEqual(loadProfile('config/profiles/mistral-7b.v100.json').points.map(({ id }) => id));
  expect(learnt.provenance.method).toContain('Points seen at work: none');
});

test('with clocks in the configuration nobody need be asked', async () => {
  const { gateway } = await started({ agent: null, devices: '[]', learn: '{ clocksMhz: [900, 1200] }' });
  expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200);
});

test('is refused at the start, with a way out, where nobody says which clocks there are', async () => {
  await expect(started({ agent: null, devices: '[]' })).rejects.toThrow(/'r0' is to be learnt, but nobody says which clocks.*profile\.learn\.clocksMhz/);
  await expect(started({ agent: await agentWith({ clocks_mhz: [600] }), devices: "['sim:7']" })).rejects.toThrow(/no device 'sim:7'; it has: sim:0/);
  await expect(started({ agent: await agentWith({ clocks_mhz: [600] }, { clocks_mhz: [700] }), devices: "['sim:0', 'sim:1']" })).rejects.toThrow('no clock in common');
  const silent = await agentWith({});
  silent.misbehave = () => ({ text: 'hm' });
  await expect(started({ agent: silent })).rejects.toThrow('no list of devices');
});

test('one that is added later wants its clocks in the configuration', async () => {
  const agent = await agentWith({ clocks_mhz: [600, 1200] });
  const { gateway, upstream } = await started({ agent });
  const next = (learn: string): ReturnType<typeof testConfig> =>
    testConfig(`replicas:\n  - { id: r0, url: '${upstream.url}', models: [m], profile: { learn: {} }, devices: ['sim:0'] }\n  - { id: r1, url: '${upstream.url}', models: [m], profile: { learn: ${learn} } }\nagent: { socket: ${agent.socketPath} }\n`);
  expect(gateway.reload(() => next('{}'))).toBe(false);
  expect(gateway.reload(() => next('{ clocksMhz: [600, 1200] }'))).toBe(true);
});
