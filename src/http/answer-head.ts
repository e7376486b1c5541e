// The beginning of a server's answer, and what is known of where it comes from.
import type { IncomingHttpHeaders } from 'node:http';
import type { ReplicaId } from '../core/job.ts';
import type { Prediction } from '../scheduler/events.ts';

export interface AnswerHead {
  readonly statusCode: number;
  readonly headers: IncomingHttpHeaders;
  readonly streams: boolean;
  readonly replicaId: ReplicaId;
  readonly prediction: Prediction;
  readonly hideUsage: boolean;
  /** The model that serves it, where that is another than the one asked for. */
  readonly model: string | null;
}

/** Its bytes can follow others of an event stream. */
export function isReadableStream({ streams, headers }: AnswerHead): boolean {
  return streams && isReadable(headers);
}

/** Nothing has to be undone before its bytes say anything. */
export function isReadable(headers: IncomingHttpHeaders): boolean {
  return headers['content-encoding'] === undefined || headers['content-encoding'] === 'identity';
}
