// A part of a workload, and how fast it is played.
import type { Workload } from './request.ts';
import { WORKLOAD_SPAN_MAX_MS } from './limits.ts';
import { WorkloadError } from './workload-error.ts';

export interface Window {
  /** Seconds of the workload's own time, before `speed`. */
  readonly fromS?: number;
  /** Likewise; without it, to the end. */
  readonly durationS?: number;
  /** 2 plays twice as fast: times are halved, sizes stay. */
  readonly speed?: number;
  readonly requestsMax?: number;
}

/** The requests that arrive in [from, from + duration), counted from `from`. Throws where that leaves none. */
export function takeWindow(workload: Workload, { fromS = 0, durationS = Infinity, speed = 1, requestsMax = Infinity }: Window): Workload {
  const fromMs = fromS * 1000;
  const untilMs = fromMs + durationS * 1000;
  const requests = workload.requests
    .filter(({ atMs }) => atMs >= fromMs && atMs < untilMs)
    .slice(0, requestsMax)
    .map((request) => ({ ...request, atMs: (request.atMs - fromMs) / speed }));
  if (requests.length === 0) {
    const lastS = Math.floor((workload.requests.at(-1)?.atMs ?? 0) / 1000);
    const next = workload.requests.find(({ atMs }) => atMs >= fromMs);
    if (workload.requests.length === 0) throw new WorkloadError(`${workload.name}: no requests at all; take a higher rate or a longer duration`);
    const wayOut = next === undefined ? `the last one is at ${lastS} s` : `the next one is at ${Math.floor(next.atMs / 1000)} s`;
    throw new WorkloadError(`${workload.name}: no requests ${spanName(fromS, durationS)}; ${wayOut}`);
  }
  const spanMs = (requests.at(-1)?.atMs ?? 0) - (requests[0]?.atMs ?? 0);
  if (spanMs > WORKLOAD_SPAN_MAX_MS) throw new WorkloadError(`${workload.name}: ${Math.round(spanMs / 86_400_000)} days from the first request to the last, at most ${WORKLOAD_SPAN_MAX_MS / 86_400_000}; a time in another unit, or take a part with --from and --duration`);
  const part = fromS === 0 && durationS === Infinity ? '' : ` ${spanName(fromS, durationS)}`;
  return { name: `${workload.name}${part}${speed === 1 ? '' : ` x${speed}`}`, requests };
}

function spanName(fromS: number, durationS: number): string {
  return durationS === Infinity ? `from ${fromS} s` : `${fromS}-${fromS + durationS} s`;
}
