// One inference request from its first byte to its last: read, admitted, sent to the replica the scheduler names, and
// its answer handed through. Whoever goes away first, client or server, the other side is let go at once.
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { SloConfig, TenantConfig } from '../config.ts';
import type { JobId, JobSpec, ReplicaId, Usage } from '../core/job.ts';
import type { LimitDecision, Limiter } from '../core/tenant-limits.ts';
import { isLimited } from '../core/tenant-limits.ts';
import type { Runtime } from '../runtime.ts';
import type { RejectReason } from '../scheduler/events.ts';
import type { RequestTraces } from '../telemetry/request-traces.ts';
import type { Access } from './access.ts';
import { tenantOf } from './access.ts';
import type { AnswerHead } from './answer-head.ts';
import { isReadableStream } from './answer-head.ts';
import type { AnswerSink, Call } from './answer-sink.ts';
import type { AnswerWriter } from './answer-writer.ts';
import type { Asked } from './asked.ts';
import { lessSpent } from './asked.ts';
import { cut, cutIfUnread } from './cut.ts';
import type { Refusal } from './error-response.ts';
import type { Endpoint } from './endpoints.ts';
import { dialectOf, ENDPOINTS, operationOf } from './endpoints.ts';
import { energyWriterFor, readEnergyAsked, setEnergyHeaders } from './energy-told.ts';
import type { EnginePriority } from './engine-priority.ts';
import { errorEvent, writeRefusal } from './error-response.ts';
import { clientHeaders, clientTrailers, requestIdOf, serverRequestIdOf, traceIdOf } from './headers.ts';
import { createHeldAnswer, type HeldAnswer } from './held-answer.ts';
import { jobOf } from './job-of.ts';
import type { KeepAlive } from './keep-alive.ts';
import { createKeepAlive, NO_KEEP_ALIVE } from './keep-alive.ts';
import type { ModelNames } from './model-names.ts';
import type { InferenceRequest } from './openai-request.ts';
import { readInferenceRequest } from './openai-request.ts';
import type { RefusedAnswer } from './refused-answer.ts';
import { createRefusedAnswer, isRefusal } from './refused-answer.ts';
import { setRateLimitHeaders } from './rate-limit-headers.ts';
import { readBody } from './request-body.ts';
import { serverErrorEvent } from './server-error-event.ts';
import { tierTold, tierToldOfClass } from './service-tier.ts';
import { readSlo, worthOf } from './slo.ts';
import { tierWriterFor } from './tier-writer.ts';
import { tracedSink } from './traced-sink.ts';
import type { ServerRequest } from './upstream-request.ts';
import { queryOf, upstreamRequest } from './upstream-request.ts';
import { type KnownWorkflows, readWorkflowCall } from './workflow-call.ts';

/** Models, retries, SLOs and access may become others between two requests: what a request needs of them it reads once. */
export interface ExchangeOptions {
  readonly runtime: Pick<Runtime, 'submit' | 'tokens' | 'ended' | 'returned' | 'hasOther' | 'energyOf'>;
  readonly send: (replicaId: ReplicaId, request: ServerRequest, sink: AnswerSink) => Call;
  /** How a replica is spoken to: the name it knows the model by, and whether it may be asked for the usage of a stream. */
  readonly upstream: (replicaId: ReplicaId, model: string) => { readonly model: string; readonly asksUsage: boolean; readonly priority: EnginePriority | null };
  /** Where there is one model alone, requests of some endpoints need not name it. */
  readonly models: ModelNames;
  /** What the beginnings of a tenant's prompts are told apart by; `null` where they do not matter. */
  readonly prefixSeed: (model: string, tenant: string) => string | null;
  /** Refusals by a server (429, 503) after which another replica is asked, per request. */
  readonly retriesMax: number;
  readonly slo: SloConfig;
  readonly access: Access;
  /** Asked for tenants that have limits; whoever reports a job's end settles it there. */
  readonly limiter: Limiter;
  readonly workflows: KnownWorkflows;
  readonly bodyBytesMax: number;
  /** What a client gets that does not read the end of its answer. */
  readonly stallMs: number;
  readonly now: () => number;
  readonly draining: () => boolean;
  readonly refused: (kind: Refusal['kind'], requestId: string) => void;
  readonly rejected: (reason: RejectReason, sloClass: string) => void;
  /** Another replica is asked, for the server said it could not serve the request now. */
  readonly retried: (retry: { readonly requestId: string; readonly replicaId: ReplicaId; readonly statusCode: number }) => void;
  /** Another model is asked, for no replica of the one wanted is up. */
  readonly fellBack: (fallback: { readonly requestId: string; readonly from: string; readonly to: string }) => void;
  readonly failed: (failure: Failure & { readonly requestId: string; readonly traceId: string | null }) => void;
  /** `null`: of single requests nothing is told. */
  readonly traces?: RequestTraces | null;
}

interface Failure {
  readonly replicaId: ReplicaId;
  readonly phase: 'before-answer' | 'mid-answer';
  readonly error: Error;
}

/** `path` is the route's, without what the client wrote behind it. */
export type Exchange = (endpoint: Endpoint, path: string, incoming: IncomingMessage, outgoing: ServerResponse) => void;

/** What goes to a replica; the body until one has answered. */
interface Content {
  body: Buffer | null;
  readonly usageOptions: InferenceRequest['usageOptions'];
  /** Of the model, as the client wrote it. */
  readonly name: string;
  /** Models that may stand in for it, in order. */
  readonly fallbacks: readonly string[];
  /** What its answer is to say of the service tier; `null`: nothing, it goes as it came. */
  readonly tier: string | null;
  /** Its answer is to say what it took of the devices' energy. */
  readonly energy: boolean;
}

type State =
  | { readonly kind: 'reading' }
  | { readonly kind: 'queued'; readonly jobId: JobId }
  | { readonly kind: 'sent'; readonly jobId: JobId; readonly call: Call }
  /** The server said "not now" and, once that is read, another replica may have it; or, not `again`, it is to become an event. */
  | { readonly kind: 'refused'; readonly jobId: JobId; readonly call: Call; readonly refused: RefusedAnswer; readonly again: boolean }
  | { readonly kind: 'answering'; readonly jobId: JobId; readonly call: Call; readonly eventStream: boolean; readonly succeeded: boolean; readonly writers: readonly AnswerWriter[]; readonly trailersOf: IncomingHttpHeaders | null; /** Nothing of it has gone out. */ readonly held: HeldAnswer | null }
  | { readonly kind: 'over' };

export function createExchange(options: ExchangeOptions): Exchange {
  const { runtime, now, traces = null } = options;
  let jobs = 0;

  return (endpoint, path, incoming, outgoing) => {
    const requestId = requestIdOf(incoming.headers);
    /** The same at each try. */
    const serverRequestId = serverRequestIdOf(incoming.headers, requestId);
    const trace = traces?.began({ requestId, method: incoming.method ?? 'POST', path, isRoute: ENDPOINTS.has(path), headers: incoming.headers }) ?? null;
    let state: State = { kind: 'reading' };
    /** A replica it was sent to could not be reached. */
    let unreached = false;
    let retries = 0;
    /** What the last server that refused it said. */
    let refusal: RefusedAnswer | null = null;
    let keepAlive: KeepAlive = NO_KEEP_ALIVE;

    const refuse = (refusal: Refusal): void => {
      options.refused(refusal.kind, requestId);
      trace?.refused(refusal.kind);
      if (keepAlive.hasBegun()) return endWith(errorEvent(refusal, dialectOf(path)));
      state = { kind: 'over' };
      keepAlive.stop();
      writeRefusal(outgoing, refusal, requestId, dialectOf(path));
    };

    const failed = (failure: Failure): void => options.failed({ ...failure, requestId, traceId: trace?.traceId ?? traceIdOf(incoming.headers) });

    outgoing.once('close', () => {
      const left = state;
      state = { kind: 'over' };
      keepAlive.stop();
      if (left.kind === 'sent' || left.kind === 'refused' || left.kind === 'answering') left.call.abort();
      if (left.kind !== 'reading' && left.kind !== 'over') runtime.ended(left.jobId, 'cancelled', null);
      trace?.closed({ statusCode: outgoing.headersSent ? outgoing.statusCode : null, left: left.kind !== 'over' });
    });

    if (options.draining()) return refuse({ kind: 'rejected', reason: 'draining', retryAfterMs: null });
    const identity = tenantOf(incoming.headers, options.access);
    if (identity.kind === 'unauthorized') return refuse(identity);

    readBody(incoming, options.bodyBytesMax, () => outgoing.writeContinue(), (reading) => {
      if (state.kind !== 'reading') return;
      if (reading.kind === 'too-large') return refuse({ kind: 'body-too-large', bytesMax: options.bodyBytesMax });
      if (reading.kind === 'encoded') return refuse({ kind: 'body-encoded', encoding: reading.encoding });
      const parsed = readInferenceRequest(endpoint, reading.body, incoming.headers['content-type'], (name) => prefixSeedOf(name, identity.tenant));
      if (parsed.kind === 'bad') return refuse({ kind: 'bad-request', param: parsed.param, message: parsed.message });
      const { request } = parsed;
      if (request.unread && identity.tenant.models !== null) return refuse({ kind: 'bad-request', param: null, message: 'your key is for some models only, so that the body must say which: want JSON (application/json, UTF-8) or a plain form (multipart/form-data)' });
      const name = request.model ?? modelOf(incoming.url) ?? options.models.sole(identity.tenant);
      if (name === null) return refuse({ kind: 'bad-request', param: 'model', message: 'several models are served here: name one, in the body or as ?model=' });
      const model = options.models.resolve(identity.tenant, name);
      if (model === null) return refuse({ kind: 'unknown-model', model: name });
      const slo = readSlo(incoming.headers, { model, serviceTier: request.serviceTier }, identity.tenant, options.slo);
      if (slo.kind === 'bad') return refuse({ kind: 'bad-request', param: slo.param, message: slo.message });
      const energy = readEnergyAsked(incoming.headers);
      if (energy.kind === 'bad') return refuse({ kind: 'bad-request', param: energy.param, message: energy.message });
      const part = readWorkflowCall(incoming.headers, identity.tenant, options.workflows);
      if (part.kind === 'bad') return refuse({ kind: 'bad-request', param: part.param, message: part.message });
      if (part.kind === 'workflows-full') return refuse(part);
      jobs += 1;
      const withinMs = part.kind === 'late-comer' && part.leftMs > 0 ? Math.min(part.leftMs, slo.slo.e2eMs ?? Number.POSITIVE_INFINITY) : null;
      const job = jobOf(endpoint, request, {
        jobId: `job-${jobs}` as JobId,
        model,
        operation: operationOf(path),
        tenant: identity.tenant,
        slo: withinMs === null ? slo.slo : { ...slo.slo, e2eMs: withinMs },
        sloClass: slo.sloClass,
        worth: slo.worth,
        ...(part.kind === 'call' ? { workflow: part.call } : {}),
      });
      const content = { body: reading.body, usageOptions: request.usageOptions, name, fallbacks: options.models.fallbacks(identity.tenant, model), tier: tierTold(endpoint, request.serviceTier, identity.tenant, options.slo), energy: energy.asked };
      if (isLimited(identity.tenant)) admit(job, identity.tenant, content);
      else enter(job, identity.tenant, content);
    });

    function prefixSeedOf(name: string, tenant: TenantConfig): string | null {
      const model = options.models.resolve(tenant, name);
      return model === null ? null : options.prefixSeed(model, tenant.name);
    }

    /** Waits for a store at most as long as the config says, where there is one. */
    function admit(job: JobSpec, tenant: TenantConfig, content: Content): void {
      const { jobId, model, promptBytes, promptTokens = null, maxOutputTokens = null, work } = job;
      options.limiter.admit({ jobId, tenant, model, promptBytes, promptTokens, maxOutputTokens, work }, (decision: LimitDecision) => {
        // It left meanwhile.
        if (state.kind !== 'reading') return options.limiter.settle(jobId, null);
        setRateLimitHeaders(outgoing, decision.standings);
        if (decision.kind === 'refused') return refuse({ ...decision, kind: 'limit', tenant: tenant.name });
        const { sloClass } = decision;
        if (sloClass === null) return enter(job, tenant, content);
        enter({ ...job, sloClass, worth: worthOf(sloClass, options.slo), slo: options.slo.classes[sloClass] ?? {} }, tenant, content.tier === null ? content : { ...content, tier: tierToldOfClass(sloClass, tenant, options.slo) });
      });
    }

    /** From here on it waits. */
    function enter(job: JobSpec, { admission: { keepAliveMs } }: TenantConfig, content: Content): void {
      if (keepAliveMs !== null && job.streaming) keepAlive = createKeepAlive({ outgoing, requestId, everyMs: keepAliveMs });
      submit(job, content);
    }

    /** `content` is let go once it is answered: until then another replica may have to have it, and an answer may take minutes. */
    function submit(job: JobSpec, content: Content, asked: Asked = { slo: job.slo, queueTimeoutMs: job.queueTimeoutMs, arrivedAtMs: now(), fallbacks: content.fallbacks, fellBack: false }): void {
      state = { kind: 'queued', jobId: job.jobId };
      trace?.queued(job);
      runtime.submit(job, {
        rejected: (reason, retryAfterMs) => {
          if (state.kind !== 'queued') return options.limiter.settle(job.jobId, null);
          const [other, ...fallbacks] = reason === 'no-replica' && refusal === null ? asked.fallbacks : [];
          if (other !== undefined) {
            options.fellBack({ requestId, from: job.model, to: other });
            // Under its id: to whoever counts jobs it has not ended.
            return submit({ ...job, ...lessSpent(asked, now() - asked.arrivedAtMs), model: other }, content, { ...asked, fallbacks, fellBack: true });
          }
          options.limiter.settle(job.jobId, null);
          options.rejected(reason, job.sloClass);
          if (refusal !== null) return passOn(refusal, asked);
          refuse(unreached && reason === 'no-replica' ? { kind: 'upstream-unreachable' } : reason === 'unknown-model' ? { kind: 'unknown-model', model: content.name } : { kind: 'rejected', reason, retryAfterMs });
        },
        dispatched: (replicaId, prediction) => {
          if (state.kind !== 'queued' || content.body === null) return;
          const { body, usageOptions, name } = content;
          // Of what the request may take, what is left now, at whichever try.
          const spentMs = now() - asked.arrivedAtMs;
          const attempt = trace?.sent(replicaId, prediction) ?? null;
          // The server is told what a workflow allots its call, as it is told of any deadline.
          const slo = prediction.workflowDueMs === undefined ? asked.slo : { ...asked.slo, e2eMs: prediction.workflowDueMs };
          const request = upstreamRequest(incoming, { endpoint, path, requestId: serverRequestId, body, usageOptions, streams: job.streaming, showUsage: content.energy, model: name, slo, spentMs, upstream: options.upstream(replicaId, job.model), trace: attempt?.context ?? null });
          const call = options.send(replicaId, request, tracedSink(sinkFor(job, asked, { replicaId, prediction, hideUsage: request.hideUsage, model: asked.fellBack ? job.model : null }, content), attempt));
          state = { kind: 'sent', jobId: job.jobId, call };
        },
      });
    }

    /** Status and headers, where they are not out yet, and whether what follows is a stream in which an error could be told. */
    function begin({ statusCode, headers, streams, hideUsage, replicaId, prediction, model }: AnswerHead, { arrivedAtMs }: Asked, edits: boolean): boolean {
      if (keepAlive.hasBegun()) return true;
      // What may yet be taken out or told makes the answer shorter or longer than its server said; what is no content has no length.
      const lengthKept = !(streams && hideUsage) && !edits && statusCode !== 204;
      const processingMs = streams ? null : now() - arrivedAtMs;
      outgoing.writeHead(statusCode, clientHeaders(headers, { requestId, replicaId, prediction, processingMs, lengthKept, model }));
      // An error can be told in the stream where it is readable text that may become longer.
      return streams && headers['content-encoding'] === undefined && (headers['content-length'] === undefined || !lengthKept);
    }

    /** What a server said who refused it, whole, after no other could be found: its words, not ours. */
    function passOn(refused: RefusedAnswer, asked: Asked): void {
      if (keepAlive.hasBegun()) return endWith(serverErrorEvent(refused, dialectOf(path)));
      state = { kind: 'over' };
      keepAlive.stop();
      begin(refused.head, asked, false);
      outgoing.end(refused.bytes());
      cutIfUnread(outgoing, options.stallMs);
    }

    /** Of a stream of which nothing has gone out but comments. */
    function endWith(event: string): void {
      state = { kind: 'over' };
      keepAlive.stop();
      outgoing.end(event);
      cutIfUnread(outgoing, options.stallMs);
    }

    function sinkFor(job: JobSpec, asked: Asked, to: Pick<AnswerHead, 'replicaId' | 'prediction' | 'hideUsage' | 'model'>, content: Content): AnswerSink {
      const { jobId } = job;
      const { replicaId } = to;

      function answer(head: AnswerHead, call: Call): void {
        content.body = null;
        const early = keepAlive.hasBegun();
        const writers = [content.tier === null ? null : tierWriterFor(content.tier, endpoint, head), content.energy ? energyWriterFor(endpoint, head, () => runtime.energyOf(jobId, null)) : null].filter((writer) => writer !== null);
        const { headers, statusCode, streams } = head;
        const answering = { kind: 'answering', jobId, call, succeeded: statusCode < 400, writers, trailersOf: early || headers['trailer'] === undefined ? null : headers } as const;
        if (content.energy && !early && !streams && statusCode < 400) {
          state = { ...answering, eventStream: false, held: createHeldAnswer(head) };
          return;
        }
        const eventStream = begin(head, asked, writers.length > 0);
        // Comments have their place in an event stream alone; there they go on until its first byte.
        if (!eventStream) keepAlive.stop();
        state = { ...answering, eventStream, held: null };
        // Most servers send headers with the first piece; where they come alone they are not held back either.
        process.nextTick(flushHeaders, outgoing);
      }

      /** What was held begins with what is known of its energy by now. */
      function release(held: HeldAnswer, writers: readonly AnswerWriter[], usage: Usage | null): void {
        setEnergyHeaders(outgoing, runtime.energyOf(jobId, usage));
        keepAlive.stop();
        begin(held.head, asked, writers.length > 0);
      }

      /** What it said cannot be passed on any more but as an event. */
      function failWith(event: string): void {
        endWith(event);
        runtime.ended(jobId, 'failed', null);
      }

      function mayAskAnother(statusCode: number): boolean {
        const inTime = asked.slo.e2eMs === undefined || now() - asked.arrivedAtMs < asked.slo.e2eMs;
        return isRefusal(statusCode) && retries < options.retriesMax && inTime && runtime.hasOther(jobId);
      }

      return {
        answered: (statusCode, headers, streams) => {
          if (state.kind !== 'sent') return;
          const { call } = state;
          // The client's key was never sent, so a refused key is the gateway's own, and not for the client to mend.
          if (statusCode === 401 || statusCode === 403) {
            content.body = null;
            call.abort();
            failed({ replicaId, phase: 'before-answer', error: new Error(`the model server answered ${statusCode}: check replicas[].apiKeyEnv`) });
            refuse({ kind: 'upstream-refused-us' });
            return runtime.ended(jobId, 'failed', null);
          }
          const head = { statusCode, headers, streams, ...to };
          const again = mayAskAnother(statusCode);
          if (again || (keepAlive.hasBegun() && statusCode >= 400)) state = { kind: 'refused', jobId, call, refused: createRefusedAnswer(head), again };
          else if (keepAlive.hasBegun() && !isReadableStream(head)) {
            const { 'content-type': type = 'no content-type', 'content-encoding': encoding } = headers;
            const got = `${statusCode}, ${type}${encoding === undefined ? '' : `, ${encoding}`}`;
            content.body = null;
            call.abort();
            failed({ replicaId, phase: 'before-answer', error: new Error(`the model server answered a stream with ${got}`) });
            refuse({ kind: 'upstream-no-stream', got });
            runtime.ended(jobId, 'failed', null);
          } else answer(head, call);
        },
        data: (received, tokens) => {
          let bytes = received;
          if (state.kind === 'refused') {
            if (state.refused.push(bytes)) return;
            const { refused, call } = state;
            if (keepAlive.hasBegun()) {
              call.abort();
              return failWith(serverErrorEvent(refused, dialectOf(path)));
            }
            bytes = refused.bytes();
            answer(refused.head, call);
          }
          if (state.kind !== 'answering') return;
          const { call, writers, held } = state;
          if (held !== null) {
            if (held.push(bytes)) return;
            release(held, writers, null);
            bytes = held.bytes();
            state = { ...state, held: null };
          }
          if (bytes.length > 0) bytes = keepAlive.first(bytes);
          for (const writer of writers) bytes = writer.push(bytes);
          if (!outgoing.write(bytes)) {
            call.pause();
            outgoing.once('drain', call.resume);
          }
          if (tokens > 0 && job.streaming) runtime.tokens(jobId, tokens);
        },
        ended: ({ bytes: last, tokens, usage, errorInside, trailers }) => {
          let bytes = last;
          if (state.kind === 'refused') {
            const whole = state.refused.push(last);
            if (!state.again || (!whole && keepAlive.hasBegun())) return failWith(serverErrorEvent(state.refused, dialectOf(path)));
            if (whole) {
              refusal = state.refused;
              retries += 1;
              options.retried({ requestId, replicaId, statusCode: refusal.head.statusCode });
              state = { kind: 'queued', jobId };
              return runtime.returned(jobId);
            }
            bytes = state.refused.bytes();
            answer(state.refused.head, state.call);
          }
          if (state.kind !== 'answering') return;
          const outcome = state.succeeded && !errorInside ? 'finished' : 'failed';
          const { writers, held } = state;
          const passing = state.trailersOf === null ? null : clientTrailers(state.trailersOf, trailers);
          state = { kind: 'over' };
          if (held !== null) {
            if (bytes !== null) held.push(bytes);
            bytes = held.bytes();
            release(held, writers, usage);
          }
          if (passing !== null) outgoing.addTrailers(passing);
          if (bytes !== null) bytes = keepAlive.first(bytes);
          if (bytes !== null) for (const writer of writers) bytes = writer.push(bytes);
          keepAlive.stop();
          if (bytes === null) outgoing.end();
          else outgoing.end(bytes);
          cutIfUnread(outgoing, options.stallMs);
          if (tokens > 0 && job.streaming) runtime.tokens(jobId, tokens);
          runtime.ended(jobId, outcome, usage);
        },
        failed: (failure) => {
          if (state.kind !== 'sent' && state.kind !== 'refused' && state.kind !== 'answering') return;
          const left = state;
          failed({ replicaId, phase: left.kind === 'sent' ? 'before-answer' : 'mid-answer', error: failure.error });
          // Nothing else is tried again. A connection that was kept open and closes before a byte of the answer may have been closed
          // before the request came, or by a server that died of it: nobody can tell, and twice the work is worse than an error.
          if (failure.kind === 'unreachable') {
            unreached = true;
            state = { kind: 'queued', jobId };
            return runtime.returned(jobId);
          }
          const broken: Refusal = { kind: `upstream-${failure.kind}`, answering: left.kind !== 'sent' };
          if (left.kind !== 'answering' || left.held !== null) refuse(broken);
          else {
            state = { kind: 'over' };
            keepAlive.stop();
            // A cut connection is the only way left to say that an answer with a length is not whole.
            if (left.eventStream) outgoing.end(`${failure.atBoundary ? '' : '\n\n'}${errorEvent(broken, dialectOf(path))}`);
            else cut(outgoing);
            cutIfUnread(outgoing, options.stallMs);
          }
          runtime.ended(jobId, 'failed', null);
        },
      };
    }
  };
}

/** Of a request whose body names none. */
function modelOf(url: string | undefined): string | null {
  const named = new URLSearchParams(queryOf(url)).get('model');
  return named === '' ? null : named;
}

function flushHeaders(outgoing: ServerResponse): void {
  if (!outgoing.destroyed && !outgoing.writableEnded) outgoing.flushHeaders();
}
