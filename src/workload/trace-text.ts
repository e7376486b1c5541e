// What the trace readers share: lines with their numbers, and fields that are whole numbers of tokens.
import type { WorkloadRequest } from './request.ts';
import { REQUEST_TOKENS_MAX, WORKLOAD_REQUESTS_MAX } from './limits.ts';
import { WorkloadError, malformed } from './workload-error.ts';

export interface TraceLine {
  readonly number: number;
  readonly text: string;
}

/** Lines from 1, without their ends (LF or CRLF) and a byte order mark. Blank ones are passed over. */
export function* traceLines(text: string): Generator<TraceLine> {
  let from = text.startsWith('\uFEFF') ? 1 : 0;
  for (let number = 1; from < text.length; number++) {
    const end = text.indexOf('\n', from);
    const stop = end === -1 ? text.length : end;
    const line = text.slice(from, text[stop - 1] === '\r' ? stop - 1 : stop);
    if (line.trim() !== '') yield { number, text: line };
    from = stop + 1;
  }
}

/** A count of tokens, at least 1: an engine can neither take an empty prompt nor be asked for no answer. */
export function tokenCount(given: string, at: { readonly file: string; readonly line: number; readonly column: string }): number {
  const count = /^\d{1,9}$/.test(given) ? Number(given) : Number.NaN;
  if (!(count >= 1 && count <= REQUEST_TOKENS_MAX)) throw malformed({ ...at, given, want: `a whole number, 1 to ${REQUEST_TOKENS_MAX}` });
  return count;
}

/** The bound on a workload's length, where lines become requests. */
export function boundedPush(requests: WorkloadRequest[], request: WorkloadRequest, file: string): void {
  if (requests.length >= WORKLOAD_REQUESTS_MAX) throw new WorkloadError(`${file}: more than ${WORKLOAD_REQUESTS_MAX} requests; cut the file or take fewer clients`);
  requests.push(request);
}

/** Recorded traces may hold late lines; a workload never goes back in time. Equal times keep the file's order. */
export function inOrderOfArrival(requests: WorkloadRequest[]): WorkloadRequest[] {
  return requests.sort((one, other) => one.atMs - other.atMs);
}
