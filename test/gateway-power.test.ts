// Budgets and prices through a whole gateway: when the scheduler is told of what, and what operators may do.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import type { EnergyPrice } from '../src/core/energy-prices.ts';
import type { PowerBudget } from '../src/core/power-budget.ts';
import { createGateway } from '../src/gateway.ts';
import { openPower } from '../src/gateway-power.ts';
import { createPerformanceModel } from '../src/frontier/performance-model.ts';
import { powerRange } from '../src/frontier/power-limited.ts';
import { loadProfile } from '../src/profile-file.ts';
import { eventually, type GatewayUnderTest, PROFILE, startConfigured, testConfig } from './fixtures/gateway-under-test.ts';
import { createStubAgent } from './fixtures/stub-agent.ts';
import { createStubUpstream } from './fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

function directory(): string {
  const path = mkdtempSync(join(tmpdir(), 'paceline-power-'));
  opened.push({ close: async () => rmSync(path, { recursive: true }) });
  return path;
}

const BELIEF = createPerformanceModel(loadProfile(PROFILE));

const points = (...pairs: readonly (readonly [unixMs: number, value: number])[]): string => JSON.stringify(pairs.map(([unixMs, value]) => ({ time: new Date(unixMs).toISOString(), value })));
const replica = (id: string, url = 'http://127.0.0.1:1'): string => `{ id: ${id}, url: '${url}', models: [m], profile: ${PROFILE} }`;
const yaml = (power: string, replicas = [replica('r0'), replica('r1')]): string => `replicas: [${replicas.join(', ')}]\npower: ${power}\n`;

describe('what the scheduler is told', () => {
  function open(power: string) {
    const told: { budgets: readonly PowerBudget[]; atMs: number }[] = [];
    const prices: (readonly EnergyPrice[])[] = [];
    const warnings: string[] = [];
    const clock = { offsetMs: Date.now() - performance.now() };
    const config = testConfig(yaml(power));
    const joined = openPower(config, new Map(), {
      replicas: () => config.replicas,
      beliefs: () => new Map(),
      tell: { budgets: (budgets) => told.push({ budgets, atMs: performance.now() }), prices: (now) => prices.push(now) },
      uses: () => [{ name: 'all', allottedW: 900, drawnW: 1_200, exceeded: false, servesNothing: false }, { name: 'fits', allottedW: 900, drawnW: 1_200, exceeded: false, servesNothing: false }],
      telemetry: { warning: (message) => warnings.push(message), powerOverridden: () => {} },
      now: () => performance.now(),
      unixNowMs: () => performance.now() + clock.offsetMs,
    });
    opened.push(joined);
    joined.start();
    return { power: joined, told, prices, warnings, clock, watts: () => told.at(-1)?.budgets[0]?.watts };
  }

  test('a schedule changes when it says so, to some milliseconds', async () => {
    const file = join(directory(), 'all.json');
    const changesAtMs = performance.now() + 300;
    const unixMs = Math.round(Date.now() + 300);
    writeFileSync(file, points([unixMs - 10_000, 5_000], [unixMs, 1_000], [unixMs + 60_000, 2_000]));
    const { told } = open(`{ budgets: [{ name: all, schedule: { file: ${file} } }] }`);
    expect(told.map(({ budgets }) => budgets)).toEqual([[{ name: 'all', watts: 5_000, replicaIds: ['r0', 'r1'] }]]);
    await eventually(() => told.length === 2);
    expect(told[1]?.budgets).toEqual([{ name: 'all', watts: 1_000, replicaIds: ['r0', 'r1'] }]);
    expect((told[1]?.atMs ?? 0) - changesAtMs).toBeGreaterThanOrEqual(-2);
  });

  test('a time of day that is set anew moves the schedule, and the prices on the clock of the scheduler', async () => {
    const path = directory();
    const nowUnixMs = Date.now();
    writeFileSync(join(path, 'w.json'), points([nowUnixMs - 10_000, 5_000], [nowUnixMs + 3_600_000, 1_000], [nowUnixMs + 7_200_000, 2_000]));
    writeFileSync(join(path, 'p.json'), points([nowUnixMs - 10_000, 5], [nowUnixMs + 3_600_000, 1], [nowUnixMs + 7_200_000, 2]));
    const { watts, clock, prices } = open(`{ budgets: [{ name: all, schedule: { file: ${path}/w.json } }], prices: { file: ${path}/p.json } }`);
    const [first] = prices;
    expect(first?.map(({ price }) => price)).toEqual([5, 1, 2]);
    expect((first?.[1]?.fromMs ?? 0) - performance.now()).toBeCloseTo(3_600_000, -3);
    clock.offsetMs += 3_600_000;
    await eventually(() => watts() === 1_000 && prices.length === 2);
    expect((prices[1]?.[1]?.fromMs ?? 0) - performance.now()).toBeLessThanOrEqual(0);
  });

  test('prices that have run out are taken back, and a budget then falls to what is said for it', async () => {
    const path = directory();
    const unixMs = Date.now();
    writeFileSync(join(path, 's.json'), JSON.stringify({ points: [{ time: new Date(unixMs - 1_000).toISOString(), value: 5_000 }], until: new Date(unixMs + 400).toISOString() }));
    const { watts, prices, power } = open(`{ budgets: [{ name: all, schedule: { file: ${path}/s.json, onStale: { watts: 700 } } }], prices: { file: ${path}/s.json } }`);
    expect([watts(), prices.at(-1)?.length]).toEqual([5_000, 1]);
    await eventually(() => watts() === 700 && prices.at(-1)?.length === 0);
    expect(power.snapshot()).toMatchObject({ budgets: [{ watts: 700, from: 'fallback' }], prices: { now: null } });
  });

  test('what is drawn beyond a budget is counted in seconds, and of what nobody meters nothing is said', async () => {
    const { power } = open('{ budgets: [{ name: all, watts: 1000 }, { name: fits, watts: 2000 }, { name: other, watts: 10 }] }');
    await eventually(() => (power.snapshot().budgets[0]?.breachS ?? 0) >= 0.9);
    expect(power.snapshot().budgets).toMatchObject([{ allottedW: 900, drawnW: 1_200 }, { drawnW: 1_200, breachS: 0 }, { allottedW: null, drawnW: null, breachS: null }]);
  });
});

describe('at the start', () => {
  const start = (power: string): Promise<unknown> => createGateway(testConfig(yaml(power)));

  test('a budget below what its replicas draw idle is refused, with both figures', async () => {
    await expect(start('{ budgets: [{ name: all, watts: 100 }] }')).rejects.toThrow(/^power\.budgets\[0\]\.watts: got 100 W, and what is under 'all' draws [\d.]+ W with nothing to do, at its slowest \(r0, r1\); want more, or fewer replicas under it$/);
    await expect(start('{ budgets: [{ name: all, schedule: { url: "http://127.0.0.1:1/", onStale: { watts: 1 } } }] }')).rejects.toThrow(/power\.budgets\[0\]\.schedule\.onStale\.watts: got 1 W/);
  });

  test('a file that is not there, or is bad, is refused', async () => {
    await expect(start('{ budgets: [{ name: all, schedule: { file: /nowhere.json } }] }')).rejects.toThrow(/^power: ENOENT.*nowhere\.json/);
    const bad = join(directory(), 'bad.json');
    writeFileSync(bad, '[{"time":"soon","value":1}]');
    await expect(start(`{ prices: { file: ${bad} } }`)).rejects.toThrow(`power: ${bad}: [0].time: got soon`);
  });
});

describe('replicas that nobody drives', () => {
  const ids = ['r0', 'r1'];
  const open = (text: string) => {
    const warnings: string[] = [];
    const config = testConfig(text);
    const beliefs = new Map(config.replicas.map(({ id }) => [id, BELIEF]));
    const power = openPower(config, beliefs, { replicas: () => config.replicas, beliefs: () => beliefs, tell: { budgets: () => {}, prices: () => {} }, uses: () => [], telemetry: { warning: (message) => warnings.push(message), powerOverridden: () => {} }, now: () => performance.now(), unixNowMs: Date.now });
    opened.push(power);
    power.start();
    return { power, warnings, config };
  };
  const driven = ids.map((id, index) => replica(id).replace(' }', index === 0 ? ", devices: ['sim:0'] }" : ' }'));

  test('are told of once at the start and once at a reload, with their budgets, their peak and what follows', () => {
    const { power, warnings, config } = open(yaml('{ budgets: [{ name: all, watts: 5000 }, { name: one, watts: 900, over: { replicas: [r1] } }] }'));
    const line = /^power budgets cover replicas whose clocks nobody drives, for the configuration has no agent or no devices for them: all covers r0, r1 \(together at most [\d.]+ W\); one covers r1 \(together at most [\d.]+ W\)\. Such a replica counts with its peak and cannot be held to less, so that a budget below the peaks is not kept$/;
    expect(warnings).toEqual([expect.stringMatching(line)]);
    power.planned(config, new Map())();
    expect(warnings).toEqual([expect.stringMatching(line), expect.stringMatching(line)]);
  });

  test('are told apart from those that an agent drives', () => {
    const { warnings } = open(`agent: { socket: /nowhere.sock }\nreplicas: [${driven.join(', ')}]\npower: { budgets: [{ name: all, watts: 5000 }, { name: zero, watts: 900, over: { replicas: [r0] } }] }\n`);
    expect(warnings).toEqual([expect.stringMatching(/: all covers r1 \(together at most [\d.]+ W\)\. Such/)]);
  });

  test('are no matter without budgets; under another policy than paceline no budget is kept at all', () => {
    expect(open(yaml('{}')).warnings).toEqual([]);
    expect(open(`${yaml('{ budgets: [{ name: all, watts: 5000 }] }')}planner: { policy: max-clock }\n`).warnings).toEqual(['power budgets all are not kept: planner.policy is max-clock, and only paceline knows of budgets']);
  });
});

describe('operators', () => {
  async function gatewayWith(power: string): Promise<GatewayUnderTest & { yaml: (power: string) => string }> {
    const upstream = await createStubUpstream();
    const of = (budgets: string): string => yaml(budgets, [replica('r0', upstream.url), replica('r1', upstream.url)]);
    const gateway = await startConfigured(testConfig(of(power)));
    opened.push(upstream, gateway);
    return { ...gateway, yaml: of };
  }
  const told = ({ events }: GatewayUnderTest): PowerBudget[][] => events.flatMap((event) => (event.kind === 'power-budgets' ? [[...event.budgets]] : []));
  const ask = async ({ adminUrl }: GatewayUnderTest, method: string, path: string, body?: string): Promise<{ status: number; body: Record<string, unknown> }> => {
    const answer = await fetch(`${adminUrl}/paceline/power${path}`, { method, ...(body === undefined ? {} : { body }) });
    return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
  };

  test('see budgets, and set one for a while', async () => {
    const gateway = await gatewayWith('{ budgets: [{ name: all, watts: 5000 }, { name: one, watts: 900, over: { replicas: [r1] } }] }');
    expect(told(gateway)).toEqual([[{ name: 'all', watts: 5_000, replicaIds: ['r0', 'r1'] }, { name: 'one', watts: 900, replicaIds: ['r1'] }]]);
    expect((await ask(gateway, 'GET', '')).body).toMatchObject({ budgets: [{ name: 'all', watts: 5_000, from: 'configuration', until: null, replicas: ['r0', 'r1'] }, { name: 'one' }], prices: null });
    const set = await ask(gateway, 'PUT', '/budgets/all', '{"watts": 3000, "forMs": 60000}');
    expect(set).toMatchObject({ status: 200, body: { name: 'all', watts: 3_000, from: 'override' } });
    expect(Date.parse(set.body['until'] as string) - Date.now()).toBeGreaterThan(55_000);
    expect(told(gateway).at(-1)?.[0]).toMatchObject({ watts: 3_000 });
    const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
    expect(metrics).toContain('paceline_power_budget_watts{budget="all"} 3000');
    expect(await ask(gateway, 'DELETE', '/budgets/all')).toMatchObject({ status: 200, body: { watts: 5_000, from: 'configuration' } });
    expect(told(gateway).at(-1)?.[0]).toMatchObject({ watts: 5_000 });
  });

  test('have it as configured again when the time is over', async () => {
    const gateway = await gatewayWith('{ budgets: [{ name: all, watts: 5000 }] }');
    await ask(gateway, 'PUT', '/budgets/all', '{"watts": 3000, "forMs": 1000}');
    await eventually(() => told(gateway).length === 3);
    expect(told(gateway).map(([budget]) => budget?.watts)).toEqual([5_000, 3_000, 5_000]);
  });

  test.each([
    ['', /^the body is no JSON/],
    ['[]', /^the body: got \[\], want/],
    ['{}', /^watts: got nothing, want a number above 0/],
    ['{"watts":"3000"}', /^watts: got "3000"/],
    ['{"watts":0}', /^watts: got 0/],
    ['{"watts":5000,"forMs":999}', /^forMs: got 999, want a whole number of milliseconds, 1000 to 604800000/],
    ['{"watts":5000,"for":9999}', /^unknown key 'for'; known: watts, forMs/],
    ['{"watts":5}', /^watts: got 5, and what is under this budget draws [\d.]+ with nothing to do/],
    [`{"watts":5000,"x":"${'x'.repeat(5_000)}"}`, /^the body has more than 4096 bytes/],
  ])('are told what is wrong with %j', async (body, message) => {
    const gateway = await gatewayWith('{ budgets: [{ name: all, watts: 5000 }] }');
    const { status, body: said } = await ask(gateway, 'PUT', '/budgets/all', body);
    expect([status, said['error']]).toEqual([400, expect.stringMatching(message)]);
    expect(told(gateway)).toHaveLength(1);
  });

  test('are warned where what they set is far above all that could be drawn, and it is set', async () => {
    const gateway = await gatewayWith('{ budgets: [{ name: all, watts: 5000 }] }');
    const peakW = Number((2 * powerRange(BELIEF).peakW).toFixed(1));
    const set = await ask(gateway, 'PUT', '/budgets/all', '{"watts": 3500000}');
    expect(set).toMatchObject({ status: 200, body: { watts: 3_500_000, from: 'override', warning: `watts: got 3500000 W, and what is under power budget all draws ${peakW} W at its peak, as believed; as long as this stands nothing is limited by it` } });
    expect(told(gateway).at(-1)?.[0]?.watts).toBe(3_500_000);
    for (const watts of [1.4 * peakW, 900]) expect((await ask(gateway, 'PUT', '/budgets/all', JSON.stringify({ watts }))).body).not.toHaveProperty('warning');
    expect((await ask(gateway, 'DELETE', '/budgets/all')).body).not.toHaveProperty('warning');
  });

  test('see one budget alone, as it stands among all', async () => {
    const gateway = await gatewayWith('{ budgets: [{ name: all, watts: 5000 }, { name: rack-7, watts: 300, over: { replicas: [r1] } }] }');
    const { body } = await ask(gateway, 'GET', '/budgets/rack-7');
    expect(body).toMatchObject({ name: 'rack-7', watts: 300, replicas: ['r1'], drawnW: null, breachS: null });
    expect(((await ask(gateway, 'GET', '')).body as { budgets: unknown[] }).budgets[1]).toEqual(body);
    await eventually(async () => (await ask(gateway, 'GET', '/budgets/rack-7')).body['exceeded'] === true);
    expect((await ask(gateway, 'GET', '/budgets/all')).body).toMatchObject({ exceeded: expect.any(Boolean) });
  });

  test('are told which budgets there are where one is not', async () => {
    const gateway = await gatewayWith('{ budgets: [{ name: all, watts: 5000 }] }');
    for (const [method, body] of [['GET', undefined], ['PUT', '{"watts":5000}'], ['DELETE', undefined]] as const) {
      expect(await ask(gateway, method, '/budgets/rack', body)).toEqual({ status: 404, body: { error: "no power budget 'rack'; there are: all" } });
    }
  });

  test('another configuration is taken over at once, overrides of budgets that stay included; a bad one is not', async () => {
    const gateway = await gatewayWith('{ budgets: [{ name: all, watts: 5000 }] }');
    await ask(gateway, 'PUT', '/budgets/all', '{"watts": 3000}');
    expect(gateway.reload(() => testConfig(gateway.yaml('{ budgets: [{ name: all, watts: 4000 }, { name: new, watts: 2000 }] }')))).toBe(true);
    expect(told(gateway).at(-1)?.map(({ name, watts }) => [name, watts])).toEqual([['all', 3_000], ['new', 2_000]]);
    expect(gateway.reload(() => testConfig(gateway.yaml('{ budgets: [{ name: all, watts: 1 }] }')))).toBe(false);
    expect(gateway.reload(() => testConfig(gateway.yaml('{ prices: { file: /nowhere.json } }')))).toBe(false);
    expect(told(gateway).at(-1)).toHaveLength(2);
    expect(gateway.reload(() => testConfig(gateway.yaml('{}')))).toBe(true);
    expect(told(gateway).at(-1)).toEqual([]);
    expect((await ask(gateway, 'GET', '')).body).toEqual({ budgets: [], prices: null });
  });
});

test('what a class is worth goes to the scheduler with its requests', async () => {
  const upstream = await createStubUpstream();
  const gateway = await startConfigured(testConfig(`replicas: [${replica('r0', upstream.url)}]\nslo: { classes: { gold: { ttftMs: 5000, worth: 5 }, plain: { ttftMs: 5000 } }, default: plain, tiers: { priority: gold } }\n`));
  opened.push(upstream, gateway);
  for (const tier of ['priority', 'default']) {
    await (await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'm', messages: [], service_tier: tier }) })).text();
  }
  expect(gateway.events.flatMap((event) => (event.kind === 'arrived' ? [event.job.worth] : []))).toEqual([5, 1]);
});

test('a budget reaches the devices as a limit of their power, which the scheduler hears of, and goes with the budget', async () => {
  const [upstream, agent] = [await createStubUpstream(), await createStubAgent()];
  agent.devices = [{ device: 'sim:0', controls: ['clock', 'power_limit'] }];
  const of = (power: string): string => `agent: { socket: ${agent.socketPath} }\nreplicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE}, devices: ['sim:0'] }]\npower: ${power}\n`;
  const gateway = await startConfigured(testConfig(of('{ budgets: [{ name: all, watts: 400 }] }')));
  opened.push(agent, upstream, gateway);
  await eventually(() => gateway.events.some((event) => event.kind === 'control' && typeof event.powerLimitW === 'number'));
  const limitMw = agent.limitPuts.at(-1)?.targets[0]?.power_limit_mw ?? 0;
  expect(limitMw).toBeGreaterThan(0);
  expect(limitMw).toBeLessThanOrEqual(400_000);
  expect(await (await fetch(`${gateway.adminUrl}/paceline/power`)).json()).toMatchObject({ budgets: [{ watts: 400, allottedW: expect.any(Number) }] });
  expect(await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()).toMatchObject({ agents: { agent: { powerLimits: 'held' } } });
  expect(gateway.reload(() => testConfig(of('{}')))).toBe(true);
  await eventually(() => agent.limitPuts.at(-1)?.targets[0]?.power_limit_mw === null);
});
