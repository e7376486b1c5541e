// Llama-3.1-70B in bf16 on two, four or eight H100 SXM: parameters recovered from a table of load tests, and the profiles they
// give. How they were recovered is `bench/fidelity/calibrate.ts`; the table itself is not carried here.
import type { Profile } from '../../../src/frontier/profile.ts';
import { kvBytesPerToken, kvTokensFitting } from './kv-memory.ts';
import type { Grid, PhysicalForm } from './physical-form.ts';
import { pointsAndRows, prefillTime, slower } from './physical-form.ts';
import type { MadeProfile } from './write-profile.ts';

/** Tensor-parallel degrees that the load tests had. One device cannot hold the weights; sixteen are two machines and another interconnect. */
export const H100_DEGREES = [2, 4, 8] as const;
export type H100Degree = (typeof H100_DEGREES)[number];

/**
 * What the inverse problem has as unknowns: one set for every degree. Times are at 1830 MHz, watts are per device. What a
 * degree changes follows from what is divided (weights, operations) and what is exchanged (an all-reduce twice per layer).
 */
export interface H100Parameters {
  /** A pass over all weights on one device; n devices take an n-th of it. */
  readonly weightPassMs: number;
  /** Share of the SM-bound time of that pass in its memory-bound time. */
  readonly computeRatio: number;
  /** How sharply the slower of the two takes over. */
  readonly sharpness: number;
  /** Sampling and the like, which no degree divides. */
  readonly perSequenceMs: number;
  /** All all-reduces of a decode step: with one peer, and per further peer. */
  readonly exchangeMs: number;
  readonly exchangePerPeerMs: number;
  /** Launches and small kernels of a pass with prompt tokens; no clock changes it. */
  readonly prefillFixedMs: number;
  /** Operations of one token on one device; n devices take an n-th of it. */
  readonly prefillPerTokenMs: number;
  /** Exchanging one token's activations, times 2(n − 1)/n as in a ring. */
  readonly prefillExchangePerTokenMs: number;
  /** Share of every exchange that follows the SM clock, on which its kernels run; the links have a clock of their own. */
  readonly exchangeClockShare: number;
  /** Dynamic power follows `linear·F + (1 − linear)·F³`: a voltage that stops falling at low clocks. */
  readonly linearShare: number;
  /** Above idle while a small batch reads the weights: what follows the memory, and what follows the SM clock. */
  readonly decodeMemoryW: number;
  readonly decodeLoadW: number;
  /** Above idle in a long prefill. The board limit cuts it. */
  readonly prefillLoadW: number;
  /** Share of the power above idle that remains while devices exchange. */
  readonly exchangeLoadShare: number;
}

/** Found by `bench/fidelity/calibrate.ts`, rounded. */
export const H100_LLAMA_70B: H100Parameters = {
  weightPassMs: 45.9,
  computeRatio: 0.782,
  sharpness: 5.03,
  perSequenceMs: 0.0517,
  exchangeMs: 2,
  exchangePerPeerMs: 0.668,
  prefillFixedMs: 7.69,
  prefillPerTokenMs: 0.169,
  prefillExchangePerTokenMs: 0.0122,
  exchangeClockShare: 0.492,
  linearShare: 0.521,
  decodeMemoryW: 112,
  decodeLoadW: 260,
  prefillLoadW: 1110,
  exchangeLoadShare: 0.075,
};

/**
 * Set, not fitted, within what the rows with the most idle time allow (eight devices, 780 MHz, half a request per second: about
 * 90 W): 80 W floor (an idle H200 draws ~80 W), 160 W at 1830 MHz. A larger device (B300) was measured at 182 W at 2032 MHz.
 */
const IDLE = { floorW: 80, clockW: 80 };

/** The highest clock that the table has; every share of the clock is a share of it. */
export const H100_REFERENCE_MHZ = 1830;
const BOARD_LIMIT_W = 700;
/** What a large batch adds in decode, at the default clock. Source: ML.ENERGY benchmark v3, 70B on four H100, 216σ(0.9(log2 B − 7)) W. */
const DECODE_BATCH = { loadW: 216, clockMhz: 1980 };
/** Tokens at which a prefill draws half of what it adds at most. Assumed: the table holds one prompt length only. */
const PREFILL_HALF_LOAD_TOKENS = 128;

/** Llama-3.1-70B: 80 layers, 8 KV heads of 128, width 8192, 70.55 billion parameters. Source: its model card and configuration. */
const MEMORY = { deviceMemoryGib: 79.6, parameters: 70.55e9, bytesPerParameter: 2, layers: 80, kvHeads: 8, headDimension: 128, bytesPerElement: 2 };
/**
 * What the engine needs beside weights and cache, per device, estimated. On two devices that would leave room for fourteen of the
 * table's requests, and first tokens would wait for it as they do not in the table: it must be less there.
 */
const OTHER_GIB: Readonly<Record<H100Degree, number>> = { 2: 2, 4: 3.5, 8: 3.5 };
/** HBM3 of an H100 SXM, data sheet, and the share of it that attention kernels reach (assumed). */
const HBM_BYTES_PER_MS = 3.35e9;
const HBM_SHARE = 0.85;
/** Attention of one token to one other: 4·width·layers operations, at 500 Tflop/s per device (assumed). */
const ATTENTION_OPERATIONS_PER_PAIR = 4 * 8192 * 80;
const ATTENTION_OPERATIONS_PER_MS = 5e11;

/** The form on `devices` devices; the parameters are the same for each of the degrees. */
export function h100Form(parameters: H100Parameters, devices: H100Degree): PhysicalForm {
  const { computeRatio, sharpness, linearShare, exchangeLoadShare, exchangeClockShare } = parameters;
  const weightPassMs = parameters.weightPassMs / devices;
  const exchangeMs = parameters.exchangeMs + parameters.exchangePerPeerMs * (devices - 2);
  const perContextTokenMs = kvBytesPerToken(MEMORY) / devices / (HBM_BYTES_PER_MS * HBM_SHARE);
  const perTokenMs = parameters.prefillPerTokenMs / devices;
  const exchangePerTokenMs = (parameters.prefillExchangePerTokenMs * 2 * (devices - 1)) / devices;
  // Devices that wait for each other burn little: a phase is as hungry as its share of work is large.
  const loadShare = (workMs: number, waitMs: number): number => (workMs + exchangeLoadShare * waitMs) / (workMs + waitMs);
  const decodeShare = loadShare(weightPassMs, exchangeMs);
  const prefillShare = loadShare(perTokenMs, exchangePerTokenMs);

  const compute = prefillTime({ fixedMs: parameters.prefillFixedMs, perTokenMs, perTokenPairMs: ATTENTION_OPERATIONS_PER_PAIR / devices / ATTENTION_OPERATIONS_PER_MS });
  const exchangeStretch = (share: number): number => exchangeClockShare / share + 1 - exchangeClockShare;
  const atOne = slower([1, computeRatio], sharpness);
  const idlePowerW = (share: number): number => IDLE.floorW + IDLE.clockW * share ** 2;
  const dynamic = (share: number): number => linearShare * share + (1 - linearShare) * share ** 3;
  return {
    devices,
    referenceMhz: H100_REFERENCE_MHZ,
    boardLimitW: BOARD_LIMIT_W,
    prefillTimeMs: (work, share) => compute(work, share) + exchangePerTokenMs * work.tokens * exchangeStretch(share),
    decodeTimeMs: ({ sequences, contextTokens }, share) => {
      const memoryMs = weightPassMs + parameters.perSequenceMs * sequences + perContextTokenMs * contextTokens;
      return (memoryMs * slower([1, computeRatio / share], sharpness)) / atOne + exchangeMs * exchangeStretch(share);
    },
    idlePowerW,
    prefillPowerW: ({ tokens }, share) => idlePowerW(share) + (parameters.prefillLoadW * prefillShare * dynamic(share) * tokens) / (tokens + PREFILL_HALF_LOAD_TOKENS),
    decodePowerW: ({ sequences }, share) => {
      const batchW = DECODE_BATCH.loadW * dynamic((share * H100_REFERENCE_MHZ) / DECODE_BATCH.clockMhz) * batchLoadShare(sequences);
      return idlePowerW(share) + (parameters.decodeMemoryW + parameters.decodeLoadW * dynamic(share)) * decodeShare + batchW;
    },
  };
}

/** Share of `DECODE_BATCH` that a batch of so many sequences draws. */
function batchLoadShare(sequences: number): number {
  return 1 / (1 + Math.exp(-0.9 * (Math.log2(sequences) - 7)));
}

/** 780 to 1830 MHz, the measured range, every fifth of the device's 15 MHz steps. Lower clocks were not measured and are left out. */
export const H100_CLOCKS_MHZ: readonly number[] = Array.from({ length: 15 }, (_, index) => 780 + 75 * index);

function h100Grid(devices: H100Degree, clocksMhz: readonly number[]): Grid {
  return {
    clocksMhz,
    prefillTokens: [64, 256, 512, 1024, 2048, 4096, 8192],
    prefillContexts: [0, 4096, 16_384],
    decodeSequences: [1, 4, 16, 32, 64, 128, 256],
    decodeContextsEach: [256, 1024, 4096],
    kvTokens: kvTokensFitting({ ...MEMORY, devices, otherGib: OTHER_GIB[devices] }),
  };
}

/** With the shipped parameters and clocks, what ships; with others, what a calibration tries. */
export function h100Profile(devices: H100Degree, parameters: H100Parameters = H100_LLAMA_70B, clocksMhz: readonly number[] = H100_CLOCKS_MHZ): Profile {
  const grid = h100Grid(devices, clocksMhz);
  return {
    format: 'paceline-profile/1',
    name: `llama-3.1-70b.h100-tp${devices}`,
    model: 'meta-llama/Llama-3.1-70B-Instruct',
    engine: { name: 'vllm' },
    deviceGroup: { device: 'NVIDIA H100 80GB HBM3 (SXM5, 700 W)', devices, parallelism: `tensor ${devices}` },
    knobs: { clockMhz: { unit: 'MHz', description: 'Locked SM clock of every device of the group.' } },
    ...pointsAndRows(h100Form(parameters, devices), grid),
    // The load tests gave no sign of time outside the kernels: left free, the fit put it at 0 to 0.6 ms and was no better. Nor did they ask for a constant in TTFT outside the iterations.
    launchOverheadMs: 0,
    switch: { latencyMs: 15, outlierMs: 480, outlierShare: 0.01 },
    serving: { maxBatchTokens: 2048, maxSequences: 256, kvTokens: grid.kvTokens },
    provenance: provenance(devices),
  };
}

/** Rows that the table has of each degree. */
const ROWS: Readonly<Record<H100Degree, number>> = { 2: 13, 4: 26, 8: 27 };

function provenance(devices: H100Degree): Profile['provenance'] {
  return {
    measuredBy: 'Not measured phase by phase: derived from load tests by the authors of BiScale (Purdue), published in a fork of vLLM.',
    measuredOn: `H100 80 GB SXM5, tensor parallel 2, 4 and 8 (${ROWS[devices]} of 66 settings of clock and request rate are of ${devices}), Llama-70B class, vLLM, 1023 tokens in and 99 out, locked SM clocks of 780, 1080, 1380, 1680 and 1830 MHz. Model, unit of the clock and power as the sum over the GPUs are inferred, not stated there.`,
    measuredAt: '2026-02-01 (date in the name of the source file)',
    method:
      'Inverse problem: the emulated engine under the same load, fifteen parameters, one set for all three degrees, moved until its power and its 99th percentiles of TTFT and TPOT meet the table; bench/results/fidelity has the errors. Clocks between the five measured are interpolated by the form. Assumed, not fitted: idle power (80 + 80F² W per device, F = clock/1830 MHz), power of short prefills, power added by large batches (ML.ENERGY), KV read at 85 % of memory bandwidth, attention at 500 Tflop/s, chunks of 2048 tokens, load tests of 200 requests, switch times.',
    sources: [
      { title: 'DynamoLLM-style profile of a 70B model on H100', url: 'https://github.com/Louis-99/vllm-fork/blob/30913ae205690fd8ee1813d575082f25c5a96809/vllm/platforms/nvml_freq_modulator/dynamo_profile_data/extracted_result_Feb1_MS_dynamo_70b_h100.csv', licence: 'Apache-2.0', used: 'mean power, TTFT p99 and TPOT p99 of 66 load tests, as targets of the fit' },
      { title: 'ML.ENERGY benchmark v3', url: 'https://pypi.org/project/mlenergy-data/', licence: 'not checked (access to the data is by request); fitted figures only, no data copied', used: 'step time 15.28 + 0.107B ms and power of small batches, 433 W per device, at default clocks on four devices, as priors; power of large batches, 216σ(0.9(log2 B − 7)) W per device' },
    ],
    licence: 'Apache-2.0',
    madeBy: 'config/profiles/make/llama-3.1-70b.h100.ts',
  };
}

export function llama70bOnH100(devices: H100Degree): MadeProfile {
  return { file: `llama-3.1-70b.h100-tp${devices}.json`, profile: h100Profile(devices) };
}
