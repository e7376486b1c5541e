// A profile of a replica of which nothing was measured: what any GPU is known to do, made from the list of its clocks. Below the
// waist, where a knob has a name. It is there to be corrected: `core/learned-model.ts` takes from it which point is faster, by how
// much at most, and what power does roughly; not how long anything takes.
import type { DecodeRow, OperatingPoint, PrefillRow, Profile } from '../frontier/profile.ts';

export interface StartingFacts {
  readonly name: string;
  readonly model: string;
  readonly engine: string;
  readonly device: string;
  readonly devices: number;
  /** As the devices list them, in any order; those they have in common. */
  readonly clocksMhz: readonly number[];
  /** Board limit of one device. */
  readonly powerLimitW: number;
  readonly serving: Profile['serving'];
}

/** Enough for a curve, few enough to be seen all in a while. */
const POINTS_MAX = 12;
/** Below this share of the highest clock nothing was ever cheaper in public sweeps: optima of busy energy lie at 0.47 (H100 NVL), 0.57 (A100) and 0.69 (V100) of it. */
const SLOWEST_SHARE = 0.4;
/**
 * Of the board limit, with F = clock over the highest clock: power = floor + clocks·F^1.6 + load·u·F^1.6, u the load, 1 in prefill. The form
 * and its proportions are those of a fit to a public H100 sweep: 130 + 216·F^1.6 + 355·u·F^1.6 W of 700 (source in the provenance below).
 */
const POWER = { floor: 0.19, clocks: 0.31, load: 0.5, exponent: 1.6, idleFloor: 0.13, idleClocks: 0.08 };
/** Faster than any model worth a GPU of its own: it must not look as if deadlines were lost that nobody knows anything of. */
const FASTEST_MS = { step: 3, perSequence: 0.01, perContextToken: 1e-5, prefillBase: 1, perPromptToken: 0.01 };

export function startingProfile({ name, model, engine, device, devices, clocksMhz, powerLimitW, serving }: StartingFacts): Profile {
  const clocks = fewOf(clocksMhz);
  const highest = clocks[0] as number;
  const limitW = powerLimitW * devices;
  const speed = (clockMhz: number): number => (clockMhz / highest) ** POWER.exponent;
  const points = clocks.map((clockMhz): OperatingPoint => ({ id: `c${clockMhz}`, knobs: { clockMhz }, idlePowerW: limitW * (POWER.idleFloor + POWER.idleClocks * speed(clockMhz)) }));
  const powerW = (clockMhz: number, load: number): number => limitW * (POWER.floor + (POWER.clocks + POWER.load * load) * speed(clockMhz));
  const prefill: PrefillRow[] = [];
  const decode: DecodeRow[] = [];
  for (const [index, clockMhz] of clocks.entries()) {
    // Nothing slows down by more than the clock does.
    const slower = highest / clockMhz;
    const { id } = points[index] as OperatingPoint;
    for (const [tokens, contextTokens] of [[64, 0], [512, 0], [2048, 0], [8192, 0], [2048, 4096]] as const) {
      const timeMs = (FASTEST_MS.prefillBase + FASTEST_MS.perPromptToken * tokens * (1 + 3e-5 * (tokens / 2 + contextTokens))) * slower;
      prefill.push({ point: id, tokens, contextTokens, timeMs, energyJ: (powerW(clockMhz, Math.min(1, tokens / 512)) * timeMs) / 1_000 });
    }
    for (const sequences of [1, 4, 16, 64, 256]) {
      for (const contextEach of [256, 2048]) {
        const timeMs = (FASTEST_MS.step + FASTEST_MS.perSequence * sequences + FASTEST_MS.perContextToken * sequences * contextEach) * slower;
        decode.push({ point: id, sequences, contextTokens: sequences * contextEach, timeMs, energyJ: (powerW(clockMhz, 0.1 + 0.05 * Math.log2(sequences)) * timeMs) / 1_000 });
      }
    }
  }
  return {
    format: 'paceline-profile/1',
    name,
    model,
    engine: { name: engine },
    deviceGroup: { device, devices },
    knobs: { clockMhz: { unit: 'MHz', description: 'Highest clock of every device of the group.' } },
    points,
    prefill,
    decode,
    launchOverheadMs: 0,
    switch: { latencyMs: 20, outlierMs: 480, outlierShare: 0.01 },
    serving,
    provenance: {
      measuredBy: 'nobody',
      measuredOn: device,
      measuredAt: 'never',
      method: 'Not measured: made from the list of clocks, to be learnt while serving. Times are placeholders; power has the form and proportions of a fit to public figures.',
      sources: [
        {
          title: 'DynamoLLM-style profile of a 70B model on H100',
          url: 'https://github.com/Louis-99/vllm-fork/blob/30913ae205690fd8ee1813d575082f25c5a96809/vllm/platforms/nvml_freq_modulator/dynamo_profile_data/extracted_result_Feb1_MS_dynamo_70b_h100.csv',
          licence: 'Apache-2.0',
          used: 'proportions of power over clock and load (tensor parallel 4): 130 + 216F^1.6 + 355uF^1.6 W per device of 700 W',
        },
      ],
      licence: 'Apache-2.0',
      madeBy: 'paceline',
    },
  };
}

/** The highest, and others spread evenly down to the slowest that is worth trying, each from the list; the highest first. */
function fewOf(clocksMhz: readonly number[]): readonly number[] {
  const listed = [...new Set(clocksMhz)].filter((clockMhz) => clockMhz > 0).sort((a, b) => b - a);
  const highest = listed[0];
  if (highest === undefined) throw new RangeError('a starting profile needs at least one clock, got an empty list');
  const useful = listed.filter((clockMhz) => clockMhz >= SLOWEST_SHARE * highest);
  if (useful.length <= POINTS_MAX) return useful;
  return Array.from({ length: POINTS_MAX }, (_, index) => useful[Math.round((index * (useful.length - 1)) / (POINTS_MAX - 1))] as number);
}
