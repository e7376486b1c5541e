// One request of a run, measured: what the report is made of. No I/O.
import type { Slo } from '../core/job.ts';
import type { FailureReason, Reply } from './send-request.ts';

export interface RequestTimes {
  /** All from the intended send time: what a client waits, were the sender never late. */
  readonly ttftMs: number;
  /** `null` with fewer than 2 output tokens. */
  readonly tpotMs: number | null;
  readonly e2eMs: number;
}

export type RequestRecord = {
  readonly className: string;
  /** How much later than intended it went out. */
  readonly latenessMs: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  /** Also of a failed request: what it had got, since it cost energy all the same. */
  readonly outputTokens: number;
  readonly wantedOutputTokens: number;
  /** False where the tokens are counted events, for want of `usage`. */
  readonly usageReported: boolean;
} & ({ readonly kind: 'completed'; readonly times: RequestTimes; readonly missed: readonly (keyof Slo)[] } | { readonly kind: 'failed'; readonly reason: FailureReason; readonly detail: string });

export interface SentRequest {
  readonly className: string;
  readonly slo: Slo;
  readonly intendedAtMs: number;
  readonly sentAtMs: number;
  /** The workload's, used where the server reports none. */
  readonly promptTokens: number;
  readonly outputTokens: number;
}

export function recordOf(sent: SentRequest, reply: Exclude<Reply, { kind: 'cancelled' }>): RequestRecord {
  const { measured } = reply;
  const usage = measured?.usage ?? null;
  const outputTokens = usage?.outputTokens ?? measured?.contentEvents ?? 0;
  const common = {
    className: sent.className,
    latenessMs: sent.sentAtMs - sent.intendedAtMs,
    promptTokens: usage?.promptTokens ?? sent.promptTokens,
    cachedTokens: usage?.cachedTokens ?? 0,
    outputTokens,
    wantedOutputTokens: sent.outputTokens,
    usageReported: usage !== null,
  };
  if (reply.kind === 'failed') return { ...common, kind: 'failed', reason: reply.reason, detail: reply.detail };
  const { firstTokenAtMs, lastTokenAtMs } = reply.measured;
  const times: RequestTimes = {
    ttftMs: firstTokenAtMs - sent.intendedAtMs,
    tpotMs: outputTokens >= 2 ? (lastTokenAtMs - firstTokenAtMs) / (outputTokens - 1) : null,
    e2eMs: reply.endedAtMs - sent.intendedAtMs,
  };
  return { ...common, kind: 'completed', times, missed: missedSlos(times, sent.slo) };
}

/** Objectives that these times break; none where all hold. An objective met to the millisecond is met. */
export function missedSlos({ ttftMs, tpotMs, e2eMs }: RequestTimes, slo: Slo): (keyof Slo)[] {
  const missed: (keyof Slo)[] = [];
  if (slo.ttftMs !== undefined && ttftMs > slo.ttftMs) missed.push('ttftMs');
  // One token has no time per token after the first: that SLO asks nothing of it.
  if (slo.tpotMs !== undefined && tpotMs !== null && tpotMs > slo.tpotMs) missed.push('tpotMs');
  if (slo.e2eMs !== undefined && e2eMs > slo.e2eMs) missed.push('e2eMs');
  return missed;
}

export function meets(record: RequestRecord): boolean {
  return record.kind === 'completed' && record.missed.length === 0;
}
