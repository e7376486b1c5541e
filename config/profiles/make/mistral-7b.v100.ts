// Mistral-7B in fp16 on one V100: a clock sweep of each phase by itself, which is what a profile wants to be made of.
import type { Profile } from '../../../src/frontier/profile.ts';
import { kvBytesPerToken, kvTokensFitting } from './kv-memory.ts';
import type { Grid, PhysicalForm } from './physical-form.ts';
import { pointsAndRows, prefillTime, slower } from './physical-form.ts';
import type { MadeProfile } from './write-profile.ts';

/** The highest clock of the sweep; every share of the clock is a share of it. */
const REFERENCE_MHZ = 1300;

/** The sweep's prefill took 0.0316 s + 1993/f (f in MHz), error 0.4 %: one fixed batch, whose size is not stated. */
const PREFILL_FIXED_MS = 31.6;
const PREFILL_MS_MHZ = 1_993_000;
/** Assumed size of that batch. 4096 tokens make 39 Tflop/s at 1300 MHz, a plausible third of the V100's peak there. */
const PREFILL_TOKENS_ASSUMED = 4096;
/** Operations per token outside attention (twice the parameters), and per pair of tokens in attention (4·width·layers). */
const OPERATIONS_PER_TOKEN = 2 * 7.24e9;
const OPERATIONS_PER_PAIR = 4 * 4096 * 32;

/** Decode of one sequence: flat, 25.5–26.5 ms above 850 MHz, then 28.9 ms at 800 and 34.2 ms at 750: a knee steeper than 1/clock. */
const ONE_SEQUENCE = { memoryMs: 25.4, kneeMs: 8.15, kneeExponent: 2.6, sharpness: 12 };
/** Decode of 64 sequences: ~ clock^-0.98. Its time is not stated; 48 ms at 1300 MHz (1330 tokens/s) is assumed. */
const MANY_SEQUENCES = { sequences: 64, timeMs: 48, clockExponent: 0.98 };
/** HBM2 of a V100, data sheet, at the share of it that decoding one sequence reaches: 14.5 GB of weights in 25.4 ms. */
const KV_BYTES_PER_MS = 9e8 * 0.63;

/** Mistral-7B: 32 layers, 8 KV heads of 128, 7.24 billion parameters. Assumed: the 32 GB board; 16 GB hold the weights and little more. */
const MEMORY = { devices: 1, deviceMemoryGib: 31.7, otherGib: 1.5, parameters: 7.24e9, bytesPerParameter: 2, layers: 32, kvHeads: 8, headDimension: 128, bytesPerElement: 2 };

/** Watts at a clock share; the sweep fitted the last with 1200 MHz as its reference. Errors 0.8 %, 2.0 % and 0.4 %. */
const prefillPowerW = (share: number): number => 83 + 117 * share ** 3.9;
const oneSequencePowerW = (share: number): number => 57 + 63 * share ** 1.5;
const sixtyFourSequencesPowerW = (share: number): number => 71 + 84 * ((share * REFERENCE_MHZ) / 1200) ** 3.5;

function v100Form(): PhysicalForm {
  const operations = OPERATIONS_PER_TOKEN * PREFILL_TOKENS_ASSUMED + (OPERATIONS_PER_PAIR * PREFILL_TOKENS_ASSUMED ** 2) / 2;
  const perOperationMs = PREFILL_MS_MHZ / REFERENCE_MHZ / operations;
  return {
    devices: 1,
    referenceMhz: REFERENCE_MHZ,
    boardLimitW: 300,
    prefillTimeMs: prefillTime({ fixedMs: PREFILL_FIXED_MS, perTokenMs: OPERATIONS_PER_TOKEN * perOperationMs, perTokenPairMs: OPERATIONS_PER_PAIR * perOperationMs }),
    // Linear in the sequences between the two that were swept, which is assumed; the context costs what its bytes do, and
    // follows the clock as 64 sequences did.
    decodeTimeMs: ({ sequences, contextTokens }, share) => {
      const { memoryMs, kneeMs, kneeExponent, sharpness } = ONE_SEQUENCE;
      const oneMs = slower([memoryMs, kneeMs / share ** kneeExponent], sharpness);
      const stretch = share ** -MANY_SEQUENCES.clockExponent;
      const perSequenceMs = (MANY_SEQUENCES.timeMs * stretch - oneMs) / (MANY_SEQUENCES.sequences - 1);
      return oneMs + perSequenceMs * (sequences - 1) + (contextTokens * stretch * kvBytesPerToken(MEMORY)) / KV_BYTES_PER_MS;
    },
    // Assumed, below every busy curve: a loaded but idle V100 was reported at 53 W (nvidia-smi, zai-org/GLM-130B issue 32).
    idlePowerW: (share) => 40 + 14 * share ** 2,
    prefillPowerW: (_work, share) => prefillPowerW(share),
    decodePowerW: ({ sequences }, share) => {
      const many = Math.log2(sequences) / Math.log2(MANY_SEQUENCES.sequences);
      return oneSequencePowerW(share) * (1 - many) + sixtyFourSequencesPowerW(share) * many;
    },
  };
}

const KV_TOKENS = kvTokensFitting(MEMORY);

const GRID: Grid = {
  // The sweep's range in the V100's uneven steps of 7 and 8 MHz; 1300 is where the sweep says it ended.
  clocksMhz: [750, 802, 847, 900, 952, 1005, 1050, 1102, 1147, 1200, 1252, 1300],
  prefillTokens: [64, 256, 512, 1024, 2048, 4096],
  prefillContexts: [0, 2048, 8192],
  decodeSequences: [1, 2, 4, 8, 16, 32, 64],
  decodeContextsEach: [128, 512, 1024],
  kvTokens: KV_TOKENS,
};

const PROVENANCE: Profile['provenance'] = {
  measuredBy: 'A public per-phase clock sweep, known here through its fitted curves only.',
  measuredOn: 'V100, Mistral-7B, locked clocks of 750 to 1300 MHz: prefill of one batch, decode with one and with 64 sequences.',
  measuredAt: 'not stated',
  method:
    'Measured, as fits: prefill 0.0316 s + 1993/f (0.4 %) at 83 + 117F^3.9 W (0.8 %); decode of one sequence flat above 850 MHz with a knee below, at 57 + 63F^1.5 W (2.0 %); decode of 64 sequences ~ f^-0.98 at 71 + 84(f/1200)^3.5 W (0.4 %); F = f/1300 MHz. Assumed: that the prefill was 4096 tokens and that its time divides by operations, 48 ms for 64 sequences at 1300 MHz, times (linear) and power (linear in log2) between 1 and 64 sequences, reading of the KV cache at 63 % of memory bandwidth, idle power of 40 + 14F² W (one report of a loaded idle V100: 53 W), the 32 GB board, switch times.',
  sources: [{ title: 'Per-phase clock sweep of Mistral-7B on a V100, 750–1300 MHz (figures as collected in the project notes FITS.md)', url: 'not recorded', licence: 'facts only, no data copied', used: 'the fitted curves above' }],
  licence: 'Apache-2.0',
  madeBy: 'config/profiles/make/mistral-7b.v100.ts',
};

export function mistral7bOnV100(): MadeProfile {
  const profile: Profile = {
    format: 'paceline-profile/1',
    name: 'mistral-7b.v100',
    model: 'mistralai/Mistral-7B-Instruct-v0.3',
    engine: { name: 'vllm' },
    deviceGroup: { device: 'NVIDIA V100 (32 GB)', devices: 1 },
    knobs: { clockMhz: { unit: 'MHz', description: 'Locked SM clock.' } },
    ...pointsAndRows(v100Form(), GRID),
    // The sweep's step times were taken around the whole step.
    launchOverheadMs: 0,
    switch: { latencyMs: 15, outlierMs: 480, outlierShare: 0.01 },
    serving: { maxBatchTokens: 2048, maxSequences: 64, kvTokens: KV_TOKENS },
    provenance: PROVENANCE,
  };
  return { file: 'mistral-7b.v100.json', profile };
}
