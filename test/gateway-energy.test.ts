// The accounts of energy of a whole gateway in front of stub servers and a stub agent: which counters pay for which replica, and
// what becomes of it while they cannot be read.
import { afterEach, expect, test, vi } from 'vitest';
import type { EnergySnapshot } from '../src/gateway-energy.ts';
import { ConfigError } from '../src/config/config-problems.ts';
import { createGateway } from '../src/gateway.ts';
import { type GatewayUnderTest, PROFILE, startConfigured, testConfig } from './fixtures/gateway-under-test.ts';
import { createStubAgent, type StubAgent } from './fixtures/stub-agent.ts';
import { createStubUpstream } from './fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const waitFor = (check: () => void | Promise<void>): Promise<void> => vi.waitFor(check, { timeout: 15_000, interval: 20 });

interface Started {
  readonly gateway: GatewayUnderTest;
  readonly agent: StubAgent;
  /** Watts of each device, by which its counter grows; `null`: it is away. */
  readonly powerW: Record<string, number | null>;
  /** Sets a counter to zero. */
  reset(device: string): void;
  energy(): Promise<EnergySnapshot>;
}

async function start(replicas: (url: string) => string, more = ''): Promise<Started> {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const agent = await createStubAgent(['sim:0', 'sim:1', 'sim:2']);
  opened.push(agent);
  const powerW: Started['powerW'] = { 'sim:0': 300, 'sim:1': 500, 'sim:2': 700 };
  const countedSinceMs = new Map(Object.keys(powerW).map((device) => [device, 0]));
  agent.misbehave = (_method, path) => {
    if (!path.startsWith('/v1/samples')) return null;
    const samples = Object.entries(powerW).flatMap(([device, watts]) => (watts === null ? [] : [{ device, energy_mj: Math.round(watts * (performance.now() - (countedSinceMs.get(device) ?? 0))), energy_age_ms: 0, power_mw: watts * 1_000 }]));
    return { text: JSON.stringify({ at_ns: 1, samples }) };
  };
  const gateway = await startConfigured(testConfig(`replicas:\n${replicas(upstream.url)}\nagent: { socket: ${agent.socketPath} }\n${more}`));
  opened.push(gateway);
  return { gateway, agent, powerW, reset: (device) => void countedSinceMs.set(device, performance.now()), energy: async () => (await (await fetch(`${gateway.adminUrl}/paceline/energy`)).json()) as EnergySnapshot };
}

const chat = async ({ gateway }: Started): Promise<void> => {
  const answer = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'm', stream: true, messages: [] }) });
  await answer.text();
};
const off = ({ meterJ, requests, idle, othersJ, unapportionedJ }: EnergySnapshot['replicas'][number]): number => requests.meteredJ + idle.meteredJ + othersJ + unapportionedJ - (meterJ ?? 0);

test('each replica of a node is paid for by its own devices, each group of a disaggregated one too, and requests by theirs', async () => {
  const started = await start((url) => `  - { id: a, url: '${url}', models: [m], profile: ${PROFILE}, devices: ['sim:0'] }\n  - { id: b, url: '${url}', models: [other], profile: ${PROFILE}, devices: { prefill: ['sim:1'], decode: ['sim:2'] } }`);
  await waitFor(async () => expect((await started.energy()).replicas).toMatchObject([{ replicaId: 'a', source: 'metered', powerW: 300 }, { replicaId: 'b', source: 'metered', powerW: 1_200 }]));
  await chat(started);
  await waitFor(async () => {
    const { rows, replicas } = await started.energy();
    expect(rows).toMatchObject([{ tenant: 'anonymous', model: 'm', sloClass: 'best-effort', requests: 1, promptTokens: 9, outputTokens: 3 }]);
    expect(rows[0]?.meteredJ).toBeGreaterThan(0);
    expect(Math.abs(rows[0]?.modelledJ ?? 1)).toBeLessThan(1e-9);
    expect(replicas[0]?.requests.meteredJ).toBeCloseTo(rows[0]?.meteredJ ?? 0, 9);
    expect(replicas[1]?.requests.meteredJ).toBe(0);
    for (const replica of replicas) expect(off(replica)).toBeCloseTo(0, 6);
  });
}, 20_000);

test('a device that vanishes leaves its replica to the profile and the other to its meter; what it counted meanwhile is nobody’s', async () => {
  const started = await start((url) => ['a', 'b'].map((id, index) => `  - { id: ${id}, url: '${url}', models: [${index === 0 ? 'm' : 'other'}], profile: ${PROFILE}, devices: ['sim:${index}'] }`).join('\n'));
  const sources = async (): Promise<string[]> => (await started.energy()).replicas.map(({ source }) => source);
  await waitFor(async () => expect(await sources()).toEqual(['metered', 'metered']));
  started.powerW['sim:0'] = null;
  const busy = setInterval(() => void chat(started), 50);
  try {
    await waitFor(async () => expect(await sources()).toEqual(['modelled', 'metered']));
  } finally {
    clearInterval(busy);
  }
  expect((await started.energy()).rows[0]?.modelledJ).toBeGreaterThan(0);
  started.powerW['sim:0'] = 300;
  await waitFor(async () => expect(await sources()).toEqual(['metered', 'metered']));
  const back = (await started.energy()).replicas[0] as EnergySnapshot['replicas'][number];
  expect(back.unapportionedJ).toBeGreaterThan(3 * 300);
  expect(off(back)).toBeCloseTo(0, 6);
  // A counter that begins anew tells nothing of the time before.
  const meterJ = back.meterJ as number;
  started.reset('sim:0');
  await chat(started);
  await waitFor(async () => expect((await started.energy()).replicas[0]?.meterJ).toBeGreaterThan(meterJ));
  const after = (await started.energy()).replicas[0] as EnergySnapshot['replicas'][number];
  expect((after.meterJ as number) - meterJ).toBeLessThan(300 * 20);
  expect(off(after)).toBeCloseTo(0, 6);
}, 40_000);

test('counters that are not to be read are not, and all is modelled', async () => {
  const started = await start((url) => `  - { id: a, url: '${url}', models: [m], profile: ${PROFILE}, devices: ['sim:0'] }`, 'accounts: { meter: off }');
  await chat(started);
  const { replicas, rows } = await started.energy();
  expect(replicas).toMatchObject([{ source: 'modelled', meterJ: null, powerW: null, requests: { meteredJ: 0 } }]);
  expect(rows[0]?.modelledJ).toBeGreaterThan(0);
});

test('a file of accounts that cannot be used is refused at the start, and the key is named', async () => {
  const config = testConfig(`replicas: [{ id: a, url: 'http://127.0.0.1:1', models: [m], profile: ${PROFILE} }]\naccounts: { file: package.json }`);
  await expect(createGateway(config)).rejects.toThrow(ConfigError);
  await expect(createGateway(config)).rejects.toThrow(/accounts\.file: .*package\.json: file is not a database/);
});
