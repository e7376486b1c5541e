// What this edge asks of the one that speaks to model servers, which it does not import.
import type { IncomingHttpHeaders } from 'node:http';
import type { Usage } from '../core/job.ts';

/** A request under way to a replica. */
export interface Call {
  abort(): void;
  pause(): void;
  resume(): void;
}

/** What a replica's answer is told to; see the client in `upstream/`, which this edge does not import. */
export interface AnswerSink {
  answered(statusCode: number, headers: IncomingHttpHeaders, isEventStream: boolean): void;
  data(bytes: Buffer, tokens: number): void;
  ended(end: { readonly bytes: Buffer | null; readonly tokens: number; readonly usage: Usage | null; readonly errorInside: boolean; readonly trailers: IncomingHttpHeaders }): void;
  failed(failure: { readonly kind: 'unreachable' | 'broken' | 'timeout'; readonly error: Error; readonly atBoundary: boolean }): void;
}
