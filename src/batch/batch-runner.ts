// Works on the batches of a store: checks them, sends as many of their lines as pacing wants, keeps their results, writes their
// files. A gateway that dies leaves only claims that run out; where the store is gone the runner waits for it.
import { setTimeout as delay } from 'node:timers/promises';
import type { BatchRecord } from './batch-record.ts';
import { finishBatch, stamped, validateBatch } from './batch-steps.ts';
import type { BatchStore, StoredLine } from './batch-store.ts';
import type { EnergyPrice } from '../core/energy-prices.ts';
import { BatchStoreError } from './batch-store.ts';
import type { LineLimits } from './input-lines.ts';
import type { LineAnswer, LineCall, LineClient } from './line-client.ts';
import { lineEnd } from './line-result.ts';
import type { BatchView } from './pacing.ts';
import { lineDeadlineMs, linesWanted } from './pacing.ts';

export interface RunnerOptions {
  readonly store: BatchStore;
  readonly client: LineClient;
  readonly workerId: string;
  readonly concurrencyMax: number;
  readonly lineLimits: LineLimits;
  /** How long a batch that is over is still told of. */
  readonly retentionMs: number;
  readonly fleet: () => { readonly room: number; readonly running: number; readonly queued: number };
  /** What energy costs, `fromMs` counted from now. */
  readonly prices?: () => readonly EnergyPrice[];
  /** Where nobody may come as that tenant, its lines wait for it to be back: a key that is replaced is away for a moment. */
  readonly mayCome: (tenant: string) => boolean;
  /** Of a request of that tenant that may take so long. */
  readonly headers: (tenant: string, deadlineMs: number) => Readonly<Record<string, string>>;
  readonly warn: (message: string) => void;
  /** Of the day: windows outlive processes. */
  readonly now: () => number;
  /** What a gateway's claims outlive it by. */
  readonly leaseMs?: number;
}

export interface BatchRunner {
  /** There is something new: look at once. */
  wake(): void;
  /** Calls back what is in flight, gives it back to the store, and resolves. */
  close(): Promise<void>;
}

/** Between two looks at the store, and after a failure of it. */
const EVERY_MS = { usual: 250, least: 10, broken: 1_000 };
const SWEEP_EVERY_MS = 60_000;
const LEASE_MS = 15_000;
/** Share of the latest line in the mean that pacing reckons with. */
const LATEST_SHARE = 0.1;

interface Flight {
  readonly call: LineCall;
  readonly ended: Promise<void>;
  calledBack: boolean;
}

interface Work {
  readonly flights: Map<number, Flight>;
  lineMs: number | null;
}

export function createBatchRunner(options: RunnerOptions): BatchRunner {
  const { store, workerId, now, leaseMs = LEASE_MS } = options;
  const nowS = (): number => Math.floor(now() / 1_000);
  const works = new Map<string, Work>();
  /** Validations and finishes under way. */
  const steps = new Map<string, Promise<void>>();
  const closing = new AbortController();
  let waker = new AbortController();
  let beatAtMs = Number.NEGATIVE_INFINITY;
  let sweptAtMs = Number.NEGATIVE_INFINITY;
  let broken = false;

  const running = run();

  async function run(): Promise<void> {
    while (!closing.signal.aborted) {
      try {
        await look();
        if (broken) options.warn('the store of batches is back: they go on');
        broken = false;
      } catch (error) {
        trouble(error);
      }
      await delay(EVERY_MS.least);
      await delay(broken ? EVERY_MS.broken : EVERY_MS.usual, undefined, { signal: broken ? closing.signal : AbortSignal.any([closing.signal, waker.signal]) }).catch(() => {});
      if (waker.signal.aborted) waker = new AbortController();
    }
  }

  function trouble(error: unknown): void {
    if (!(error instanceof BatchStoreError)) throw error;
    if (!broken) options.warn(`batches wait, their store does not work: ${error.message}`);
    broken = true;
  }

  async function look(): Promise<void> {
    const nowMs = now();
    if (nowMs - beatAtMs >= leaseMs / 4) {
      await store.beat(workerId, nowMs, nowMs + leaseMs);
      beatAtMs = nowMs;
    }
    if (nowMs - sweptAtMs >= SWEEP_EVERY_MS) {
      await store.sweep(nowMs, Math.floor((nowMs - options.retentionMs) / 1_000));
      sweptAtMs = nowMs;
    }
    const open = await store.openBatches();
    const ids = new Set(open.map(({ id }) => id));
    for (const [id, work] of works) {
      if (!ids.has(id)) callBack(work);
      if (!ids.has(id) && work.flights.size === 0) works.delete(id);
    }
    for (const batch of open) await advance(batch);
    await sendLines(open.filter((batch) => batch.status === 'in_progress' && now() < batch.dueAtMs && options.mayCome(batch.tenant)));
  }

  /** What a batch needs beside its lines. */
  async function advance(batch: BatchRecord): Promise<void> {
    if (steps.has(batch.id)) return;
    const late = now() >= batch.dueAtMs;
    const { total, completed, failed } = batch.counts;
    if (batch.status === 'validating') {
      if (late) await end(batch, 'expired');
      else await step(batch, () => validateBatch(store, batch, options.lineLimits, nowS));
    } else if (batch.status === 'in_progress' && completed + failed >= total) await end(batch, 'completed');
    else if (batch.status === 'in_progress' && late) await end(batch, 'expired');
    else if (batch.status === 'finalizing' || batch.status === 'cancelling') {
      callBack(workOf(batch.id));
      // Others see it at their next look; what they have in flight is not finished without them.
      if ((await store.claimedLines(batch.id, now())) === 0) await step(batch, () => finishBatch(store, batch, workerId, nowS));
    }
  }

  async function end(batch: BatchRecord, ending: 'completed' | 'expired'): Promise<void> {
    await store.changeBatch(batch.id, (current) => (current.status === batch.status ? stamped({ ...current, status: 'finalizing', ending }, 'finalizing_at', nowS()) : null));
    wake();
  }

  async function step(batch: BatchRecord, work: () => Promise<void>): Promise<void> {
    if (!(await store.claimBatch(batch.id, workerId, now()))) return;
    const done = work()
      .catch(trouble)
      .then(() => store.unclaimBatch(batch.id, workerId))
      .catch(trouble)
      .finally(() => {
        steps.delete(batch.id);
        wake();
      });
    steps.set(batch.id, done);
  }

  async function sendLines(batches: readonly BatchRecord[]): Promise<void> {
    const views = batches.map((batch): BatchView => {
      const { total, completed, failed } = batch.counts;
      return { remaining: total - completed - failed, leftMs: batch.dueAtMs - now(), lineMs: workOf(batch.id).lineMs };
    });
    const ownInFlight = [...works.values()].reduce((sum, { flights }) => sum + flights.size, 0);
    const prices = options.prices?.() ?? [];
    const wanted = linesWanted({ batches: views, ...options.fleet(), prices, ownInFlight, concurrencyMax: options.concurrencyMax });
    let free = options.concurrencyMax - ownInFlight;
    for (const [index, batch] of batches.entries()) {
      const work = workOf(batch.id);
      const more = Math.min(free, (wanted[index] as number) - work.flights.size);
      if (more <= 0 || closing.signal.aborted) continue;
      const lines = await store.claimLines(batch.id, workerId, more, now());
      free -= lines.length;
      for (const line of lines) send(batch, work, line, lineDeadlineMs(views[index] as BatchView, wanted[index] as number, prices));
    }
  }

  function send(batch: BatchRecord, work: Work, line: StoredLine, deadlineMs: number): void {
    const sentAtMs = now();
    const call = options.client.send({ path: batch.endpoint, headers: options.headers(batch.tenant, deadlineMs), body: line.body });
    const flight: Flight = { call, calledBack: false, ended: settle() };
    work.flights.set(line.line, flight);

    async function settle(): Promise<void> {
      const answer = await call.answer;
      if (answer.kind === 'answered' && answer.statusCode < 400) work.lineMs = mean(work.lineMs, Math.max(1, now() - sentAtMs));
      await keep(batch, line, flight, answer);
      work.flights.delete(line.line);
      wake();
    }
  }

  /** Until the store has it: a result is not lost because the store is away for a while. Its line stays in flight so long. */
  async function keep(batch: BatchRecord, { line, customId, tries, failures }: StoredLine, flight: Flight, answer: LineAnswer): Promise<void> {
    const end = lineEnd(customId, answer, { tries, failures }, Math.random());
    for (;;) {
      try {
        if (flight.calledBack && answer.kind === 'lost') await store.returnLine(batch.id, line, { tries, failures }, 0);
        else if (end.kind === 'result') await store.recordLine(batch.id, line, end);
        else await store.returnLine(batch.id, line, end.tries, now() + end.inMs);
        return;
      } catch (error) {
        trouble(error);
        if (closing.signal.aborted) return;
        await delay(EVERY_MS.broken, undefined, { signal: closing.signal }).catch(() => {});
      }
    }
  }

  function workOf(batchId: string): Work {
    let work = works.get(batchId);
    if (work === undefined) works.set(batchId, (work = { flights: new Map(), lineMs: null }));
    return work;
  }

  function callBack({ flights }: Work): void {
    for (const flight of flights.values()) {
      if (flight.calledBack) continue;
      flight.calledBack = true;
      flight.call.abort();
    }
  }

  function wake(): void {
    waker.abort();
  }

  return {
    wake,
    async close() {
      closing.abort();
      await running;
      for (const work of works.values()) callBack(work);
      await Promise.all([...works.values()].flatMap(({ flights }) => [...flights.values()].map(({ ended }) => ended)));
      await Promise.all(steps.values());
      // Where the store is gone the claims run out by themselves.
      await store.leave(workerId).catch(() => {});
    },
  };
}

function mean(before: number | null, latest: number): number {
  return before === null ? latest : before + LATEST_SHARE * (latest - before);
}
