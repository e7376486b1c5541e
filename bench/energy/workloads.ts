// The workloads of the energy bench: recorded traces where they are, made-up ones of the same rates and sizes elsewhere,
// each played at the rate that puts a share of the fleet's capacity to use.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { PerformanceModel } from '../../src/frontier/performance-model.ts';
import { type WorkloadSource, loadWorkload } from '../../src/workload/load-workload.ts';
import type { WorkloadRequest } from '../../src/workload/request.ts';
import type { SloClass } from '../../src/workload/slo-classes.ts';

export const WORKLOADS = ['azure-conversation', 'azure-code', 'mooncake', 'servegen', 'tenants'] as const;
export type WorkloadName = (typeof WORKLOADS)[number];

const SHARED = resolve(import.meta.dirname, '../../../shared/data');

interface Recorded {
  readonly source: WorkloadSource;
  /** Where it is not there. */
  readonly generated: WorkloadSource & { readonly kind: 'synthetic' };
  readonly path: string;
  /** Seconds of the workload's own time to begin at, and all there is of it. */
  readonly fromS: number;
  readonly lengthS: number;
}

const lognormal = (meanTokens: number, cv: number) => ({ kind: 'lognormal', meanTokens, cv }) as const;
const synthetic = (ratePerS: number, cv: number, promptTokens: ReturnType<typeof lognormal>, outputTokens: ReturnType<typeof lognormal>) =>
  ({ kind: 'synthetic', arrivals: { kind: 'bursty', ratePerS, cv }, promptTokens, outputTokens }) as const;

/** Rates and sizes of the stand-ins are those of the traces (mean and coefficient of variation). */
const RECORDED: Readonly<Record<WorkloadName, Recorded>> = {
  'azure-conversation': {
    path: `${SHARED}/azure-llm-2023/AzureLLMInferenceTrace_conv.csv`,
    source: { kind: 'azure', file: `${SHARED}/azure-llm-2023/AzureLLMInferenceTrace_conv.csv` },
    generated: synthetic(4, 1.1, lognormal(1195, 0.95), lognormal(201, 0.85)),
    fromS: 0,
    lengthS: 3500,
  },
  'azure-code': {
    path: `${SHARED}/azure-llm-2023/AzureLLMInferenceTrace_code.csv`,
    source: { kind: 'azure', file: `${SHARED}/azure-llm-2023/AzureLLMInferenceTrace_code.csv` },
    generated: synthetic(1.6, 2.5, lognormal(2028, 0.95), lognormal(27, 2)),
    fromS: 0,
    lengthS: 3500,
  },
  mooncake: {
    path: `${SHARED}/mooncake-fast25/conversation_trace.jsonl`,
    source: { kind: 'mooncake', file: `${SHARED}/mooncake-fast25/conversation_trace.jsonl` },
    generated: synthetic(3.4, 1, lognormal(8000, 1), lognormal(340, 0.8)),
    fromS: 0,
    lengthS: 3500,
  },
  servegen: {
    path: `${SHARED}/servegen`,
    source: { kind: 'servegen', directory: `${SHARED}/servegen`, chunk: '4' },
    generated: synthetic(4, 2, lognormal(700, 1.5), lognormal(350, 1)),
    fromS: 137_400,
    lengthS: 1200,
  },
  tenants: {
    path: '',
    source: synthetic(4, 1.6, lognormal(900, 1.2), lognormal(220, 1)),
    generated: synthetic(4, 1.6, lognormal(900, 1.2), lognormal(220, 1)),
    fromS: 0,
    lengthS: 3600,
  },
};

/** Share of the capacity (see `capacityPerS`) that a load level asks for. */
export const LOADS = { low: 0.15, middle: 0.4, high: 0.7 } as const;
export type Load = keyof typeof LOADS;

const REQUESTS_WANTED = 600;
const DURATION_MAX_S = 1800;

export interface LoadedWorkload {
  readonly name: WorkloadName;
  readonly recorded: boolean;
  readonly requests: readonly WorkloadRequest[];
  readonly ratePerS: number;
  readonly durationS: number;
  readonly leftOut: number;
  readonly slos: readonly SloClass[];
}

/**
 * The workload at a load level: `durationS` of virtual time, `replicas` of the model's group. Requests whose prompt and
 * answer take more than a quarter of the KV cache are left out (and counted): a model of that size would not be offered them.
 */
export async function workloadAt(name: WorkloadName, model: PerformanceModel, replicas: number, load: Load, leastS: number, seed: number): Promise<LoadedWorkload> {
  const recorded = RECORDED[name];
  const isRecorded = recorded.path !== '' && existsSync(recorded.path);
  const source = isRecorded ? recorded.source : recorded.generated;
  const all = (await loadWorkload(source, { fromS: isRecorded ? recorded.fromS : 0, durationS: recorded.lengthS }, seed)).requests;
  const fits = ({ promptTokens, outputTokens }: WorkloadRequest): boolean => promptTokens + outputTokens <= model.profile.serving.kvTokens / 4;
  const fitting = all.filter(fits);
  const slos = slosOf(name, model, fitting);
  const ratePerS = LOADS[load] * replicas * capacityPerS(model, fitting, tightestTpotMs(slos));
  // Long enough to speak of a percent of the requests.
  const durationS = Math.min(DURATION_MAX_S, Math.max(leastS, REQUESTS_WANTED / ratePerS));
  const ownRatePerS = fitting.length / recorded.lengthS;
  const speed = ratePerS / ownRatePerS;
  // A trace too short for the rate is played again from its start, with fresh prefixes nobody shares.
  const requests: WorkloadRequest[] = [];
  for (let round = 0; requests.length === 0 || (requests.at(-1)?.atMs ?? 0) < durationS * 1000; round++) {
    const offsetMs = (round * recorded.lengthS * 1000) / speed;
    if (offsetMs >= durationS * 1000) break;
    for (const request of fitting) {
      const atMs = offsetMs + request.atMs / speed;
      if (atMs >= durationS * 1000) break;
      requests.push({ ...request, atMs });
    }
  }
  return { name, recorded: isRecorded, requests, ratePerS, durationS, leftOut: all.length - fitting.length, slos };
}

function tightestTpotMs(classes: readonly SloClass[]): number {
  return Math.min(...classes.map(({ slo }) => slo.tpotMs ?? Number.POSITIVE_INFINITY));
}

/**
 * SLOs in proportion to what the fleet can do at its fastest point with nobody else there: TTFT five times the prefill of
 * a long prompt (99th percentile) of the workload, TPOT three times the step of one sequence. Proportional, so that
 * every profile is asked for the same; five times isolated latency is what DynamoLLM's evaluation used.
 */
function slosOf(name: WorkloadName, model: PerformanceModel, requests: readonly WorkloadRequest[]): readonly SloClass[] {
  const prompts = requests.map(({ promptTokens }) => promptTokens).sort((a, b) => a - b);
  const longPrompt = prompts[Math.floor(0.99 * (prompts.length - 1))] ?? 1000;
  const round = (value: number, to: number): number => Math.ceil(value / to) * to;
  const ttftMs = round(Math.max(500, 5 * prefillAloneMs(model, longPrompt)), 50);
  const tpotMs = round(3 * model.iterationTimeMs({ prefill: NONE, decode: { sequences: 1, contextTokens: longPrompt } }, model.fastest), 1);
  // An answer of ten tokens cannot make good one iteration that it shares with a full chunk of prefill: a limit below that
  // would be missed at any clock, by a plain gateway most of all.
  const chunkMs = model.iterationTimeMs({ prefill: { tokens: model.profile.serving.maxBatchTokens, contextTokens: 0 }, decode: { sequences: 4, contextTokens: 4 * longPrompt } }, model.fastest);
  if (name === 'azure-code') return [{ name: 'code', share: 1, slo: { ttftMs, tpotMs: round(Math.max(tpotMs, 1.1 * chunkMs), 1) } }];
  if (name !== 'tenants') return [{ name: 'chat', share: 1, slo: { ttftMs, tpotMs } }];
  return [
    { name: 'premium', share: 0.2, slo: { ttftMs: round(ttftMs * 0.5, 10), tpotMs: round(tpotMs * 0.7, 1) } },
    { name: 'chat', share: 0.5, slo: { ttftMs, tpotMs } },
    { name: 'batch', share: 0.3, slo: { e2eMs: 120_000 } },
  ];
}

const NONE = { tokens: 0, contextTokens: 0 };

function prefillAloneMs(model: PerformanceModel, promptTokens: number): number {
  const { maxBatchTokens } = model.profile.serving;
  let ms = 0;
  for (let from = 0; from < promptTokens; from += maxBatchTokens) {
    const tokens = Math.min(maxBatchTokens, promptTokens - from);
    ms += model.iterationTimeMs({ prefill: { tokens, contextTokens: from }, decode: { sequences: 0, contextTokens: 0 } }, model.fastest);
  }
  return ms;
}

/**
 * Requests per second at which one replica at its fastest point settles at the given TPOT, steady arrivals assumed: with
 * step s = α + β·B, batch B = λ·n·s (Little) and prefills taking ρ = λ·p of the time, s/(1 − ρ) reaches the limit at
 * λ = (1 − α/(limit − β)) / (p + β·n). Bounded by the places on the server.
 */
export function capacityPerS(model: PerformanceModel, requests: readonly WorkloadRequest[], tpotMs: number): number {
  const mean = (of: (request: WorkloadRequest) => number): number => requests.reduce((sum, request) => sum + of(request), 0) / requests.length;
  const outputTokens = mean((request) => request.outputTokens);
  const contextEach = mean((request) => request.promptTokens) + outputTokens / 2;
  const prefillMs = mean((request) => prefillAloneMs(model, request.promptTokens));
  const stepMs = (sequences: number): number => model.iterationTimeMs({ prefill: NONE, decode: { sequences, contextTokens: sequences * contextEach } }, model.fastest);
  const perSequenceMs = (stepMs(33) - stepMs(1)) / 32;
  const baseMs = stepMs(1) - perSequenceMs;
  const perMs = Math.max(0, 1 - baseMs / (tpotMs - perSequenceMs)) / (prefillMs + perSequenceMs * outputTokens);
  const { maxSequences, kvTokens } = model.profile.serving;
  const places = Math.min(maxSequences, kvTokens / contextEach);
  return 1000 * Math.min(perMs, places / (outputTokens * tpotMs));
}
