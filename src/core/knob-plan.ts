// Which fleet for this load? Servers of several configurations (tensor-parallel degree, chunk size, whatever only a restart changes) on a
// number of devices: how many of each, how many of them awake, at which points and with which batch caps, for the least power.
import { createPerformanceModel, NO_DECODE, type PerformanceModel, type PointIndex } from '../frontier/performance-model.ts';
import type { Profile } from '../frontier/profile.ts';
import { type AwakeLoad, planAwake } from './awake-plan.ts';
import { plannedBatchCap } from './batch-cap-plan.ts';
import { evenScale } from './corrections.ts';
import { parkedPowerW } from './work-energy.ts';

export interface KnobSpace {
  /** One for each setting of the knobs that only a restart changes. */
  readonly configurations: readonly { readonly name: string; readonly profile: Profile }[];
  /** That the fleet has. */
  readonly devices: number;
  /** Tokens of a batch to look at beside each profile's own (vLLM's --max-num-batched-tokens); not where they are fewer than its sequences. */
  readonly batchTokens: readonly number[];
}

/** Servers that are alike in a fleet. */
export interface FleetPart {
  readonly name: string;
  readonly replicas: number;
  readonly awake: number;
  /** Of one that is awake; `null`: it idles parked. */
  readonly point: PointIndex | null;
  readonly model: PerformanceModel;
  readonly batchTokens: number;
  readonly batchCap: number;
  readonly perMsEach: number;
}

export interface FleetPlan {
  readonly parts: readonly FleetPart[];
  readonly devices: number;
  /** Expected, of all devices that it has; others are taken to be off, or somebody else's. */
  readonly powerW: number;
}

/** Fleets that are looked at; a space with more is refused, for what was left out could be the best. */
export const FLEETS_MAX = 20_000;

/** What a stream may wait beside a whole chunk, in output tokens of its own: an answer that is a quarter of the mean has it all to make good. */
const CHUNK_TOKENS_SHARE = 0.25;

export type KnobPlan =
  /** The cheapest first, one of each make-up of the fleet. */
  | { readonly kind: 'fleets'; readonly fleets: readonly FleetPlan[]; readonly looked: number }
  | { readonly kind: 'too-many'; readonly fleets: number };

/**
 * All make-ups of a fleet on these devices are looked at, each with every size of batch, its parts awake as `planAwake` says. A batch is
 * too large where one iteration full of prompts costs a short answer its TPOT. Fleets that cannot serve the load are left out.
 */
export function planKnobs({ configurations, devices, batchTokens }: KnobSpace, load: AwakeLoad): KnobPlan {
  const makeUps = makeUpsOf(configurations.map(({ profile }) => profile.deviceGroup.devices), devices);
  if (makeUps.length * (batchTokens.length + 1) > FLEETS_MAX) return { kind: 'too-many', fleets: makeUps.length * (batchTokens.length + 1) };
  const fleets: FleetPlan[] = [];
  let looked = 0;
  const variants = [null, ...batchTokens].map((tokens) => configurations.map(({ profile }) => variantOf(profile, tokens, load)));
  for (const counts of makeUps) {
    let best: FleetPlan | null = null;
    for (const models of variants) {
      looked += 1;
      const fleet = fleetOf(counts, configurations.map(({ name }) => name), models, load);
      if (fleet !== null && (best === null || fleet.powerW < best.powerW)) best = fleet;
    }
    if (best !== null) fleets.push(best);
  }
  return { kind: 'fleets', fleets: fleets.toSorted((a, b) => a.powerW - b.powerW || a.devices - b.devices), looked };
}

/** `null`: its batch may not have that size. */
function variantOf(profile: Profile, batchTokens: number | null, load: AwakeLoad): PerformanceModel | null {
  const { serving } = profile;
  if (batchTokens !== null && (batchTokens < serving.maxSequences || batchTokens === serving.maxBatchTokens)) return null;
  const model = createPerformanceModel(batchTokens === null ? profile : { ...profile, serving: { ...serving, maxBatchTokens: batchTokens } });
  const { maxBatchTokens } = model.profile.serving;
  const chunkMs = model.iterationTimeMs({ prefill: { tokens: Math.min(maxBatchTokens, Math.max(1, load.prefillTokensMean)), contextTokens: 0 }, decode: NO_DECODE }, model.fastest);
  return chunkMs <= CHUNK_TOKENS_SHARE * load.outputTokensMean * load.tpotMs ? model : null;
}

function fleetOf(counts: readonly number[], names: readonly string[], models: readonly (PerformanceModel | null)[], load: AwakeLoad): FleetPlan | null {
  const servers = counts.flatMap((replicas, index) => (replicas === 0 ? [] : [{ name: names[index] as string, replicas, model: models[index] ?? null }]));
  const kinds = servers.map(({ replicas, model }) => {
    if (model === null) return null;
    const timeScale = evenScale(model.points.length, { prefill: 1, decode: 1 });
    const { maxSequences } = model.profile.serving;
    const batchCap = plannedBatchCap(model, load, { timeScale, priced: model }, maxSequences);
    const { sleep } = model.profile;
    return { model, timeScale, priced: model, sequencesMax: batchCap, replicas, alwaysAwake: sleep === undefined ? replicas : 0, sleepPowerW: sleep?.powerW ?? parkedPowerW(model) };
  });
  const known = kinds.flatMap((kind) => kind ?? []);
  if (known.length < servers.length) return null;
  const plan = planAwake(known, load, 1);
  if (!plan.sustains) return null;
  return {
    parts: known.map(({ model, replicas, sequencesMax }, index) => ({
      name: (servers[index] as (typeof servers)[number]).name,
      replicas,
      awake: plan.awake[index] as number,
      point: plan.points[index] ?? null,
      model,
      batchTokens: model.profile.serving.maxBatchTokens,
      batchCap: sequencesMax,
      perMsEach: plan.perMsEach[index] as number,
    })),
    devices: known.reduce((sum, { model, replicas }) => sum + replicas * model.profile.deviceGroup.devices, 0),
    powerW: plan.powerW,
  };
}

/** How many servers of each size fit, at least one in all; the last size counts fastest. Stops beyond `FLEETS_MAX`. */
function makeUpsOf(sizes: readonly number[], devices: number): readonly (readonly number[])[] {
  let found: { readonly counts: readonly number[]; readonly left: number }[] = [{ counts: [], left: devices }];
  for (const size of sizes) {
    found = found.flatMap(({ counts, left }) => Array.from({ length: Math.floor(left / size) + 1 }, (_, count) => ({ counts: [...counts, count], left: left - count * size })));
    if (found.length > FLEETS_MAX + 1) break;
  }
  return found.filter(({ counts }) => counts.some((count) => count > 0)).map(({ counts }) => counts);
}
