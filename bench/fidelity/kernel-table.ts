// Llama-3.1-8B on an H200 twice: its kernels, measured one by one, summed over the layers; and what the shipped profile says
// of the same work at default clocks. The table has neither norms nor activations nor launches; they are in neither sum.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Profile } from '../../src/frontier/profile.ts';

/** One piece of work: relative errors of the profile's time and power against the sum of the kernels. */
export interface KernelCheck {
  readonly phase: 'prefill' | 'decode';
  readonly sequences: number;
  /** Prompt tokens in prefill; context of each sequence in decode. */
  readonly tokensEach: number;
  readonly timeErrorPct: number;
  readonly powerErrorPct: number;
}

interface Cost {
  readonly timeMs: number;
  readonly energyJ: number;
}

const FILES = { gemm: 'h200_gemm_vllm0.22.0.csv', decode: 'h200_decode_attention_vllm0.22.0.csv', prefill: 'h200_prefill_attention_vllm0.22.0.csv' };
/** Llama-3.1-8B: its configuration. */
const MODEL = { layers: 32, width: 4096, qkvWidth: 6144, gateUpWidth: 28_672, innerWidth: 14_336, vocabulary: 128_256, heads: 32, kvHeads: 8 };
const DECODE_SEQUENCES = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const DECODE_CONTEXTS_EACH = [256, 1024, 4096];
const PREFILL_TOKENS = [512, 1024, 2048, 4096, 8192];

/** `null` where the table is not there. */
export function checkKernels(folder: string, profile: Profile): KernelCheck[] | null {
  if (!Object.values(FILES).every((file) => existsSync(join(folder, file)))) return null;
  const gemm = gemmCosts(join(folder, FILES.gemm));
  const decodeAttention = attentionCosts(join(folder, FILES.decode));
  const prefillAttention = attentionCosts(join(folder, FILES.prefill));
  const model = createPerformanceModel(profile);
  const point = model.points.length - 1;
  const layersOf = (tokens: number, attention: Cost): Cost[] =>
    [gemm(tokens, MODEL.qkvWidth, MODEL.width), attention, gemm(tokens, MODEL.width, MODEL.width), gemm(tokens, MODEL.gateUpWidth, MODEL.width), gemm(tokens, MODEL.width, MODEL.innerWidth)].map(({ timeMs, energyJ }) => ({
      timeMs: timeMs * MODEL.layers,
      energyJ: energyJ * MODEL.layers,
    }));
  const checked = (phase: KernelCheck['phase'], sequences: number, tokensEach: number, kernels: readonly Cost[], ours: Cost): KernelCheck => {
    const timeMs = kernels.reduce((sum, kernel) => sum + kernel.timeMs, 0);
    const powerW = (1000 * kernels.reduce((sum, kernel) => sum + kernel.energyJ, 0)) / timeMs;
    const oursW = (1000 * ours.energyJ) / ours.timeMs;
    return { phase, sequences, tokensEach, timeErrorPct: 100 * (ours.timeMs / timeMs - 1), powerErrorPct: 100 * (oursW / powerW - 1) };
  };
  const checks: KernelCheck[] = [];
  for (const sequences of DECODE_SEQUENCES) {
    for (const contextEach of DECODE_CONTEXTS_EACH) {
      // The table's largest batches stop at shorter contexts, as a real cache would.
      const attention = decodeAttention.get(`${sequences},1,${contextEach - 1}`);
      if (attention === undefined) continue;
      const work = { sequences, contextTokens: sequences * contextEach };
      const kernels = [...layersOf(sequences, attention), gemm(sequences, MODEL.vocabulary, MODEL.width)];
      checks.push(checked('decode', sequences, contextEach, kernels, { timeMs: model.decodeTimeMs(work, point), energyJ: model.decodeEnergyJ(work, point) }));
    }
  }
  for (const tokens of PREFILL_TOKENS) {
    const attention = prefillAttention.get(`1,${tokens},0`);
    if (attention === undefined) continue;
    const work = { tokens, contextTokens: 0 };
    // Only the last token of a prompt meets the vocabulary.
    const kernels = [...layersOf(tokens, attention), gemm(1, MODEL.vocabulary, MODEL.width)];
    checks.push(checked('prefill', 1, tokens, kernels, { timeMs: model.prefillTimeMs(work, point), energyJ: model.prefillEnergyJ(work, point) }));
  }
  return checks;
}

/**
 * Time and energy of an m×k by k×n product in bf16. The shapes 28672 and 14336 wide and the vocabulary are not in the table: they
 * lie on the line through the two nearest widths, time and energy alike.
 */
function gemmCosts(path: string): (m: number, n: number, k: number) => Cost {
  const byTokens = new Map<number, Map<number, Map<number, Cost>>>();
  for (const [dtype, m, n, k, latencyMs, powerW] of cellsOf(path, 'gemm_dtype,m,n,k,latency_ms,power_w')) {
    if (dtype !== 'bfloat16') continue;
    inner(inner(byTokens, Number(m)), Number(n)).set(Number(k), costOf(latencyMs, powerW));
  }
  return (m, n, k) => {
    const byWidth = byTokens.get(m);
    if (byWidth === undefined) throw new Error(`${path}: no products of ${m} rows`);
    const atWidths = [...byWidth].flatMap(([width, byDepth]): [number, Cost][] => (byDepth.size < 2 ? [] : [[width, onLine([...byDepth], k)]]));
    return onLine(atWidths, n);
  };
}

function inner<Value>(outer: Map<number, Map<number, Value>>, key: number): Map<number, Value> {
  const found = outer.get(key);
  if (found !== undefined) return found;
  const made = new Map<number, Value>();
  outer.set(key, made);
  return made;
}

function onLine(points: readonly (readonly [number, Cost])[], at: number): Cost {
  const exact = points.find(([x]) => x === at);
  if (exact !== undefined) return exact[1];
  const sorted = points.toSorted((a, b) => a[0] - b[0]);
  const above = sorted.findIndex(([x]) => x > at);
  const upper = Math.max(1, above < 0 ? sorted.length - 1 : above);
  const [x0, low] = sorted[upper - 1] as readonly [number, Cost];
  const [x1, high] = sorted[upper] as readonly [number, Cost];
  const share = (at - x0) / (x1 - x0);
  return { timeMs: low.timeMs + share * (high.timeMs - low.timeMs), energyJ: low.energyJ + share * (high.energyJ - low.energyJ) };
}

/** By `batch,isl,step`, of the model's heads in bf16. */
function attentionCosts(path: string): Map<string, Cost> {
  const costs = new Map<string, Cost>();
  for (const [batch, isl, heads, kvHeads, headDim, , kvType, step, , latencyMs, powerW] of cellsOf(path, 'batch_size,isl,num_heads,num_key_value_heads,head_dim,attn_dtype,kv_cache_dtype,step,window_size,latency_ms,power_w')) {
    if (Number(heads) === MODEL.heads && Number(kvHeads) === MODEL.kvHeads && headDim === '128' && kvType === 'bfloat16') costs.set(`${batch},${isl},${step}`, costOf(latencyMs, powerW));
  }
  return costs;
}

function costOf(latencyMs: string | undefined, powerW: string | undefined): Cost {
  const timeMs = Number(latencyMs);
  return { timeMs, energyJ: (timeMs * Number(powerW)) / 1000 };
}

function cellsOf(path: string, wantedHeader: string): string[][] {
  const [header, ...lines] = readFileSync(path, 'utf8').trim().split(/\r?\n/);
  if (header !== wantedHeader) throw new Error(`${path}: got the header "${header}", want "${wantedHeader}"`);
  return lines.map((line) => line.split(','));
}
