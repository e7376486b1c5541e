// The workloads of the energy bench: recorded traces where they are, made-up ones of the same rates and sizes elsewhere,
// each played at the rate that puts a share of the fleet's capacity to use.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { NO_DECODE, NO_PREFILL, type PerformanceModel, promptTimeMs } from '../../src/frontier/performance-model.ts';
import { type WorkloadSource, loadWorkload } from '../../src/workload/load-workload.ts';
import type { WorkloadRequest } from '../../src/workload/request.ts';
import type { SloClass } from '../../src/workload/slo-classes.ts';

export const WORKLOADS = ['azure-conversation', 'azure-code', 'mooncake', 'servegen', 'tenants'] as const;
export type WorkloadName = (typeof WORKLOADS)[number];

const SHARED = resolve(import.meta.dirname, '../../../shared/data');

interface Recorded {
  /** `null` where the workload is a made-up one. */
  readonly source: Exclude<WorkloadSource, { readonly kind: 'synthetic' }> | null;
  /** Where there is no source, or it is not on this machine. */
  readonly generated: WorkloadSource & { readonly kind: 'synthetic' };
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
    source: { kind: 'azure', file: `${SHARED}/azure-llm-2023/AzureLLMInferenceTrace_conv.csv` },
    generated: synthetic(4, 1.1, lognormal(1195, 0.95), lognormal(201, 0.85)),
    fromS: 0,
    lengthS: 3500,
  },
  'azure-code': {
    source: { kind: 'azure', file: `${SHARED}/azure-llm-2023/AzureLLMInferenceTrace_code.csv` },
    generated: synthetic(1.6, 2.5, lognormal(2028, 0.95), lognormal(27, 2)),
    fromS: 0,
    lengthS: 3500,
  },
  mooncake: {
    source: { kind: 'mooncake', file: `${SHARED}/mooncake-fast25/conversation_trace.jsonl` },
    generated: synthetic(3.4, 1, lognormal(8000, 1), lognormal(340, 0.8)),
    fromS: 0,
    lengthS: 3500,
  },
  servegen: {
    source: { kind: 'servegen', directory: `${SHARED}/servegen`, chunk: '4' },
    generated: synthetic(4, 2, lognormal(700, 1.5), lognormal(350, 1)),
    fromS: 137_400,
    lengthS: 1200,
  },
  tenants: {
    source: null,
    generated: synthetic(4, 1.6, lognormal(900, 1.2), lognormal(220, 1)),
    fromS: 0,
    lengthS: 3600,
  },
};

/** Those shipped that the energy bench plays on. */
export const PROFILES = ['llama-3.1-70b.h100-tp4', 'llama-3.1-8b.h200', 'mistral-7b.v100'] as const;

/** Share of the capacity (see `capacityPerS`) that a load level asks for. */
export const LOADS = { low: 0.15, middle: 0.4, high: 0.7 } as const;
export type Load = keyof typeof LOADS;

/** A cell's length in virtual time: long enough to speak of a percent of the requests, short enough to try ninety cells. */
const LENGTH = { leastS: 150, mostS: 1800, requestsWanted: 800, requestsMost: 6000, leastOfManyS: 45 };

export interface LoadedWorkload {
  readonly recorded: boolean;
  readonly requests: readonly WorkloadRequest[];
  readonly ratePerS: number;
  readonly durationS: number;
  /** Requests that a replica of this size would not be offered, see `fitting`. */
  readonly leftOut: number;
  readonly classes: readonly SloClass[];
}

/** A workload on a fleet, before its rate is chosen. */
export interface Source {
  readonly name: WorkloadName;
  readonly recorded: boolean;
  readonly requests: readonly WorkloadRequest[];
  readonly lengthS: number;
  readonly leftOut: number;
  readonly classes: readonly SloClass[];
  /** Per replica, steady arrivals assumed. */
  readonly steadyPerS: number;
}

/**
 * Requests whose prompt and answer take more than a quarter of the KV cache are left out (and counted): a model of that size
 * would not be offered them. Prefix hashes are left out, too: the clairvoyant policy and the bound do not model the cache.
 */
export async function sourceOf(name: WorkloadName, model: PerformanceModel, seed: number): Promise<Source> {
  const { source, generated, fromS, lengthS } = RECORDED[name];
  const recorded = source !== null && existsSync(source.kind === 'servegen' ? source.directory : source.file);
  const all = (await loadWorkload(recorded ? source : generated, { fromS: recorded ? fromS : 0, durationS: lengthS }, seed)).requests;
  return sourceFrom(name, model, all.map(({ atMs, promptTokens, outputTokens }) => ({ atMs, promptTokens, outputTokens })), { recorded, lengthS });
}

/** The same of requests that are there already. */
export function sourceFrom(name: WorkloadName, model: PerformanceModel, all: readonly WorkloadRequest[], { recorded, lengthS }: Pick<Source, 'recorded' | 'lengthS'>): Source {
  const requests = all.filter(({ promptTokens, outputTokens }) => promptTokens + outputTokens <= model.profile.serving.kvTokens / 4);
  const classes = slosOf(name, model, requests);
  return { name, recorded, requests, lengthS, leftOut: all.length - requests.length, classes, steadyPerS: capacityPerS(model, requests, tightestTpotMs(classes)) };
}

/** Above every id of a prefix block. */
const ROUND = 2 ** 32;

/** The source played at a rate; a trace too short for it is played again from its start. */
export function played(source: Source, ratePerS: number): LoadedWorkload {
  const { requests: own, lengthS, recorded, leftOut, classes } = source;
  const wantedS = Math.min(LENGTH.mostS, Math.max(LENGTH.leastS, LENGTH.requestsWanted / ratePerS));
  const durationS = Math.max(Math.min(wantedS, LENGTH.leastOfManyS), Math.min(wantedS, LENGTH.requestsMost / ratePerS));
  const speed = ratePerS / (own.length / lengthS);
  const requests: WorkloadRequest[] = [];
  for (let offsetMs = 0, round = 0; offsetMs < durationS * 1000; offsetMs += (lengthS * 1000) / speed, round++) {
    for (const request of own) {
      const atMs = offsetMs + request.atMs / speed;
      if (atMs >= durationS * 1000) break;
      // Played again it is of other people, whose prompts nobody has seen.
      requests.push(request.prefixBlocks === undefined || round === 0 ? { ...request, atMs } : { ...request, atMs, prefixBlocks: request.prefixBlocks.map((block) => block + round * ROUND) });
    }
  }
  return { recorded, requests, ratePerS, durationS, leftOut, classes };
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
  const tpotMs = round(3 * model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences: 1, contextTokens: longPrompt } }, model.fastest), 1);
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

function prefillAloneMs(model: PerformanceModel, promptTokens: number): number {
  return promptTimeMs(promptTokens, model.profile.serving.maxBatchTokens, (prefill) => model.iterationTimeMs({ prefill, decode: NO_DECODE }, model.fastest));
}

/**
 * Requests per second at which one replica at its fastest point settles at the given TPOT, steady arrivals assumed: with
 * step s = α + β·B, batch B = λ·n·s (Little) and prefills taking ρ = λ·p of the time, s/(1 − ρ) reaches the limit at
 * λ = (1 − α/(limit − β)) / (p + β·n). Bounded by the places on the server.
 */
function capacityPerS(model: PerformanceModel, requests: readonly WorkloadRequest[], tpotMs: number): number {
  const mean = (of: (request: WorkloadRequest) => number): number => requests.reduce((sum, request) => sum + of(request), 0) / requests.length;
  const outputTokens = mean((request) => request.outputTokens);
  const contextEach = mean((request) => request.promptTokens) + outputTokens / 2;
  const prefillMs = mean((request) => prefillAloneMs(model, request.promptTokens));
  const stepMs = (sequences: number): number => model.iterationTimeMs({ prefill: NO_PREFILL, decode: { sequences, contextTokens: sequences * contextEach } }, model.fastest);
  const perSequenceMs = (stepMs(33) - stepMs(1)) / 32;
  const baseMs = stepMs(1) - perSequenceMs;
  const perMs = Math.max(0, 1 - baseMs / (tpotMs - perSequenceMs)) / (prefillMs + perSequenceMs * outputTokens);
  const { maxSequences, kvTokens } = model.profile.serving;
  const places = Math.min(maxSequences, kvTokens / contextEach);
  return 1000 * Math.min(perMs, places / (outputTokens * tpotMs));
}
