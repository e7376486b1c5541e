// A sink that also tells the request's trace what came of a try at a model server.
import type { Attempt } from '../telemetry/request-traces.ts';
import type { AnswerSink } from './answer-sink.ts';

/** `null`: nobody traces, and it is the sink itself. */
export function tracedSink(sink: AnswerSink, attempt: Attempt | null): AnswerSink {
  if (attempt === null) return sink;
  return {
    answered: (statusCode, headers, streams) => {
      attempt.answered(statusCode);
      sink.answered(statusCode, headers, streams);
    },
    data: sink.data,
    // Before the sink, which may go on to another server at once.
    ended: (end) => {
      attempt.ended();
      sink.ended(end);
    },
    failed: (failure) => {
      attempt.failed(failure.kind);
      sink.failed(failure);
    },
  };
}
