// One turn of an arm as the file keeps it, from what the load generator and the meters say. Pure.
import type { BenchResult } from '../loadgen/bench-result.ts';
import { meets, type RequestRecord } from '../loadgen/request-record.ts';
import { keptLatencies, type Turn } from './comparison-file.ts';
import type { WindowEnergy } from './energy-log.ts';

export interface TurnFacts {
  readonly round: number;
  readonly arm: string;
  readonly startedAtS: number;
  readonly windowS: number;
  readonly result: BenchResult;
  readonly records: readonly RequestRecord[];
  readonly metered: WindowEnergy;
}

/** A counter whose tick is more than this share of the window leaves its ends uncertain enough to be told; below a second we cannot see ticks. */
const TICK_SHARE_NOTED = 0.01;
const TICK_S_SEEN = 1;

export function turnOf({ round, arm, startedAtS, windowS, result, records, metered }: TurnFacts): Turn {
  const completed = records.filter((record) => record.kind === 'completed');
  const byClass = Object.fromEntries([...Map.groupBy(records, ({ className }) => className)].map(([name, own]) => [name, { requests: own.length, met: own.filter(meets).length }]));
  const energy = result.interrupted && metered.energy !== null ? { kind: 'unknown' as const, why: 'interrupted' } : metered.energy;
  const notes = [...result.notes];
  if (result.durationS > windowS && metered.energy !== null) notes.push(`the last answer ended ${(result.durationS - windowS).toFixed(1)} s after the energy window: its tokens are counted, the energy of its end is not; use a longer --tail`);
  if (metered.tickS > Math.max(TICK_S_SEEN, TICK_SHARE_NOTED * windowS)) notes.push(`the energy counter stood still for up to ${metered.tickS.toFixed(1)} s: at both ends of the window so much is guessed from the power; let the exporter collect more often (dcgm-exporter: --collect-interval, in ms)`);
  return {
    round,
    arm,
    startedAtS: Math.round(startedAtS * 1000) / 1000,
    seed: result.seed,
    promptSalt: result.promptSalt,
    interrupted: result.interrupted,
    requests: result.requests,
    completed: result.completed,
    failed: result.failed,
    rejected: result.rejected,
    unfinished: result.unfinished,
    met: records.filter(meets).length,
    byClass,
    missed: result.missed,
    failures: result.failures,
    promptTokens: result.promptTokens,
    cachedTokens: result.cachedTokens,
    outputTokens: result.outputTokens,
    ttftMs: keptLatencies(completed.map(({ times }) => times.ttftMs)),
    tpotMs: keptLatencies(completed.flatMap(({ times }) => times.tpotMs ?? [])),
    e2eMs: keptLatencies(completed.map(({ times }) => times.e2eMs)),
    sendLatenessP99Ms: result.sendLatenessMs.p99,
    durationS: result.durationS,
    windowS,
    energy,
    power: { everyS: metered.everyS, meanW: metered.powerW.map((value) => (value === null ? null : Math.round(value * 10) / 10)), tickS: metered.tickS },
    notes,
  };
}
