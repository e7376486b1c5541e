// An open-loop load: every request goes out at its intended time, however slow the answers are. Measures as its clients
// would: from the intended time, so that a server's stall is not hidden by a sender that waits with it.
import { randomInt } from 'node:crypto';
import { Pool } from 'undici';
import type { Workload } from '../workload/request.ts';
import type { SloClass } from '../workload/slo-classes.ts';
import { BEST_EFFORT, drawClasses } from '../workload/slo-classes.ts';
import type { BenchResult } from './bench-result.ts';
import { benchResult } from './bench-result.ts';
import type { EnergyMeter, EnergyReading, EnergyUse } from './energy-meter.ts';
import { createEnergyMeter, energyBetween } from './energy-meter.ts';
import { IN_FLIGHT_MAX } from './limits.ts';
import { LoadError, findModel, parseTargetUrl } from './load-target.ts';
import { createPromptText } from './prompt-text.ts';
import type { Endpoint, Lengths } from './request-body.ts';
import { PATHS, maxTokensFor, requestBody, sloHeaders } from './request-body.ts';
import type { OpenLoop } from './open-loop.ts';
import { startOpenLoop } from './open-loop.ts';
import type { RequestRecord } from './request-record.ts';
import { runNotes } from './run-notes.ts';
import { sendRequest } from './send-request.ts';

export interface LoadOptions {
  readonly url: string;
  readonly workload: Workload;
  /** Without any, requests carry no SLO and a completed one meets. */
  readonly classes?: readonly SloClass[];
  /** Of classes; the workload has been drawn already. Default 1. */
  readonly seed?: number;
  /** Chooses the words of the prompts. Default: another one each run, so that a run never profits from the prefix cache of the one before. */
  readonly promptSalt?: number;
  readonly endpoint?: Endpoint;
  readonly lengths?: Lengths;
  /** With hidden lengths; default 1024, doubled until the longest answer fits. */
  readonly maxTokens?: number;
  readonly model?: string;
  readonly apiKey?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Of each request, from when it goes out. Default 600,000. */
  readonly timeoutMs?: number;
  readonly inFlightMax?: number;
  /** Unix sockets of agents; without any, energy is not measured. */
  readonly agentSockets?: readonly string[];
  readonly devices?: readonly string[];
  /** Energy is measured from the first intended send for exactly so long; default: until the last answer ended. */
  readonly windowS?: number;
  /** Ends the run early; what there is, is still the result. */
  readonly signal?: AbortSignal;
  /** Every second. */
  readonly onProgress?: (progress: LoadProgress) => void;
  /** At once, for what must not wait for the report. */
  readonly onWarning?: (message: string) => void;
  /** Before it resolves: each request by itself, and when the first was to go out, on `performance.now()`. */
  readonly onEnd?: (end: { readonly records: readonly RequestRecord[]; readonly startedAtMs: number }) => void;
  /** As typed, for the record. */
  readonly command?: string;
}

export interface LoadProgress {
  readonly elapsedS: number;
  /** Of the whole workload or the fixed energy window, whichever is longer; answers still running come on top. */
  readonly plannedS: number;
  readonly total: number;
  readonly sent: number;
  readonly inFlight: number;
  readonly completed: number;
  readonly failed: number;
  readonly attainment: number | null;
  readonly powerW: number | null;
}

const TIMEOUT_MS = 600_000;
const PROGRESS_EVERY_MS = 1000;
const PROMPT_SALT_MAX = 2 ** 31;

/** Throws `LoadError` or `AgentError` before the first request where the run makes no sense. */
export async function runLoad(options: LoadOptions): Promise<BenchResult> {
  const { workload, seed = 1, endpoint = 'chat', lengths = 'hidden', timeoutMs = TIMEOUT_MS, windowS, signal, promptSalt = randomInt(PROMPT_SALT_MAX) } = options;
  const [first] = workload.requests;
  if (first === undefined) throw new LoadError(`workload '${workload.name}' has no requests`);
  const longestOutputTokens = workload.requests.reduce((longest, { outputTokens }) => Math.max(longest, outputTokens), 0);
  const maxTokens = maxTokensFor(longestOutputTokens, options.maxTokens);
  if (maxTokens === null) throw new LoadError(`--max-tokens: got ${options.maxTokens}, the workload's longest answer has ${longestOutputTokens} tokens; want at least that`);

  const { origin, basePath } = parseTargetUrl(options.url);
  const headers = requestHeaders(options);
  const pool = new Pool(origin, { connections: null, pipelining: 1, allowH2: false, connect: { timeout: 10_000 } });
  const meter = options.agentSockets === undefined || options.agentSockets.length === 0 ? null : createEnergyMeter({ sockets: options.agentSockets, devices: options.devices ?? [], nowMs });
  try {
    const model = await findModel(pool, options.url, basePath, headers, options.model);
    const classes = drawClasses(options.classes ?? BEST_EFFORT, workload.requests.length, seed);
    const prompts = createPromptText(promptSalt);
    const startedAt = new Date().toISOString();
    const startReading = meter === null ? null : await meter.read();
    const startedAtMs = nowMs();
    const plannedS = Math.max(((workload.requests.at(-1)?.atMs ?? 0) - first.atMs) / 1000, windowS ?? 0);

    const run = startOpenLoop({
      requests: workload.requests.map((request, index) => ({ request, sloClass: classes[index] ?? BEST_EFFORT[0] })),
      originAtMs: startedAtMs - first.atMs,
      inFlightMax: options.inFlightMax ?? IN_FLIGHT_MAX,
      nowMs,
      warn: options.onWarning ?? (() => {}),
      send: ({ request, sloClass }, index, onReply) => {
        const body = requestBody({ endpoint, lengths, model, maxTokens }, prompts.of(request, index), request.outputTokens);
        return sendRequest(pool, { origin, path: `${basePath}${PATHS[endpoint]}`, headers: { ...headers, ...sloHeaders(sloClass.slo) }, body, timeoutMs }, nowMs, onReply);
      },
    });
    const stopProgress = reportProgress(run, meter, { startedAtMs, plannedS, onProgress: options.onProgress });
    const onAbort = () => run.cancel();
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted === true) onAbort();

    const endReading = windowS === undefined || meter === null ? null : readAt(meter, startedAtMs + windowS * 1000, signal);
    await run.done;
    const { records, unfinished, lastEndedAtMs } = run.state();
    const durationS = (lastEndedAtMs - startedAtMs) / 1000;
    const energy = meter === null || startReading === null ? null : await measureEnergy(startReading, endReading ?? readAt(meter, nowMs(), signal));
    stopProgress();
    signal?.removeEventListener('abort', onAbort);

    options.onEnd?.({ records, startedAtMs });
    const facts = { records, energy, durationS, interrupted: signal?.aborted === true, unfinished, workload: workload.name, seed, promptSalt, url: options.url, model, command: options.command ?? null, startedAt };
    return benchResult({ ...facts, notes: runNotes({ ...facts, windowS, lengths }) });
  } finally {
    await Promise.all([pool.destroy(), meter?.close()]);
  }
}

function nowMs(): number {
  return performance.now();
}

function requestHeaders({ apiKey, headers = {} }: LoadOptions): Readonly<Record<string, string>> {
  return { 'content-type': 'application/json', ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }), ...headers };
}

/** Returns what stops it, with a last report. */
function reportProgress(run: OpenLoop, meter: EnergyMeter | null, { startedAtMs, plannedS, onProgress }: { readonly startedAtMs: number; readonly plannedS: number; readonly onProgress: LoadOptions['onProgress'] }): () => void {
  if (onProgress === undefined) return () => {};
  let powerW: number | null = null;
  let reading = false;
  const report = () => {
    const { records, total, sent, inFlight, completed, met } = run.state();
    onProgress({
      elapsedS: (nowMs() - startedAtMs) / 1000,
      plannedS,
      total,
      sent,
      inFlight,
      completed,
      failed: records.length - completed,
      attainment: records.length === 0 ? null : met / records.length,
      powerW,
    });
  };
  const timer = setInterval(() => {
    report();
    if (meter === null || reading) return;
    reading = true;
    // A reading that fails here is only a gap on the screen; the one at the end is what counts.
    meter.read().then(
      (got) => ([powerW, reading] = [got.powerW, false]),
      () => ([powerW, reading] = [null, false]),
    );
  }, PROGRESS_EVERY_MS);
  return () => {
    clearInterval(timer);
    report();
  };
}

/** Reads at that instant, or at once when the run is cut short. Tries again: a hiccup must not cost an hour's measurement. */
async function readAt(meter: EnergyMeter, atMs: number, signal: AbortSignal | undefined): Promise<EnergyReading | Error> {
  await sleepUntil(atMs, signal);
  let last = new Error('not read');
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      return await meter.read();
    } catch (error) {
      last = error instanceof Error ? error : new Error(String(error));
      await sleepUntil(nowMs() + 200, undefined);
    }
  }
  return last;
}

async function measureEnergy(start: EnergyReading, end: Promise<EnergyReading | Error>): Promise<EnergyUse> {
  const reading = await end;
  return reading instanceof Error ? { kind: 'unknown', why: reading.message } : energyBetween(start, reading);
}

async function sleepUntil(atMs: number, signal: AbortSignal | undefined): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, Math.max(0, atMs - nowMs()));
  const onAbort = () => resolve();
  signal?.addEventListener('abort', onAbort, { once: true });
  if (signal?.aborted === true) resolve();
  await promise;
  clearTimeout(timer);
  signal?.removeEventListener('abort', onAbort);
}
