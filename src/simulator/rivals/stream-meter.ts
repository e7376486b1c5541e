// What a server measures of itself and the gateway sees in its answers: tokens, gaps between them, times to first token; per
// replica. For rivals that steer by feedback.
import type { JobId, ReplicaId } from '../../core/job.ts';
import type { ReplicaView } from '../../core/replica-view.ts';
import type { SchedulerEvent } from '../../scheduler/events.ts';

/** Since the start; whoever wants a window subtracts two of them. */
export interface StreamTotals {
  readonly arrivals: number;
  readonly promptTokens: number;
  readonly firstTokens: number;
  readonly tokens: number;
  readonly gaps: number;
  readonly gapsMs: number;
}

export interface StreamMeter {
  observe(event: SchedulerEvent, nowMs: number): void;
  /** Right after a job was sent there: it is the last that waits. */
  placed(replicaId: ReplicaId, view: ReplicaView): void;
  totals(replicaId: ReplicaId): StreamTotals;
  /** Recent mean gap between a stream's tokens, the gap under way counted once it is longer; `null` before its second token. */
  recentGapMs(jobId: JobId, nowMs: number): number | null;
}

interface Stream {
  readonly totals: { -readonly [Key in keyof StreamTotals]: StreamTotals[Key] };
  lastAtMs: number | null;
  recentGapMs: number | null;
}

/** A stream's recent mean goes over about this many tokens. */
const RECENT_TOKENS = 16;

export function createStreamMeter(): StreamMeter {
  const byReplica = new Map<ReplicaId, Stream['totals']>();
  const streams = new Map<JobId, Stream>();

  function totalsOf(replicaId: ReplicaId): Stream['totals'] {
    const known = byReplica.get(replicaId);
    if (known !== undefined) return known;
    const totals = { arrivals: 0, promptTokens: 0, firstTokens: 0, tokens: 0, gaps: 0, gapsMs: 0 };
    byReplica.set(replicaId, totals);
    return totals;
  }

  return {
    observe(event, toldAtMs) {
      if (event.kind === 'ended') streams.delete(event.jobId);
      if (event.kind !== 'tokens') return;
      const nowMs = event.lastAtMs ?? toldAtMs;
      const stream = streams.get(event.jobId);
      if (stream === undefined) return;
      const { totals, lastAtMs } = stream;
      totals.tokens += event.tokens;
      if (lastAtMs === null) totals.firstTokens += 1;
      else {
        const gapMs = (nowMs - lastAtMs) / event.tokens;
        totals.gaps += event.tokens;
        totals.gapsMs += nowMs - lastAtMs;
        stream.recentGapMs = stream.recentGapMs === null ? gapMs : stream.recentGapMs + (gapMs - stream.recentGapMs) / RECENT_TOKENS;
      }
      stream.lastAtMs = nowMs;
    },
    placed(replicaId, { waiting }) {
      const prompt = waiting.at(-1);
      if (prompt === undefined) return;
      const totals = totalsOf(replicaId);
      totals.arrivals += 1;
      totals.promptTokens += prompt.promptTokens;
      streams.set(prompt.jobId, { totals, lastAtMs: null, recentGapMs: null });
    },
    totals: (replicaId) => ({ ...totalsOf(replicaId) }),
    recentGapMs(jobId, nowMs) {
      const { lastAtMs, recentGapMs } = streams.get(jobId) ?? { lastAtMs: null, recentGapMs: null };
      if (lastAtMs === null || recentGapMs === null) return null;
      const underWayMs = nowMs - lastAtMs;
      return underWayMs > recentGapMs ? recentGapMs + (underWayMs - recentGapMs) / RECENT_TOKENS : recentGapMs;
    },
  };
}
