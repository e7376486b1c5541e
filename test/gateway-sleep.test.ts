// A whole gateway in front of emulated servers that sleep: who is not needed sleeps, who is needed wakes, and nobody is left asleep.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Config } from '../src/config.ts';
import { ConfigError } from '../src/config/config-problems.ts';
import type { ReplicaId } from '../src/core/job.ts';
import { type Emulator, startEmulator } from '../src/engine/emulator.ts';
import type { Profile } from '../src/frontier/profile.ts';
import { createGateway } from '../src/gateway.ts';
import { specsOf } from '../src/gateway-replicas.ts';
import { fixtureProfile } from './engine/fixture-profile.ts';
import { eventually, type GatewayUnderTest, startConfigured, testConfig } from './fixtures/gateway-under-test.ts';

const SLEEP = { powerW: 20, sleepMs: 20, wakeMs: 100, wakeEnergyJ: 5 };
const PROFILE: Profile = fixtureProfile();
let directory: string;
const opened: { close(): Promise<void> }[] = [];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-gateway-sleep-'));
  writeFileSync(join(directory, 'profile.json'), JSON.stringify(PROFILE));
});
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
  rmSync(directory, { recursive: true, force: true });
});

const SAID = '{ powerW: 20, sleepMs: 20, wakeMs: 100, wakeEnergyJ: 5 }';

async function emulated(profile: Profile = { ...PROFILE, sleep: SLEEP }): Promise<Emulator> {
  const emulator = await startEmulator({ profile, replicas: 2, host: '127.0.0.1', port: 0, deviceDir: join(directory, 'devices'), seed: 1 });
  opened.push(emulator);
  return emulator;
}

function configOf(urls: readonly string[], { sleep = SAID, settings = '{}', more = '' }: { readonly sleep?: string; readonly settings?: string; readonly more?: string } = {}) {
  return testConfig(`replicas:\n${urls.map((url, index) => `  - { id: r${index}, url: '${url}', models: [m], profile: ${join(directory, 'profile.json')}, concurrencyMax: 2, sleep: ${sleep}, settings: ${settings} }`).join('\n')}\n${more}`);
}

async function gatewayOf({ replicas }: Emulator, options: Parameters<typeof configOf>[1] = {}): Promise<GatewayUnderTest> {
  const gateway = await startConfigured(configOf(replicas.map(({ url }) => url), options));
  opened.push(gateway);
  return gateway;
}

const sleeps = (url: string | undefined): Promise<boolean> => fetch(`${url}/is_sleeping`).then(async (answer) => ((await answer.json()) as { is_sleeping: boolean }).is_sleeping);
const chat = (url: string, outputTokens: number): Promise<Response> =>
  fetch(`${url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hi' }], metadata: { emulate_output_tokens: String(outputTokens) } }) });
const restOf = async (gateway: GatewayUnderTest): Promise<(string | undefined)[]> => {
  const status = (await (await fetch(`${gateway.adminUrl}/paceline/status`)).json()) as { replicas: { rest?: string }[] };
  return status.replicas.map(({ rest }) => rest);
};

test('a server that nobody needs sleeps, is woken for requests that have no place, and is woken at the end', async () => {
  const emulator = await emulated({ ...PROFILE, model: 'm', sleep: SLEEP });
  const gateway = await gatewayOf(emulator);
  const [first, second] = emulator.replicas.map(({ url }) => url);
  await eventually(() => sleeps(second), 10_000);
  expect([await sleeps(first), await restOf(gateway)]).toEqual([false, ['awake', 'asleep']]);
  expect(await (await fetch(`${gateway.adminUrl}/metrics`)).text()).toContain('paceline_replica_rest{replica="r1",state="asleep"} 1');
  const answers = await Promise.all([400, 400, 4, 4].map((outputTokens) => chat(gateway.url, outputTokens)));
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
  expect(gateway.events.filter((event) => event.kind === 'replica-rest' && event.replicaId === 'r1').map((event) => 'state' in event && event.state)).toEqual(['awake', 'asleep', 'awake']);
  await Promise.all(answers.map((answer) => answer.text()));
  await eventually(() => sleeps(second), 10_000);
  await gateway.close();
  opened.splice(opened.indexOf(gateway), 1);
  expect(await sleeps(second)).toBe(false);
}, 40_000);

test('a server that is found asleep gets nothing until it is woken', async () => {
  const emulator = await emulated({ ...PROFILE, model: 'm', sleep: SLEEP });
  for (const { url } of emulator.replicas) await fetch(`${url}/sleep`, { method: 'POST' });
  const gateway = await gatewayOf(emulator);
  expect((await chat(gateway.url, 2)).status).toBe(200);
  expect(await Promise.all(emulator.replicas.map(({ url }) => sleeps(url)))).toContain(false);
}, 20_000);

test('a server without the mode serves on, and is asked once', async () => {
  const emulator = await emulated({ ...PROFILE, model: 'm' });
  const gateway = await gatewayOf(emulator);
  await eventually(async () => (await restOf(gateway)).every((rest) => rest === undefined));
  expect((await chat(gateway.url, 2)).status).toBe(200);
  expect(gateway.events.filter((event) => event.kind === 'replica-rest').map((event) => 'state' in event && event.state)).toEqual(['cannot', 'cannot']);
}, 20_000);

test('of a profile of several servers the one is taken whose settings are given, and none where that is not one', async () => {
  const twice = { ...PROFILE, knobs: { ...PROFILE.knobs, degree: { unit: 'devices', changes: 'restart' as const } } };
  const points = [2, 4].flatMap((degree) => PROFILE.points.map((point) => ({ ...point, id: `${degree}-${point.id}`, knobs: { ...point.knobs, degree } })));
  const rows = <Row extends { readonly point: string }>(of: readonly Row[]): readonly Row[] => [2, 4].flatMap((degree) => of.map((row) => ({ ...row, point: `${degree}-${row.point}` })));
  writeFileSync(join(directory, 'profile.json'), JSON.stringify({ ...twice, points, prefill: rows(PROFILE.prefill), decode: rows(PROFILE.decode) }));
  const [one, second] = [2, 4].map((degree) => configOf(['http://127.0.0.1:9'], { settings: `{ degree: ${degree} }` }));
  expect(specsOf(one as Config).flatMap(({ belief }) => belief.points.map(({ knobs }) => knobs['degree']))).toEqual(PROFILE.points.map(() => 2));
  const both = { ...(one as Config), replicas: [...(one as Config).replicas, { ...(second as Config).replicas[0], id: 'other' as ReplicaId }] } as Config;
  expect(specsOf(both).map(({ belief }) => belief.points[0]?.knobs['degree']), 'they share the file and not the belief').toEqual([2, 4]);
  const refused = async (settings: string | undefined, says: RegExp): Promise<void> => expect(createGateway(configOf(['http://127.0.0.1:9'], settings === undefined ? {} : { settings }))).rejects.toThrow(says);
  await refused(undefined, /settings of replica 'r0': .*profile\.json has 2 configurations that only a restart changes \(degree 2; degree 4\); want the settings that this server runs with/);
  await refused('{ degree: 3 }', /has no configuration with degree 3; it has: degree 2; degree 4/);
  await refused('{ chunk: 3 }', /has no 'chunk' that only a restart changes; there is degree/);
});

describe('a configuration of sleep', () => {
  test.each([
    { name: 'without its costs, in the profile or here', sleep: '{}', says: /sleep of replica 'r0': powerW, sleepMs, wakeMs missing; fixture-8b does not say/ },
    { name: 'that draws more than idling', sleep: '{ powerW: 900, sleepMs: 1, wakeMs: 1 }', says: /replica 'r0': sleep.powerW: got 900, above the .* W that the group idles at/ },
  ])('$name is refused', async ({ sleep, says }) => {
    const config = configOf(['http://127.0.0.1:9'], { sleep });
    await expect(createGateway(config)).rejects.toThrow(ConfigError);
    await expect(createGateway(config)).rejects.toThrow(says);
  });

  test('is refused with a level from which nothing comes back, and beside a store', () => {
    expect(() => configOf(['http://127.0.0.1:9'], { sleep: '{ level: 2 }' })).toThrow(/replicas\[0\].sleep.level/);
    expect(() => configOf(['http://127.0.0.1:9'], { more: "store: { redisUrl: 'redis://127.0.0.1:1' }" })).toThrow(/replicas\[0\].sleep: there is a `store`/);
  });
});
