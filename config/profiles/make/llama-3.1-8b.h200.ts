// Llama-3.1-8B in bf16 on one H200: kernel times measured at default clocks; how they follow the clock is borrowed from the H100.
import type { Profile } from '../../../src/frontier/profile.ts';
import { kvTokensFitting } from './kv-memory.ts';
import type { Grid, PhysicalForm } from './physical-form.ts';
import { pointsAndRows, prefillTime, proportionalDecodeTime, settledAt } from './physical-form.ts';
import type { MadeProfile } from './write-profile.ts';

/** The default clock of an H200: what an unlocked device runs at while its power allows. */
const REFERENCE_MHZ = 1980;
/** Long prefill kernels were measured at 618–685 W: the 700 W limit holds the board a little below itself. */
const BOARD_LIMIT_W = 685;

/** Sums of kernel times at default clocks; errors of these fits 2.0 % and 1.4 % (prefill from 512 tokens). Milliseconds. */
const DECODE_AT_DEFAULT = { baseMs: 4.26, perSequenceMs: 0.0114, perContextTokenMs: 2.9e-5 };
const PREFILL_AT_DEFAULT = { fixedMs: 0.84, perTokenMs: 0.0205, perTokenSquaredMs: 4.8e-7 };

/** Borrowed: SM-bound over memory-bound time of a decode step, as a 70B model on four H100 showed, its exchange between devices included. */
const CLOCK_DEPENDENCE = { computeRatio: 0.789, sharpness: 5.6 };

/** Measured: ~80 W idle at its lowest clock. Assumed: the part that follows the clock, as for the H100 at equal clocks. */
const IDLE_FLOOR_W = 80;
const IDLE_CLOCK_W = 80 * (REFERENCE_MHZ / 1830) ** 2;
/** Decode kernels back to back, measured at default clocks: 305 W with one sequence, 545 W with 256; by doublings between. */
const DECODE_ONE_W = 305;
const DECODE_PER_DOUBLING_W = 30;
/** Assumed: a long prefill would pass the limit above this clock. Reported: 1830 MHz does not hold, 1500 does. */
const LARGEST_PREFILL_CLOCK_SHARE = 1665 / REFERENCE_MHZ;
const PREFILL_CLOCK_EXPONENT = 2.5;
/** Small chunks draw less; assumed. */
const PREFILL_HALF_LOAD_TOKENS = 32;

function idlePowerW(share: number): number {
  return IDLE_FLOOR_W + IDLE_CLOCK_W * share ** 2;
}

function h200Form(): PhysicalForm {
  const longPrefillLoadW = (BOARD_LIMIT_W - idlePowerW(LARGEST_PREFILL_CLOCK_SHARE)) / LARGEST_PREFILL_CLOCK_SHARE ** PREFILL_CLOCK_EXPONENT;
  const prefillPowerW: PhysicalForm['prefillPowerW'] = ({ tokens }, share) => idlePowerW(share) + (longPrefillLoadW * share ** PREFILL_CLOCK_EXPONENT * tokens) / (tokens + PREFILL_HALF_LOAD_TOKENS);
  // The times were measured at the clock that the limit left: the times at the reference clock, never reached, are shorter.
  const measuredShare = settledAt(BOARD_LIMIT_W, (share) => prefillPowerW({ tokens: 4096, contextTokens: 0 }, share), 1).clockShare;
  return {
    devices: 1,
    referenceMhz: REFERENCE_MHZ,
    boardLimitW: BOARD_LIMIT_W,
    prefillTimeMs: prefillTime({
      fixedMs: PREFILL_AT_DEFAULT.fixedMs,
      perTokenMs: PREFILL_AT_DEFAULT.perTokenMs * measuredShare,
      perTokenPairMs: 2 * PREFILL_AT_DEFAULT.perTokenSquaredMs * measuredShare,
    }),
    decodeTimeMs: proportionalDecodeTime(DECODE_AT_DEFAULT, CLOCK_DEPENDENCE.computeRatio, CLOCK_DEPENDENCE.sharpness),
    idlePowerW,
    prefillPowerW,
    decodePowerW: ({ sequences }, share) => idlePowerW(share) + (DECODE_ONE_W + DECODE_PER_DOUBLING_W * Math.log2(Math.min(sequences, 256)) - idlePowerW(1)) * share ** 1.5,
  };
}

/** Llama-3.1-8B: 32 layers, 8 KV heads of 128, 8.03 billion parameters. Source: its model card and configuration. */
const KV_TOKENS = kvTokensFitting({ devices: 1, deviceMemoryGib: 140.4, otherGib: 3, parameters: 8.03e9, bytesPerParameter: 2, layers: 32, kvHeads: 8, headDimension: 128, bytesPerElement: 2 });

const GRID: Grid = {
  clocksMhz: [780, 870, 960, 1050, 1140, 1230, 1320, 1410, 1500, 1590, 1680, 1770, 1830, 1905, 1980],
  prefillTokens: [64, 256, 512, 1024, 2048, 4096, 8192],
  prefillContexts: [0, 4096, 16_384],
  decodeSequences: [1, 4, 16, 64, 128, 256],
  decodeContextsEach: [256, 1024, 4096],
  kvTokens: KV_TOKENS,
};

const PROVENANCE: Profile['provenance'] = {
  measuredBy: 'NVIDIA (AIConfigurator): kernel times and board power. Clock dependence: nobody, see method.',
  measuredOn: 'H200 SXM 141 GB, vLLM 0.22.0 kernels in bf16, default clocks (no lock recorded), limit 700 W.',
  measuredAt: '2026 (vLLM 0.22.0)',
  method:
    'Kernel times summed over the layers of the model and fitted at default clocks: decode 4.26 + 0.0114B + 2.9e-5·KV ms (2.0 %), prefill 0.84 + 0.0205n + 4.8e-7n² ms (1.4 %, n >= 512; shorter passes are extrapolated and come out below the 4.3 ms of a pass over the weights). The clock dependence is borrowed, not measured: in decode the ratio of SM-bound to memory-bound time found for a 70B model on four H100, in prefill 1/clock. Power: measured ends (prefill 618–685 W, decode 305–545 W with kernels back to back; a running engine was reported at 137–300 W), clock exponents 2.5 and 1.5 assumed; a long prefill is assumed to be held at 1665 MHz by the limit (reported: 1830 MHz does not hold, 1500 does). Idle: 80 W floor measured, the part that follows the clock assumed. Launch overhead from an H100 (ML.ENERGY, 6.20 ms against 6.10 ms scaled by bandwidth). Switch times from other devices.',
  sources: [
    { title: 'AIConfigurator kernel measurements, h200_sxm, vllm 0.22.0', url: 'https://github.com/ai-dynamo/aiconfigurator/tree/095f58a51c4ca8e61b66ec108d86f223f8d559ce', licence: 'Apache-2.0', used: 'times and power of GEMM and attention kernels' },
    { title: 'The Illusion of Power Capping in LLM Decode', url: 'https://arxiv.org/abs/2605.11999', licence: 'CC-BY-4.0', used: 'decode power in a running engine, as a cross-check' },
    { title: 'Llama-3.1-70B on four H100 (the profile beside this one)', url: 'llama-3.1-70b.h100-tp4.json', licence: 'Apache-2.0', used: 'clock dependence of decode, and of idle power' },
  ],
  licence: 'Apache-2.0',
  madeBy: 'config/profiles/make/llama-3.1-8b.h200.ts',
};

export function llama8bOnH200(): MadeProfile {
  const profile: Profile = {
    format: 'paceline-profile/1',
    name: 'llama-3.1-8b.h200',
    model: 'meta-llama/Llama-3.1-8B-Instruct',
    engine: { name: 'vllm', version: '0.22.0' },
    deviceGroup: { device: 'NVIDIA H200 (SXM, 141 GB, 700 W)', devices: 1 },
    knobs: { clockMhz: { unit: 'MHz', description: 'Locked SM clock.' } },
    ...pointsAndRows(h200Form(), GRID),
    // An H100 running vLLM takes 6.20 ms at the same intercept (ML.ENERGY); 4.26 ms scaled by bandwidth, 4.8/3.35 TB/s, is 6.10.
    launchOverheadMs: 0.1,
    switch: { latencyMs: 15, outlierMs: 480, outlierShare: 0.01 },
    serving: { maxBatchTokens: 8192, maxSequences: 256, kvTokens: KV_TOKENS },
    provenance: PROVENANCE,
  };
  return { file: 'llama-3.1-8b.h200.json', profile };
}
