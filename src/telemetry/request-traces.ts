// What is told of single requests: a span for each with one for every try at a model server, through OpenTelemetry's API, and a line
// in the log. Of what was asked and answered nothing is told, only how much and how fast.
import { context, propagation, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import type { Attributes, Context, Span, Tracer } from '@opentelemetry/api';
import type { Logger } from 'pino';
import type { JobId, JobSpec, ReplicaId } from '../core/job.ts';
import type { JobReport, Prediction } from '../scheduler/events.ts';
import { accessLine } from './access-line.ts';
import { attributesOfJob, attributesOfReport, type Decision } from './request-attributes.ts';

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/** One try at a model server. `ended` or `failed` comes last; neither where it was given up, which the request's trace knows. */
export interface Attempt {
  /** What the server is told of the trace, in the place of what the client said; empty where nobody traces. */
  readonly context: Readonly<Record<string, string>>;
  answered(statusCode: number): void;
  ended(): void;
  failed(kind: string): void;
}

/** One request. `closed` is told once and last. */
export interface RequestTrace {
  /** `null` where nobody traces. */
  readonly traceId: string | null;
  /** From here on it waits; again where another model takes it. */
  queued(job: JobSpec): void;
  sent(replicaId: ReplicaId, prediction: Prediction): Attempt;
  /** It is answered with an error of our own, by kind. */
  refused(kind: string): void;
  /** `statusCode`: `null` where no answer has begun. `left`: its client did not wait for the end. */
  closed(end: { readonly statusCode: number | null; readonly left: boolean }): void;
}

export interface RequestTraces {
  began(request: { readonly requestId: string; readonly method: string; readonly path: string; /** Not as the client chose it. */ readonly isRoute: boolean; readonly headers: Headers }): RequestTrace;
  reported(report: JobReport): void;
  /** What a replica's devices are to run at, and why, from now on. */
  demanded(replicaId: ReplicaId, decision: Decision): void;
  /** Nothing is demanded of it any more. */
  undemanded(replicaId: ReplicaId): void;
}

export interface RequestTracesOptions {
  /** `null`: no spans. */
  readonly tracer: Tracer | null;
  /** A line for each request goes there; `null`: none. */
  readonly accessLog: Logger | null;
  readonly serverOf: (replicaId: ReplicaId) => URL;
  /** Monotonic milliseconds. */
  readonly now: () => number;
}

const NO_CONTEXT: Readonly<Record<string, string>> = {};

/** `null` where neither spans nor lines are wanted. */
export function createRequestTraces(options: RequestTracesOptions): RequestTraces | null {
  const { tracer, accessLog, now } = options;
  if (tracer === null && accessLog === null) return null;
  /** Those under way that became a job. */
  const open = new Map<JobId, (report: JobReport) => void>();
  const decisions = new Map<ReplicaId, Decision>();

  return {
    began: ({ requestId, method, path, isRoute, headers }) => {
      const beganAtMs = now();
      const span = tracer === null ? null : serverSpan(tracer, { method, path, isRoute, headers });
      const recording = span !== null && span.own.isRecording();
      const traceId = span?.own.spanContext().traceId ?? null;
      let job: JobSpec | null = null;
      let report: JobReport | null = null;
      let refusal: string | null = null;
      let replica: ReplicaId | null = null;
      let attempts = 0;
      let queuedAtMs = beganAtMs;
      let sentAtMs: number | null = null;
      let attempt: Span | null = null;

      function endAttempt(error: string | null): void {
        if (attempt === null) return;
        if (error !== null) fails(attempt, error);
        attempt.end();
        attempt = null;
      }

      return {
        traceId,
        queued: (queued) => {
          if (job === null) queuedAtMs = now();
          job = queued;
          if (recording || accessLog !== null) open.set(queued.jobId, (told) => void (report = told));
          if (!recording) return;
          span.own.updateName(`${queued.operation ?? 'chat'} ${queued.model}`);
          span.own.setAttributes({ ...attributesOfJob(queued), 'paceline.request_id': requestId });
          span.own.addEvent('paceline.queued');
        },
        sent: (replicaId, prediction) => {
          endAttempt('abandoned');
          attempts += 1;
          replica = replicaId;
          sentAtMs ??= now();
          if (span === null || tracer === null) return { context: NO_CONTEXT, answered: nothing, ended: nothing, failed: nothing };
          if (recording) {
            const { pointId, binding } = decisions.get(replicaId) ?? { pointId: null, binding: null };
            span.own.setAttributes({
              'paceline.replica': replicaId,
              'paceline.attempts': attempts,
              'paceline.queue_ms': sentAtMs - queuedAtMs,
              'paceline.predicted.ttft_ms': prediction.ttftMs,
              'paceline.predicted.feasible': prediction.feasible,
              ...(prediction.workflowDueMs === undefined ? {} : { 'paceline.workflow.due_ms': prediction.workflowDueMs }),
              ...(prediction.slackMs === null ? {} : { 'paceline.slack_ms': prediction.slackMs }),
              ...(binding === null ? {} : { 'paceline.operating_point': pointId ?? 'default', 'paceline.decision': binding }),
            });
          }
          const tried = tracer.startSpan(method, { kind: SpanKind.CLIENT, ...(recording ? { attributes: attributesOfTry(options.serverOf(replicaId), { method, path, replicaId, resent: attempts - 1 }) } : {}) }, span.around);
          attempt = tried;
          const carried: Record<string, string> = {};
          propagation.inject(trace.setSpan(span.around, tried), carried);
          return {
            context: carried,
            answered: (statusCode) => {
              tried.setAttribute('http.response.status_code', statusCode);
              if (statusCode >= 400) fails(tried, String(statusCode));
            },
            ended: () => endAttempt(null),
            failed: (kind) => endAttempt(kind),
          };
        },
        refused: (kind) => {
          refusal = kind;
        },
        closed: ({ statusCode, left }) => {
          endAttempt('cancelled');
          if (job !== null) open.delete(job.jobId);
          if (span !== null) endServerSpan(span.own, { statusCode, error: refusal ?? (left ? 'cancelled' : failureOf(report)), report });
          accessLog?.info(accessLine({ requestId, traceId, method, path, statusCode, left, refusal, job, report, replica, attempts, queueMs: sentAtMs === null ? null : sentAtMs - queuedAtMs, durationMs: now() - beganAtMs }), 'request');
        },
      };
    },
    reported: (report) => open.get(report.jobId)?.(report),
    demanded: (replicaId, decision) => void decisions.set(replicaId, decision),
    undemanded: (replicaId) => void decisions.delete(replicaId),
  };
}

interface ServerSpan {
  readonly own: Span;
  /** What is begun within it. */
  readonly around: Context;
}

function serverSpan(tracer: Tracer, { method, path, isRoute, headers }: { readonly method: string; readonly path: string; readonly isRoute: boolean; readonly headers: Headers }): ServerSpan {
  const active = context.active();
  // Where the operator has Node's own servers instrumented too, theirs is around us already.
  const parent = trace.getSpan(active) === undefined ? propagation.extract(active, headers) : active;
  const attributes = { 'http.request.method': method, 'url.path': path, ...(isRoute ? { 'http.route': path } : {}) };
  const own = tracer.startSpan(isRoute ? `${method} ${path}` : method, { kind: SpanKind.SERVER, attributes }, parent);
  return { own, around: trace.setSpan(parent, own) };
}

function endServerSpan(span: Span, { statusCode, error, report }: { readonly statusCode: number | null; readonly error: string | null; readonly report: JobReport | null }): void {
  if (span.isRecording()) {
    if (report !== null) span.setAttributes(attributesOfReport(report));
    if (statusCode !== null) span.setAttribute('http.response.status_code', statusCode);
    if (error !== null) span.setAttribute('error.type', error);
    // By the conventions for servers what a client did wrong, or that it left, is no error of the server.
    if (error !== null && error !== 'cancelled' && (statusCode === null || statusCode < 400 || statusCode >= 500)) span.setStatus({ code: SpanStatusCode.ERROR });
  }
  span.end();
}

function attributesOfTry(server: URL, { method, path, replicaId, resent }: { readonly method: string; readonly path: string; readonly replicaId: ReplicaId; readonly resent: number }): Attributes {
  return {
    'http.request.method': method,
    'server.address': server.hostname,
    'server.port': Number(server.port === '' ? (server.protocol === 'https:' ? 443 : 80) : server.port),
    // Not the whole of its URL: a key may stand in it.
    'url.full': `${server.protocol}//${server.host}${path}`,
    'paceline.replica': replicaId,
    ...(resent > 0 ? { 'http.request.resend_count': resent } : {}),
  };
}

function fails(span: Span, error: string): void {
  span.setAttribute('error.type', error);
  span.setStatus({ code: SpanStatusCode.ERROR });
}

function failureOf(report: JobReport | null): string | null {
  return report === null || report.outcome === 'finished' ? null : report.outcome;
}

function nothing(): void {}
