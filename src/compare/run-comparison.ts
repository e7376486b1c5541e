// The session: arms take turns under the same load, round by round. A turn is a rest, a warm-up that is discarded, and the load that
// counts, measured for the same length in every turn. Whatever ends it early, the turns that were whole are the result.
import { randomInt } from 'node:crypto';
import { Pool } from 'undici';
import { AgentError } from '../agent/connection.ts';
import { LoadError, findModel, parseTargetUrl } from '../loadgen/load-target.ts';
import type { RequestRecord } from '../loadgen/request-record.ts';
import { type LoadOptions, type LoadProgress, runLoad } from '../loadgen/run-load.ts';
import type { Workload } from '../workload/request.ts';
import { BEST_EFFORT, type SloClass } from '../workload/slo-classes.ts';
import { type Arm, ArmError, targetText } from './arm-target.ts';
import { COMPARISON_FORMAT, type Comparison, type Turn } from './comparison-file.ts';
import { type EnergyLog, startEnergyLog } from './energy-log.ts';
import { startArm } from './gateway-arm.ts';
import type { MeterSpec } from './meter.ts';
import { scheduleOf, type ScheduledTurn } from './schedule.ts';
import { turnOf } from './turn-record.ts';

export interface RoundLoad {
  readonly workload: Workload;
  readonly seed: number;
}

export interface ComparisonOptions {
  readonly arms: readonly Arm[];
  /** One for each round: all arms get the same requests in it. */
  readonly rounds: readonly RoundLoad[];
  /** Discarded, before each turn; `null`: none. */
  readonly warmUp: Workload | null;
  readonly classes?: readonly SloClass[];
  readonly seed: number;
  readonly restS: number;
  readonly warmUpS: number;
  readonly loadS: number;
  /** After the load, for its last answers; part of the energy window. */
  readonly tailS: number;
  readonly meters: readonly MeterSpec[];
  /** What the load of every turn has in common. */
  readonly load: Pick<LoadOptions, 'endpoint' | 'lengths' | 'maxTokens' | 'model' | 'apiKey' | 'headers' | 'timeoutMs' | 'inFlightMax'>;
  /** Default: drawn; others for each turn, so that no arm finds a prefix cache warm from another. */
  readonly saltBase?: number;
  readonly command?: string;
  readonly signal?: AbortSignal;
  readonly onTurn?: (turn: ScheduledTurn, count: { readonly done: number; readonly total: number }) => void;
  /** After every turn, with what there is by then: `end` is `interrupted` until all are done. */
  readonly onPartial?: (comparison: Comparison) => Promise<void>;
  readonly onProgress?: (progress: LoadProgress) => void;
  readonly onWarning?: (message: string) => void;
}

const SALT_MAX = 2 ** 31;

/** Throws `ArmError`, `LoadError` or `AgentError` before the first turn where the comparison makes no sense. */
export async function runComparison(options: ComparisonOptions): Promise<Comparison> {
  const { arms, rounds, signal } = options;
  const saltBase = options.saltBase ?? randomInt(SALT_MAX);
  const models = await modelsOf(options);
  const log = await startEnergyLog(options.meters, nowMs);
  const startedAt = new Date().toISOString();
  const startedAtMs = nowMs();
  const turns: Turn[] = [];
  const comparison = (end: Comparison['end']): Comparison => ({
    format: COMPARISON_FORMAT,
    startedAt,
    command: options.command ?? null,
    arms: arms.map(({ name, target }, index) => ({ name, target: targetText(target), model: models[index] ?? '' })),
    meters: options.meters.map(({ arm, kind, devices }) => ({ arm, kind, devices: [...devices] })),
    load: {
      workload: rounds[0]?.workload.name ?? '',
      seed: options.seed,
      rounds: rounds.length,
      restS: options.restS,
      warmUpS: options.warmUpS,
      loadS: options.loadS,
      tailS: options.tailS,
      endpoint: options.load.endpoint ?? 'chat',
      lengths: options.load.lengths ?? 'hidden',
      classes: (options.classes ?? BEST_EFFORT).map(({ name, share, slo }) => ({ name, share, ...slo })),
    },
    turns: [...turns],
    end,
  });
  try {
    const schedule = scheduleOf(arms.length, rounds.length, options.seed);
    for (const [index, scheduled] of schedule.entries()) {
      options.onTurn?.(scheduled, { done: index, total: schedule.length });
      const played = await playTurn(options, scheduled, { model: models[scheduled.arm] ?? '', salt: (saltBase + 2 * index) % SALT_MAX, startedAtMs, log });
      if (played.turn !== null) turns.push(played.turn);
      if (signal?.aborted === true) return comparison({ kind: 'interrupted' });
      if (played.trouble !== null) return comparison({ kind: 'failed', why: `round ${scheduled.round + 1}: ${played.trouble}` });
      await options.onPartial?.(comparison({ kind: 'interrupted' }));
    }
    return comparison({ kind: 'complete' });
  } finally {
    await log.close();
  }
}

interface Place {
  readonly model: string;
  readonly salt: number;
  readonly startedAtMs: number;
  readonly log: EnergyLog;
}

/** Of what kind of trouble the session dies is told, never thrown: what was measured before it is worth keeping. */
async function playTurn(options: ComparisonOptions, { round, arm: index }: ScheduledTurn, { model, salt, startedAtMs, log }: Place): Promise<{ readonly turn: Turn | null; readonly trouble: string | null }> {
  const [arm, load] = [options.arms[index] as Arm, options.rounds[round] as RoundLoad];
  const ended = new AbortController();
  let trouble: string | null = null;
  const stop = (): void => ended.abort();
  options.signal?.addEventListener('abort', stop, { once: true });
  if (options.signal?.aborted === true) stop();
  let running: { readonly url: string; close(): Promise<void> } | null = null;
  try {
    await sleep(options.restS, ended.signal);
    if (ended.signal.aborted) return { turn: null, trouble };
    running = await startArm(arm.name, arm.target, (message) => {
      trouble ??= message;
      stop();
    });
    const common: LoadOptions = { ...options.load, model, url: running.url, workload: load.workload, signal: ended.signal, ...(options.classes === undefined ? {} : { classes: options.classes }), ...(options.onWarning === undefined ? {} : { onWarning: options.onWarning }) };
    if (options.warmUp !== null) await runLoad({ ...common, workload: options.warmUp, seed: load.seed, promptSalt: (salt + 1) % SALT_MAX });
    if (ended.signal.aborted) return { turn: null, trouble };
    let played: { readonly records: readonly RequestRecord[]; readonly startedAtMs: number } = { records: [], startedAtMs: nowMs() };
    log.dropBefore(nowMs() - 1_000);
    const result = await runLoad({ ...common, seed: load.seed, promptSalt: salt, onEnd: (end) => (played = end), ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }) });
    const windowS = options.loadS + options.tailS;
    if (options.meters.length > 0) await sleep((played.startedAtMs + windowS * 1000 - nowMs()) / 1000, ended.signal);
    const endMs = ended.signal.aborted ? nowMs() : played.startedAtMs + windowS * 1000;
    const metered = await log.window(arm.name, played.startedAtMs, endMs);
    const cut = ended.signal.aborted;
    const turn = turnOf({ round, arm: arm.name, startedAtS: (played.startedAtMs - startedAtMs) / 1000, windowS, result: cut ? { ...result, interrupted: true } : result, records: played.records, metered });
    if (trouble === null && result.completed === 0 && !cut) trouble = `${arm.name} completed none of ${result.requests} requests (${Object.entries(result.failures).map(([why, times]) => `${times} × ${why}`).join(', ')})`;
    return { turn, trouble };
  } catch (error) {
    if (!(error instanceof ArmError || error instanceof LoadError || error instanceof AgentError)) throw error;
    return { turn: null, trouble: trouble ?? `${arm.name}: ${error.message}` };
  } finally {
    options.signal?.removeEventListener('abort', stop);
    await running?.close();
  }
}

/** Every arm is brought up once, so that a wrong address or configuration shows before the first turn. Returns their models. */
async function modelsOf({ arms, load, signal, onWarning }: ComparisonOptions): Promise<readonly string[]> {
  const models: string[] = [];
  for (const arm of arms) {
    if (signal?.aborted === true) break;
    const running = await startArm(arm.name, arm.target, (message) => onWarning?.(message));
    try {
      const { origin, basePath } = parseTargetUrl(running.url);
      const pool = new Pool(origin, { connections: 1 });
      try {
        models.push(await findModel(pool, running.url, basePath, { ...(load.apiKey === undefined ? {} : { authorization: `Bearer ${load.apiKey}` }), ...load.headers }, load.model));
      } finally {
        await pool.destroy();
      }
    } catch (error) {
      if (error instanceof LoadError) throw new ArmError(`arm ${arm.name}: ${error.message}`, { cause: error });
      throw error;
    } finally {
      await running.close();
    }
  }
  const other = models.findIndex((model) => model !== models[0]);
  if (other !== -1) throw new ArmError(`arms answer different models: ${arms[0]?.name} has '${models[0]}', ${arms[other]?.name} has '${models[other]}'; say which one with --model NAME`);
  return models;
}

async function sleep(seconds: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted || seconds <= 0) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, seconds * 1000);
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
  clearTimeout(timer);
}

function nowMs(): number {
  return performance.now();
}
