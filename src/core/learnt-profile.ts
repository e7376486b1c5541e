// What was learnt of a replica while it served, as a profile that the next start can begin with: rows of a grid of works, made from its
// model and the corrections. It is no measurement, and says so.
import type { PerformanceModel } from '../frontier/performance-model.ts';
import type { DecodeRow, OperatingPoint, PrefillRow, Profile } from '../frontier/profile.ts';
import type { Pricing } from './corrections.ts';

export interface LearntOf {
  readonly model: PerformanceModel;
  readonly priced: Pricing;
  /** Ids of the points that were seen at work; all others are the profile's, or a bound. */
  readonly seenPoints: readonly string[];
}

const PREFILL_GRID = [64, 256, 1024, 4096].flatMap((tokens) => [0, 4096].map((contextTokens) => ({ tokens, contextTokens })));
const DECODE_CONTEXTS = [256, 1024, 4096];

/** `at`: of now, for people. */
export function learntProfile({ model, priced, seenPoints }: LearntOf, at: string): Profile {
  const { profile } = model;
  const { maxSequences, kvTokens } = profile.serving;
  const decodeGrid = [1, 4, 16, 64, 256]
    .filter((sequences) => sequences <= maxSequences)
    .flatMap((sequences) => DECODE_CONTEXTS.map((each) => ({ sequences, contextTokens: sequences * each })))
    .filter(({ contextTokens }) => contextTokens <= kvTokens);
  const points: OperatingPoint[] = [];
  const prefill: PrefillRow[] = [];
  const decode: DecodeRow[] = [];
  for (const [index, point] of model.points.entries()) {
    const [prefills, decodes] = [
      PREFILL_GRID.map((work): PrefillRow => ({ point: point.id, ...work, timeMs: priced.prefillTimeMs(work, index), energyJ: priced.prefillEnergyJ(work, index) })),
      decodeGrid.map((work): DecodeRow => ({ point: point.id, ...work, timeMs: priced.decodeTimeMs(work, index), energyJ: priced.decodeEnergyJ(work, index) })),
    ];
    prefill.push(...prefills);
    decode.push(...decodes);
    // A profile that idles above what it draws at work would not be believed.
    const leastW = Math.min(...[...prefills, ...decodes].map(({ timeMs, energyJ }) => (1_000 * energyJ) / timeMs));
    points.push({ ...point, idlePowerW: Math.min(priced.idlePowerW(index), leastW) });
  }
  return {
    ...profile,
    points,
    prefill,
    decode,
    provenance: {
      ...profile.provenance,
      measuredBy: 'paceline, learned while serving',
      measuredAt: at,
      method: `Learned while serving from times of first tokens and of tokens, and from the devices' counters where they are read; begun with: ${profile.name} (${profile.provenance.method}). Points seen at work: ${seenPoints.length === 0 ? 'none' : seenPoints.join(', ')}; what is said of others is carried over from these.`,
      madeBy: 'GET /paceline/replicas/{id}/profile',
    },
  };
}
