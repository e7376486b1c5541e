// Three gateways over one fleet beside a single one: what they attain and take, and what the others feel when one of them is
// killed in mid-load, or Redis freezes.
import { setTimeout as delay } from 'node:timers/promises';
import { monotonicMs } from '../../src/engine/real-time.ts';
import { createEnergyMeter, energyBetween } from '../../src/loadgen/energy-meter.ts';
import type { EnergyReading } from '../../src/loadgen/energy-meter.ts';
import type { Outcome, Seen } from './checking-client.ts';
import type { LoadShape, Slo } from './open-load.ts';
import { attainmentOf, metSlo, planLoad, startLoad } from './open-load.ts';
import type { Rig } from './rig.ts';
import { signal, startRig } from './rig.ts';
import type { PlannedRequest } from './schedule.ts';

export interface FleetRun {
  readonly gateways: number;
  readonly requests: number;
  readonly attainment: number;
  readonly failed: number;
  readonly energyJ: number;
}

export interface FleetResult {
  readonly single: FleetRun;
  readonly three: FleetRun;
  /** Three over one, minus 1, in percent; attainment in points. */
  readonly attainmentDiffPct: number;
  readonly energyDiffPct: number;
  readonly redisFrozen: { readonly frozenMs: number; readonly requests: number; readonly failed: number; readonly attainment: number };
  readonly gatewayKilled: { readonly requests: number; readonly lostOfIts: number; readonly lostOfOthers: number; readonly attainmentOfOthers: number };
}

const SLO: Slo = { ttftMs: 1_500, tpotMs: 50 };
const PROFILE = 'config/profiles/llama-3.1-70b.h100-tp4.json';
const REPLICAS = 4;
const LOAD: Omit<LoadShape, 'name' | 'durationS'> = { seed: 1, ratePerS: 5, promptTokensMean: 500, outputTokensMean: 120, slo: SLO };
/** Gateways learn lengths and rates first. */
const WARM_S = 15;
const HUNG_AFTER_MS = 60_000;

export async function measureFleet({ seconds, onLine }: { readonly seconds: number; readonly onLine: (line: string) => void }): Promise<FleetResult> {
  const single = await inRig(1, (rig) => compared(rig, seconds));
  onLine(told(single));
  return inRig(3, async (rig) => {
    const three = await compared(rig, seconds);
    onLine(told(three));
    const redisFrozen = await whileRedisIsFrozen(rig);
    onLine(`Redis frozen for ${(redisFrozen.frozenMs / 1_000).toFixed(1)} s: ${redisFrozen.failed} of ${redisFrozen.requests} failed, ${percent(redisFrozen.attainment)} attained`);
    const gatewayKilled = await whileOneIsKilled(rig);
    onLine(`one of three killed: ${gatewayKilled.lostOfIts} streams of its own lost, ${gatewayKilled.lostOfOthers} of others; ${percent(gatewayKilled.attainmentOfOthers)} of all others attained`);
    return { single, three, attainmentDiffPct: 100 * (three.attainment - single.attainment), energyDiffPct: 100 * (three.energyJ / single.energyJ - 1), redisFrozen, gatewayKilled };
  });
}

async function inRig<T>(gateways: number, measure: (rig: Rig) => Promise<T>): Promise<T> {
  const rig = await startRig({ profile: PROFILE, nodes: [REPLICAS], gateways, servers: {}, config: {}, ttlMs: 3_000 });
  try {
    return await measure(rig);
  } finally {
    await rig.close();
  }
}

function urlsOf(rig: Rig): string[] {
  return rig.gateways.map(({ url }) => url);
}

function inTurn(rig: Rig): (request: PlannedRequest) => number {
  return ({ gateway }) => gateway % rig.gateways.length;
}

/** Energy and attainment over the same stretch of the same load, after the warm-up. */
async function compared(rig: Rig, seconds: number): Promise<FleetRun> {
  const meter = createEnergyMeter({ sockets: [rig.nodes[0]?.agentSocket ?? ''], devices: [], nowMs: () => performance.now() });
  try {
    const load = startLoad({ requests: planLoad({ ...LOAD, name: 'f', durationS: WARM_S + seconds }), urls: urlsOf(rig), gatewayOf: inTurn(rig), hungAfterMs: HUNG_AFTER_MS });
    const readAt = async (atMs: number): Promise<EnergyReading> => {
      await delay(load.startedAtMs + atMs - monotonicMs());
      return meter.read();
    };
    const before = await readAt(WARM_S * 1_000);
    const after = await readAt((WARM_S + seconds) * 1_000);
    await load.done;
    const energy = energyBetween(before, after);
    if (energy.kind === 'unknown') throw new Error(`the energy of the fleet is unknown: ${energy.why}`);
    const judged = load.seen.filter(({ request }) => request.atMs >= WARM_S * 1_000);
    return { gateways: rig.gateways.length, requests: judged.length, attainment: attainmentOf(judged, SLO), failed: judged.filter(failed).length, energyJ: (energy.energyJ / energy.windowS) * seconds };
  } finally {
    await meter.close();
  }
}

async function whileRedisIsFrozen(rig: Rig): Promise<FleetResult['redisFrozen']> {
  const load = startLoad({ requests: planLoad({ ...LOAD, name: 'r', seed: 2, durationS: 14 }), urls: urlsOf(rig), gatewayOf: inTurn(rig), hungAfterMs: HUNG_AFTER_MS });
  await delay(2_000);
  const { pid } = rig.redis.server();
  signal(pid, 'SIGSTOP');
  const fromMs = monotonicMs();
  await delay(10_000);
  signal(pid, 'SIGCONT');
  const frozenMs = monotonicMs() - fromMs;
  await load.done;
  return { frozenMs, requests: load.seen.length, failed: load.seen.filter(failed).length, attainment: attainmentOf(load.seen, SLO) };
}

/** Its clients go to the others from then on, as a load balancer would send them. */
async function whileOneIsKilled(rig: Rig): Promise<FleetResult['gatewayKilled']> {
  let killed = false;
  const [, ...others] = rig.gateways.keys();
  const gatewayOf = ({ gateway }: PlannedRequest): number => (killed ? (others[gateway % others.length] as number) : gateway % rig.gateways.length);
  const load = startLoad({ requests: planLoad({ ...LOAD, name: 'k', seed: 3, durationS: 14 }), urls: urlsOf(rig), gatewayOf, hungAfterMs: HUNG_AFTER_MS });
  await delay(6_000);
  killed = true;
  rig.gateways[0]?.kill();
  await load.done;
  const lost = load.seen.filter(failed);
  const kept = load.seen.filter((one) => !(one.gateway === 0 && failed(one)));
  return { requests: load.seen.length, lostOfIts: lost.filter(({ gateway }) => gateway === 0).length, lostOfOthers: lost.filter(({ gateway }) => gateway !== 0).length, attainmentOfOthers: kept.filter((one) => metSlo(one, SLO)).length / kept.length };
}

function failed({ outcome }: Seen): boolean {
  const whole: Outcome['kind'] = 'whole';
  return outcome.kind !== whole;
}

function told({ gateways, requests, attainment, failed: lost, energyJ }: FleetRun): string {
  return `${gateways === 1 ? 'one gateway' : `${gateways} gateways`}: ${requests} requests, ${percent(attainment)} attained, ${lost} failed, ${energyJ.toFixed(0)} J`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
