// Llama-3.1-70B in bf16 on four H100 SXM: busy-phase parameters recovered from a load-test table, and the profile they give.
// How they were recovered is `bench/profiles/calibrate-h100.ts`; the table itself is not carried here.
import type { Profile } from '../../../src/frontier/profile.ts';
import { kvBytesPerToken, kvTokensFitting } from './kv-memory.ts';
import type { Grid, PhysicalForm } from './physical-form.ts';
import { pointsAndRows, prefillTime, proportionalDecodeTime } from './physical-form.ts';
import type { MadeProfile } from './write-profile.ts';

/** What the inverse problem has as unknowns, at 1830 MHz and per device; another tensor-parallel degree is another set. */
export interface H100Parameters {
  readonly devices: number;
  readonly decodeStepMs: number;
  readonly perSequenceMs: number;
  /** SM-bound over memory-bound time of a decode step at the reference clock. */
  readonly computeRatio: number;
  readonly sharpness: number;
  readonly prefillFixedMs: number;
  readonly prefillPerTokenMs: number;
  /** Idle is `floor + clock·F²`: chosen within what is known, see `IDLE` below. */
  readonly idleFloorW: number;
  readonly idleClockW: number;
  /** Above idle, in decode of small batches: `load·F^exponent`. Large ones add `DECODE_BATCH`. */
  readonly decodeLoadW: number;
  readonly decodeClockExponent: number;
  /** Above idle, in a long prefill: `load·F^exponent`. The board limit cuts it. */
  readonly prefillLoadW: number;
  readonly prefillClockExponent: number;
}

/**
 * The load tests hardly pin the idle power: the GPUs were busy 70–100 % of the time, and anything from 110 to 290 W per device at
 * 1830 MHz fits their power within a median of 2 %. So it was set, not fitted: 80 W floor (an idle H200 draws ~80 W), 160 W at
 * 1830 MHz. Left free, the fit goes to 270 W; a larger device (B300) was measured at 182 W at 2032 MHz.
 */
const IDLE = { idleFloorW: 80, idleClockW: 80 };

/** Found by `bench/profiles/calibrate-h100.ts`, rounded; its errors are in `provenance.method` below. The prefill's exponent is held at 3. */
export const H100_TP4: H100Parameters = {
  devices: 4,
  decodeStepMs: 15.02,
  perSequenceMs: 0.0522,
  computeRatio: 0.789,
  sharpness: 5.6,
  prefillFixedMs: 9.95,
  prefillPerTokenMs: 0.05145,
  ...IDLE,
  decodeLoadW: 264,
  decodeClockExponent: 0.648,
  prefillLoadW: 1017,
  prefillClockExponent: 3,
};

/** The highest clock that the table has; every share of the clock is a share of it. */
export const H100_REFERENCE_MHZ = 1830;
const BOARD_LIMIT_W = 700;
/** What a large batch adds in decode, at the default clock. Source: ML.ENERGY benchmark v3, 70B on four H100, 216σ(0.9(log2 B − 7)) W. */
const DECODE_BATCH = { loadW: 216, clockMhz: 1980 };
/** Tokens at which a prefill draws half of what it adds at most. Assumed: the table holds one prompt length only. */
const PREFILL_HALF_LOAD_TOKENS = 128;

/** Llama-3.1-70B: 80 layers, 8 KV heads of 128, width 8192, 70.55 billion parameters. Source: its model card and configuration. */
const MEMORY = { devices: 4, deviceMemoryGib: 79.6, otherGib: 3.5, parameters: 70.55e9, bytesPerParameter: 2, layers: 80, kvHeads: 8, headDimension: 128, bytesPerElement: 2 };
/** HBM3 of an H100 SXM, data sheet, and the share of it that attention kernels reach (assumed). */
const HBM_BYTES_PER_MS = 3.35e9;
const HBM_SHARE = 0.85;
/** Attention of one token to one other: 4·width·layers operations, at 500 Tflop/s per device (assumed). */
const ATTENTION_OPERATIONS_PER_PAIR = 4 * 8192 * 80;
const ATTENTION_OPERATIONS_PER_MS = 5e11;

export function h100Form(parameters: H100Parameters): PhysicalForm {
  const { devices, idleFloorW, idleClockW } = parameters;
  const idlePowerW = (share: number): number => idleFloorW + idleClockW * share ** 2;
  const atReference = {
    baseMs: parameters.decodeStepMs,
    perSequenceMs: parameters.perSequenceMs,
    perContextTokenMs: kvBytesPerToken(MEMORY) / devices / (HBM_BYTES_PER_MS * HBM_SHARE),
  };
  return {
    devices,
    referenceMhz: H100_REFERENCE_MHZ,
    boardLimitW: BOARD_LIMIT_W,
    prefillTimeMs: prefillTime({
      fixedMs: parameters.prefillFixedMs,
      perTokenMs: parameters.prefillPerTokenMs,
      perTokenPairMs: ATTENTION_OPERATIONS_PER_PAIR / devices / ATTENTION_OPERATIONS_PER_MS,
    }),
    decodeTimeMs: proportionalDecodeTime(atReference, parameters.computeRatio, parameters.sharpness),
    idlePowerW,
    prefillPowerW: ({ tokens }, share) => idlePowerW(share) + (parameters.prefillLoadW * share ** parameters.prefillClockExponent * tokens) / (tokens + PREFILL_HALF_LOAD_TOKENS),
    decodePowerW: ({ sequences }, share) => {
      const batchW = DECODE_BATCH.loadW * ((share * H100_REFERENCE_MHZ) / DECODE_BATCH.clockMhz) ** parameters.decodeClockExponent;
      return idlePowerW(share) + parameters.decodeLoadW * share ** parameters.decodeClockExponent + batchW * batchLoadShare(sequences);
    },
  };
}

/** Share of `DECODE_BATCH` that a batch of so many sequences draws. */
export function batchLoadShare(sequences: number): number {
  return 1 / (1 + Math.exp(-0.9 * (Math.log2(sequences) - 7)));
}

/** 780 to 1830 MHz, the measured range, every fifth of the device's 15 MHz steps. Lower clocks were not measured and are left out. */
export const H100_GRID: Grid = {
  clocksMhz: Array.from({ length: 15 }, (_, index) => 780 + 75 * index),
  prefillTokens: [64, 256, 512, 1024, 2048, 4096, 8192],
  prefillContexts: [0, 4096, 16_384],
  decodeSequences: [1, 4, 16, 32, 64, 128, 256],
  decodeContextsEach: [256, 1024, 4096],
  kvTokens: kvTokensFitting(MEMORY),
};

export function h100Profile(parameters: H100Parameters, grid: Grid): Profile {
  return {
    format: 'paceline-profile/1',
    name: `llama-3.1-70b.h100-tp${parameters.devices}`,
    model: 'meta-llama/Llama-3.1-70B-Instruct',
    engine: { name: 'vllm' },
    deviceGroup: { device: 'NVIDIA H100 80GB HBM3 (SXM5, 700 W)', devices: parameters.devices, parallelism: `tensor ${parameters.devices}` },
    knobs: { clockMhz: { unit: 'MHz', description: 'Locked SM clock of every device of the group.' } },
    ...pointsAndRows(h100Form(parameters), grid),
    // The load tests gave no sign of time outside the kernels: left free, the fit put it at 0 to 0.6 ms and was no better. Nor did they ask for a constant in TTFT outside the iterations.
    launchOverheadMs: 0,
    switch: { latencyMs: 15, outlierMs: 480, outlierShare: 0.01 },
    serving: { maxBatchTokens: 2048, maxSequences: 256, kvTokens: grid.kvTokens },
    provenance: PROVENANCE,
  };
}

const PROVENANCE: Profile['provenance'] = {
  measuredBy: 'Not measured phase by phase: derived from load tests by the authors of BiScale (Purdue), published in a fork of vLLM.',
  measuredOn: 'H100 80 GB SXM5, tensor parallel 4, Llama-70B class, vLLM, 1023 tokens in and 99 out, locked SM clocks of 780, 1080, 1380, 1680 and 1830 MHz, 26 settings of clock and request rate. Model, unit of the clock and power as the sum over the GPUs are inferred, not stated there.',
  measuredAt: '2026-02-01 (date in the name of the source file)',
  method:
    'Inverse problem: a simulated engine under the same load, nine parameters moved until its power and its 99th percentiles of TTFT and TPOT meet the table. This profile on the emulated engine, against the 26 rows: power 1.0 % (largest 5.5 %), TPOT p99 3.2 % (12.7 %), TTFT p99 6.2 % (16.8 %), medians of absolute errors. The fit finds long prefills held at about 1560 MHz by the 700 W limit. Clocks between the five measured are interpolated by the form. Assumed, not fitted: idle power (80 + 80F² W per device, F = clock/1830 MHz; 110 to 290 W at 1830 MHz would fit as well), prefill load ~ F³, power of short prefills, power added by large batches (ML.ENERGY), KV read at 85 % of memory bandwidth, attention at 500 Tflop/s, chunks of 2048 tokens, switch times.',
  sources: [
    { title: 'DynamoLLM-style profile of a 70B model on H100', url: 'https://github.com/Louis-99/vllm-fork/blob/30913ae205690fd8ee1813d575082f25c5a96809/vllm/platforms/nvml_freq_modulator/dynamo_profile_data/extracted_result_Feb1_MS_dynamo_70b_h100.csv', licence: 'Apache-2.0', used: 'mean power, TTFT p99 and TPOT p99 of 26 load tests, as targets of the fit' },
    { title: 'ML.ENERGY benchmark v3', url: 'https://pypi.org/project/mlenergy-data/', licence: 'not checked (access to the data is by request); fitted figures only, no data copied', used: 'step time 15.28 + 0.107B ms at default clocks as a prior; power of large batches, 216σ(0.9(log2 B − 7)) W per device' },
  ],
  licence: 'Apache-2.0',
  madeBy: 'config/profiles/make/llama-3.1-70b.h100-tp4.ts',
};

export function llama70bOnH100(): MadeProfile {
  return { file: 'llama-3.1-70b.h100-tp4.json', profile: h100Profile(H100_TP4, H100_GRID) };
}
