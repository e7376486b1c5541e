// What a request may take, kept over all its tries.
import type { JobSpec, Slo } from '../core/job.ts';

/** What it may take, whatever becomes of it, and since when. */
export interface Asked {
  readonly slo: Slo;
  readonly queueTimeoutMs: number | undefined;
  readonly arrivedAtMs: number;
  /** Those that are left. */
  readonly fallbacks: readonly string[];
  /** Another model than the one behind the name serves it. */
  readonly fellBack: boolean;
}

/** What a job may take that comes again, less what is gone; at least something, so that it is late and not without a limit. */
export function lessSpent({ slo, queueTimeoutMs }: Asked, spentMs: number): Pick<JobSpec, 'slo' | 'queueTimeoutMs'> {
  const left = (ms: number): number => Math.max(1, ms - spentMs);
  return {
    slo: { ...slo, ...(slo.ttftMs === undefined ? {} : { ttftMs: left(slo.ttftMs) }), ...(slo.e2eMs === undefined ? {} : { e2eMs: left(slo.e2eMs) }) },
    ...(queueTimeoutMs === undefined ? {} : { queueTimeoutMs: left(queueTimeoutMs) }),
  };
}
