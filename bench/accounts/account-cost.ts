// What keeping accounts costs of the scheduler's time: the same requests through it with and without, in turns.
import type { JobId, ReplicaId } from '../../src/core/job.ts';
import { createPerformanceModel, type PerformanceModel } from '../../src/frontier/performance-model.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { createScheduler } from '../../src/scheduler/scheduler.ts';

export interface AccountCost {
  readonly inFlight: number;
  /** A request with its arrival, ten events of tokens and its end: without accounts, and what they add. Lower quartiles of many rounds. */
  readonly requestUs: number;
  readonly accountsUs: number;
  /** One reading of a replica's counters, with so many in flight there: four a second. */
  readonly readingUs: number;
}

const ROUNDS = 61;
const REQUESTS = 1_000;
const REPLICA = 'r0' as ReplicaId;

export function measureAccountCost(profilePath: string, inFlight: number): AccountCost {
  const loaded = loadProfile(profilePath);
  const model = createPerformanceModel({ ...loaded, serving: { ...loaded.serving, maxSequences: 4096, kvTokens: 100_000_000 } });
  const [without, kept, readings]: number[][] = [[], [], []];
  for (let round = 0; round < ROUNDS; round++) {
    // Neighbours in time, so that what else the machine does falls on both alike.
    const order = round % 2 === 0 ? [false, true] : [true, false];
    const times = new Map(order.map((accounts) => [accounts, play(model, inFlight, accounts)]));
    const [off, on] = [times.get(false), times.get(true)] as [Played, Played];
    without?.push(off.requestUs);
    kept?.push(on.requestUs);
    readings?.push(on.readingUs);
  }
  const requestUs = quartile(without ?? []);
  return { inFlight, requestUs, accountsUs: quartile(kept ?? []) - requestUs, readingUs: quartile(readings ?? []) };
}

interface Played {
  readonly requestUs: number;
  readonly readingUs: number;
}

function play(model: PerformanceModel, inFlight: number, energyAccounts: boolean): Played {
  const scheduler = createScheduler({ replicas: [{ replicaId: REPLICA, models: ['m'], belief: model, concurrencyMax: 4096 }], policy: { kind: 'max-clock' }, attainmentTarget: 0.99, controlPeriodMs: 100, queuedMax: 100, energyAccounts });
  scheduler.handle({ kind: 'replica-health', replicaId: REPLICA, state: 'up' }, 0);
  let nowMs = 1;
  let energyJ = 0;
  let readingMs = 0;
  let readings = 0;
  const read = (): void => {
    energyJ += 100;
    const startedAtMs = performance.now();
    scheduler.handle({ kind: 'metered', replicaId: REPLICA, reading: { energyJ, epoch: 1, powerW: 400 } }, nowMs);
    readingMs += performance.now() - startedAtMs;
    readings += 1;
  };
  const begin = (id: number): void => void scheduler.handle({ kind: 'arrived', job: { jobId: `j${id}` as JobId, model: 'm', tenant: 't', sloClass: 'chat', slo: {}, promptBytes: 4000, promptTokens: 500 + (id % 700), work: 'generate', streaming: true } }, nowMs);
  const tokens = (id: number): void => void scheduler.handle({ kind: 'tokens', jobId: `j${id}` as JobId, tokens: 10 }, nowMs);
  read();
  for (let id = 0; id < inFlight; id++) {
    begin(id);
    tokens(id);
  }
  readingMs = 0;
  readings = 0;
  const startedAtMs = performance.now();
  for (let request = 0; request < REQUESTS; request++) {
    nowMs += 5;
    begin(inFlight + request);
    for (let turn = 0; turn < 10; turn++) tokens(request + 1 + Math.floor((turn * inFlight) / 10));
    scheduler.handle({ kind: 'ended', jobId: `j${request}` as JobId, outcome: 'finished', usage: { promptTokens: 500 + (request % 700), cachedTokens: 0, outputTokens: 100 } }, nowMs);
    if (request % 50 === 0) read();
  }
  return { requestUs: (1_000 * (performance.now() - startedAtMs - readingMs)) / REQUESTS, readingUs: (1_000 * readingMs) / readings };
}

/** The lower one: what else runs on the machine only ever adds. */
function quartile(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 4)] ?? 0;
}
