// One inference request from its first byte to its last: read, admitted, sent to the replica the scheduler names, and
// its answer handed through. Whoever goes away first, client or server, the other side is let go at once.
import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { SloConfig, TenantConfig } from '../config.ts';
import type { JobId, JobSpec, ReplicaId, Usage } from '../core/job.ts';
import type { LimitDecision, Limiter } from '../core/tenant-limits.ts';
import { isLimited } from '../core/tenant-limits.ts';
import type { Runtime } from '../runtime.ts';
import type { Prediction, RejectReason } from '../scheduler/events.ts';
import { cut } from './cut.ts';
import type { Refusal } from './error-response.ts';
import { withModelName, withUsageAsked } from './body-edit.ts';
import type { Endpoint } from './endpoints.ts';
import { dialectOf } from './endpoints.ts';
import { errorEvent, writeRefusal } from './error-response.ts';
import { clientHeaders, clientTrailers, requestIdOf, serverHeaders } from './headers.ts';
import { multipartFields } from './multipart.ts';
import type { InferenceRequest } from './openai-request.ts';
import { readInferenceRequest } from './openai-request.ts';
import { setRateLimitHeaders } from './rate-limit-headers.ts';
import { readBody } from './request-body.ts';
import { readSlo } from './slo.ts';

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

export interface ServerRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: readonly string[];
  readonly body: Buffer | null;
  readonly hideUsage: boolean;
  readonly streams: boolean;
}

export interface ExchangeOptions {
  readonly runtime: Pick<Runtime, 'submit' | 'tokens' | 'ended' | 'returned'>;
  readonly send: (replicaId: ReplicaId, request: ServerRequest, sink: AnswerSink) => Call;
  /** How a replica is spoken to: the name it knows the model by, and whether it may be asked for the usage of a stream. */
  readonly upstream: (replicaId: ReplicaId, model: string) => { readonly model: string; readonly asksUsage: boolean };
  /** Names of all models that are served; where there is one alone, requests of some endpoints need not name it. */
  readonly models: readonly string[];
  readonly slo: SloConfig;
  readonly access: Access;
  /** Asked for tenants that have limits; whoever reports a job's end settles it there. */
  readonly limiter: Limiter;
  readonly bodyBytesMax: number;
  /** What a client gets that does not read the end of its answer. */
  readonly stallMs: number;
  readonly now: () => number;
  readonly draining: () => boolean;
  readonly refused: (kind: Refusal['kind'], requestId: string) => void;
  readonly rejected: (reason: RejectReason, sloClass: string) => void;
  readonly failed: (failure: { readonly requestId: string; readonly replicaId: ReplicaId; readonly phase: 'before-answer' | 'mid-answer'; readonly error: Error }) => void;
}

/** `path` is the route's, without what the client wrote behind it. */
export type Exchange = (endpoint: Endpoint, path: string, incoming: IncomingMessage, outgoing: ServerResponse) => void;

/** What goes to a replica; the body until one has answered. */
interface Content {
  body: Buffer | null;
  readonly usageOptions: InferenceRequest['usageOptions'];
}

type State =
  | { readonly kind: 'reading' }
  | { readonly kind: 'queued'; readonly jobId: JobId }
  | { readonly kind: 'sent'; readonly jobId: JobId; readonly call: Call }
  | { readonly kind: 'answering'; readonly jobId: JobId; readonly call: Call; readonly eventStream: boolean; readonly succeeded: boolean; readonly trailersOf: IncomingHttpHeaders | null }
  | { readonly kind: 'over' };

export function createExchange(options: ExchangeOptions): Exchange {
  const { runtime, now } = options;
  let jobs = 0;

  return (endpoint, path, incoming, outgoing) => {
    const requestId = requestIdOf(incoming.headers);
    let state: State = { kind: 'reading' };
    /** A replica it was sent to could not be reached. */
    let unreached = false;

    const refuse = (refusal: Refusal): void => {
      state = { kind: 'over' };
      options.refused(refusal.kind, requestId);
      writeRefusal(outgoing, refusal, requestId, dialectOf(path));
    };

    outgoing.once('close', () => {
      const left = state;
      state = { kind: 'over' };
      if (left.kind === 'sent' || left.kind === 'answering') left.call.abort();
      if (left.kind !== 'reading' && left.kind !== 'over') runtime.ended(left.jobId, 'cancelled', null);
    });

    if (options.draining()) return refuse({ kind: 'rejected', reason: 'draining', retryAfterMs: null });
    const identity = tenantOf(incoming.headers, options.access);
    if (identity.kind === 'unauthorized') return refuse(identity);

    readBody(incoming, options.bodyBytesMax, () => outgoing.writeContinue(), (reading) => {
      if (state.kind !== 'reading') return;
      if (reading.kind === 'too-large') return refuse({ kind: 'body-too-large', bytesMax: options.bodyBytesMax });
      if (reading.kind === 'encoded') return refuse({ kind: 'body-encoded', encoding: reading.encoding });
      const parsed = readInferenceRequest(endpoint, reading.body, incoming.headers['content-type']);
      if (parsed.kind === 'bad') return refuse({ kind: 'bad-request', param: parsed.param, message: parsed.message });
      const { request } = parsed;
      const model = request.model ?? soleModel(incoming.url, options.models.filter((served) => mayUse(identity.tenant, served)));
      if (model === null) return refuse({ kind: 'bad-request', param: 'model', message: 'several models are served here: name one, in the body or as ?model=' });
      if (!mayUse(identity.tenant, model)) return refuse({ kind: 'unknown-model', model });
      const slo = readSlo(incoming.headers, { model, serviceTier: request.serviceTier }, identity.tenant, options.slo);
      if (slo.kind === 'bad') return refuse({ kind: 'bad-request', param: slo.param, message: slo.message });
      jobs += 1;
      const job = jobOf(endpoint, request, { jobId: `job-${jobs}` as JobId, model, tenant: identity.tenant, slo: slo.slo, sloClass: slo.sloClass });
      const content = { body: reading.body, usageOptions: request.usageOptions };
      if (isLimited(identity.tenant)) admit(job, identity.tenant, content);
      else enqueue(job, content);
    });

    /** Waits for a store at most as long as the config says, where there is one. */
    function admit(job: JobSpec, tenant: TenantConfig, content: Content): void {
      const { jobId, model, promptBytes, promptTokens = null, maxOutputTokens = null, work } = job;
      options.limiter.admit({ jobId, tenant, model, promptBytes, promptTokens, maxOutputTokens, work }, (decision: LimitDecision) => {
        // It left meanwhile.
        if (state.kind !== 'reading') return options.limiter.settle(jobId, null);
        setRateLimitHeaders(outgoing, decision.standings);
        if (decision.kind === 'refused') return refuse({ ...decision, kind: 'limit', tenant: tenant.name });
        const { sloClass } = decision;
        enqueue(sloClass === null ? job : { ...job, sloClass, slo: options.slo.classes[sloClass] ?? {} }, content);
      });
    }

    function enqueue(job: JobSpec, content: Content): void {
      state = { kind: 'queued', jobId: job.jobId };
      submit(job, content);
    }

    /** `content` is let go once it is answered: until then another replica may have to have it, and an answer may take minutes. */
    function submit(job: JobSpec, content: Content): void {
      const arrivedAtMs = now();
      runtime.submit(job, {
        rejected: (reason, retryAfterMs) => {
          options.limiter.settle(job.jobId, null);
          if (state.kind !== 'queued') return;
          options.rejected(reason, job.sloClass);
          refuse(unreached && reason === 'no-replica' ? { kind: 'upstream-unreachable' } : reason === 'unknown-model' ? { kind: 'unknown-model', model: job.model } : { kind: 'rejected', reason, retryAfterMs });
        },
        dispatched: (replicaId, prediction) => {
          if (state.kind !== 'queued' || content.body === null) return;
          const upstream = options.upstream(replicaId, job.model);
          const { usageOptions } = content;
          const hideUsage = usageOptions !== false && upstream.asksUsage;
          const contentType = contentTypeFor(endpoint, incoming.headers);
          const renamed = upstream.model === job.model ? content.body : withUpstreamModel(content.body, contentType, upstream.model);
          const hasBody = renamed.length > 0 || incoming.method === 'POST';
          const request = {
            method: incoming.method ?? 'POST',
            path: path + queryOf(incoming.url),
            headers: serverHeaders(incoming.headers, requestId, hasBody ? contentType : null, job.slo, now() - arrivedAtMs),
            body: hasBody ? (hideUsage ? withUsageAsked(renamed, usageOptions) : renamed) : null,
            hideUsage,
            streams: job.streaming,
          };
          const call = options.send(replicaId, request, sinkFor(job, replicaId, prediction, { arrivedAtMs, hideUsage, content }));
          state = { kind: 'sent', jobId: job.jobId, call };
        },
      });
    }

    function sinkFor(job: JobSpec, replicaId: ReplicaId, prediction: Prediction, { arrivedAtMs, hideUsage, content }: { readonly arrivedAtMs: number; readonly hideUsage: boolean; readonly content: Content }): AnswerSink {
      const { jobId } = job;
      return {
        answered: (statusCode, headers, streams) => {
          if (state.kind !== 'sent') return;
          content.body = null;
          // The client's key was never sent, so a refused key is the gateway's own, and not for the client to mend.
          if (statusCode === 401 || statusCode === 403) {
            state.call.abort();
            options.failed({ requestId, replicaId, phase: 'before-answer', error: new Error(`the model server answered ${statusCode}: check replicas[].apiKeyEnv`) });
            refuse({ kind: 'upstream-refused-us' });
            return runtime.ended(jobId, 'failed', null);
          }
          // What may yet be taken out makes the answer shorter than its server said; what is no content has no length.
          const lengthKept = !(streams && hideUsage) && statusCode !== 204;
          // An error can be told in the stream where it is readable text that may become longer.
          const eventStream = streams && headers['content-encoding'] === undefined && (headers['content-length'] === undefined || !lengthKept);
          const processingMs = streams ? null : now() - arrivedAtMs;
          outgoing.writeHead(statusCode, clientHeaders(headers, { requestId, replicaId, prediction, processingMs, lengthKept }));
          state = { kind: 'answering', jobId, call: state.call, eventStream, succeeded: statusCode < 400, trailersOf: headers['trailer'] === undefined ? null : headers };
          // Most servers send headers with the first piece; where they come alone they are not held back either.
          process.nextTick(flushHeaders, outgoing);
        },
        data: (bytes, tokens) => {
          if (state.kind !== 'answering') return;
          const { call } = state;
          if (!outgoing.write(bytes)) {
            call.pause();
            outgoing.once('drain', call.resume);
          }
          if (tokens > 0 && job.streaming) runtime.tokens(jobId, tokens);
        },
        ended: ({ bytes, tokens, usage, errorInside, trailers }) => {
          if (state.kind !== 'answering') return;
          const outcome = state.succeeded && !errorInside ? 'finished' : 'failed';
          const passing = state.trailersOf === null ? null : clientTrailers(state.trailersOf, trailers);
          state = { kind: 'over' };
          if (passing !== null) outgoing.addTrailers(passing);
          if (bytes === null) outgoing.end();
          else outgoing.end(bytes);
          cutIfUnread(outgoing, options.stallMs);
          if (tokens > 0 && job.streaming) runtime.tokens(jobId, tokens);
          runtime.ended(jobId, outcome, usage);
        },
        failed: (failure) => {
          if (state.kind !== 'sent' && state.kind !== 'answering') return;
          const left = state;
          options.failed({ requestId, replicaId, phase: left.kind === 'sent' ? 'before-answer' : 'mid-answer', error: failure.error });
          if (failure.kind === 'unreachable') {
            unreached = true;
            state = { kind: 'queued', jobId };
            return runtime.returned(jobId);
          }
          const refusal: Refusal = { kind: `upstream-${failure.kind}`, answering: left.kind === 'answering' };
          if (left.kind === 'sent') refuse(refusal);
          else {
            state = { kind: 'over' };
            // A cut connection is the only way left to say that an answer with a length is not whole.
            if (left.eventStream) outgoing.end(`${failure.atBoundary ? '' : '\n\n'}${errorEvent(refusal, dialectOf(path))}`);
            else cut(outgoing);
            cutIfUnread(outgoing, options.stallMs);
          }
          runtime.ended(jobId, 'failed', null);
        },
      };
    }
  };
}

/** What a body was parsed as it is sent as, whatever its sender called it. */
function contentTypeFor(endpoint: Endpoint, headers: IncomingHttpHeaders): string {
  return endpoint === 'opaque' ? (headers['content-type'] ?? 'application/octet-stream') : 'application/json';
}

/** In the words of the body's own type; a body that is neither names its model nowhere. */
function withUpstreamModel(body: Buffer, contentType: string, model: string): Buffer {
  const fields = multipartFields(body, contentType, 'model');
  if (fields.length > 0) {
    const parts = fields.flatMap(({ start }, index) => [body.subarray(fields[index - 1]?.end ?? 0, start), Buffer.from(model)]);
    return Buffer.concat([...parts, body.subarray(fields.at(-1)?.end)]);
  }
  return /^application\/json\b/i.test(contentType) ? withModelName(body, model) : body;
}

/** The model of a request whose body names none. */
function soleModel(url: string | undefined, models: readonly string[]): string | null {
  const named = new URLSearchParams(queryOf(url)).get('model');
  if (named !== null && named !== '') return named;
  return models.length === 1 ? (models[0] as string) : null;
}

function queryOf(url = ''): string {
  const at = url.indexOf('?');
  return at < 0 ? '' : url.slice(at);
}

/** The server is done and the replica free; what is left waits in the socket for a client that may never read it. */
function cutIfUnread(outgoing: ServerResponse, stallMs: number): void {
  if (outgoing.writableLength > 0) outgoing.setTimeout(stallMs, () => cut(outgoing));
}

function flushHeaders(outgoing: ServerResponse): void {
  if (!outgoing.destroyed && !outgoing.writableEnded) outgoing.flushHeaders();
}

function jobOf(endpoint: Endpoint, request: InferenceRequest, of: Pick<JobSpec, 'jobId' | 'model' | 'slo' | 'sloClass'> & { readonly tenant: TenantConfig }): JobSpec {
  const { promptBytes, promptTokens, maxOutputTokens, stream } = request;
  const work = endpoint === 'embeddings' || endpoint === 'prompt' || endpoint === 'opaque' ? 'embed' : 'generate';
  const { name, weight, admission } = of.tenant;
  return {
    ...of,
    tenant: name,
    weight,
    infeasible: admission.infeasible,
    ...(admission.queueTimeoutMs === null ? {} : { queueTimeoutMs: admission.queueTimeoutMs }),
    promptBytes,
    ...(promptTokens === null ? {} : { promptTokens }),
    ...(maxOutputTokens === null ? {} : { maxOutputTokens }),
    work,
    streaming: stream && work === 'generate',
  };
}

/** Who may come: everybody as one tenant, or who has a key. */
export interface Access {
  readonly anonymous: TenantConfig | null;
  readonly tenantsByKeySha256: ReadonlyMap<string, TenantConfig>;
}

type Identity = { readonly kind: 'known'; readonly tenant: TenantConfig } | { readonly kind: 'unauthorized'; readonly message: string };

/**
 * By the hash of the key, which comes as a bearer token or, from Anthropic's SDKs, as `x-api-key`; without configured tenants
 * whoever comes is let in and no key is looked at.
 */
export function tenantOf(headers: IncomingHttpHeaders, { anonymous, tenantsByKeySha256 }: Access): Identity {
  if (anonymous !== null) return { kind: 'known', tenant: anonymous };
  const apiKey = /^Bearer +(\S+)$/i.exec(headers.authorization ?? '')?.[1] ?? headers['x-api-key'];
  if (typeof apiKey !== 'string') return { kind: 'unauthorized', message: "You didn't provide an API key; send it as Authorization: Bearer YOUR_KEY" };
  const tenant = tenantsByKeySha256.get(createHash('sha256').update(apiKey).digest('hex'));
  return tenant === undefined ? { kind: 'unauthorized', message: 'Incorrect API key provided' } : { kind: 'known', tenant };
}

/** What a tenant may not use is to it as if it were not there. */
export function mayUse({ models }: TenantConfig, model: string): boolean {
  return models === null || models.has(model);
}
