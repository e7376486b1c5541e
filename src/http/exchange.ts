// One inference request from its first byte to its last: read, admitted, sent to the replica the scheduler names, and
// its answer handed through. Whoever goes away first, client or server, the other side is let go at once.
import { createHash, randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { SloConfig, TenantConfig } from '../config.ts';
import { ANONYMOUS } from '../config.ts';
import type { JobId, JobSpec, ReplicaId, Usage } from '../core/job.ts';
import type { Runtime } from '../runtime.ts';
import type { Prediction, RejectReason } from '../scheduler/events.ts';
import { cut } from './cut.ts';
import type { Refusal } from './error-response.ts';
import { errorEvent, writeRefusal } from './error-response.ts';
import { clientHeaders, requestIdOf, serverHeaders } from './headers.ts';
import type { Endpoint, InferenceRequest } from './openai-request.ts';
import { ENDPOINT_PATHS, readInferenceRequest } from './openai-request.ts';
import { readBody } from './request-body.ts';
import { withModelName } from './model-name.ts';
import { readSlo } from './slo.ts';

/** A request under way to a replica. */
export interface Call {
  abort(): void;
  pause(): void;
  resume(): void;
}

/** What a replica's answer is told to; see the client in `upstream/`, which this edge does not import. */
export interface AnswerSink {
  answered(statusCode: number, headers: IncomingHttpHeaders): void;
  data(bytes: Buffer, tokens: number): void;
  ended(usage: Usage | null, errorInside: boolean): void;
  failed(failure: { readonly kind: 'unreachable' | 'broken' | 'timeout'; readonly error: Error; readonly atBoundary: boolean }): void;
}

export interface ExchangeOptions {
  readonly runtime: Pick<Runtime, 'submit' | 'tokens' | 'ended'>;
  readonly send: (replicaId: ReplicaId, request: { readonly path: string; readonly headers: readonly string[]; readonly body: Buffer }, sink: AnswerSink) => Call;
  /** The name a replica knows the model by. */
  readonly upstreamModel: (replicaId: ReplicaId, model: string) => string;
  readonly slo: SloConfig;
  readonly tenantsByKeySha256: ReadonlyMap<string, TenantConfig>;
  readonly bodyBytesMax: number;
  /** What a client gets that does not read the end of its answer. */
  readonly stallMs: number;
  readonly now: () => number;
  readonly draining: () => boolean;
  readonly refused: (kind: Refusal['kind'], requestId: string) => void;
  readonly rejected: (reason: RejectReason, sloClass: string) => void;
  readonly failed: (failure: { readonly requestId: string; readonly replicaId: ReplicaId; readonly phase: 'before-answer' | 'mid-answer'; readonly error: Error }) => void;
}

export type Exchange = (endpoint: Endpoint, incoming: IncomingMessage, outgoing: ServerResponse) => void;

type State =
  | { readonly kind: 'reading' }
  | { readonly kind: 'queued'; readonly jobId: JobId }
  | { readonly kind: 'sent'; readonly jobId: JobId; readonly call: Call }
  | { readonly kind: 'answering'; readonly jobId: JobId; readonly call: Call; readonly eventStream: boolean; readonly succeeded: boolean }
  | { readonly kind: 'over' };

export function createExchange(options: ExchangeOptions): Exchange {
  const { runtime, now } = options;

  return (endpoint, incoming, outgoing) => {
    const requestId = requestIdOf(incoming.headers);
    let state: State = { kind: 'reading' };

    const refuse = (refusal: Refusal): void => {
      state = { kind: 'over' };
      options.refused(refusal.kind, requestId);
      writeRefusal(outgoing, refusal, requestId);
    };

    outgoing.once('close', () => {
      const left = state;
      state = { kind: 'over' };
      if (left.kind === 'sent' || left.kind === 'answering') left.call.abort();
      if (left.kind !== 'reading' && left.kind !== 'over') runtime.ended(left.jobId, 'cancelled', null);
    });

    if (options.draining()) return refuse({ kind: 'rejected', reason: 'draining', retryAfterMs: null });
    const identity = tenantOf(incoming.headers.authorization, options.tenantsByKeySha256);
    if (identity.kind === 'unauthorized') return refuse(identity);

    readBody(incoming, options.bodyBytesMax, (reading) => {
      if (state.kind !== 'reading') return;
      if (reading.kind === 'too-large') return refuse({ kind: 'body-too-large', bytesMax: options.bodyBytesMax });
      if (reading.kind === 'encoded') return refuse({ kind: 'body-encoded', encoding: reading.encoding });
      const parsed = readInferenceRequest(endpoint, reading.body);
      if (parsed.kind === 'bad') return refuse({ kind: 'bad-request', param: parsed.param, message: parsed.message });
      const slo = readSlo(incoming.headers, parsed.request, identity.tenant, options.slo);
      if (slo.kind === 'bad') return refuse({ kind: 'bad-request', param: slo.param, message: slo.message });
      const job = jobOf(endpoint, parsed.request, { tenant: identity.tenant.name, slo: slo.slo, sloClass: slo.sloClass });
      state = { kind: 'queued', jobId: job.jobId };
      submit(job, reading.body);
    });

    function submit(job: JobSpec, body: Buffer): void {
      const arrivedAtMs = now();
      runtime.submit(job, {
        rejected: (reason, retryAfterMs) => {
          if (state.kind !== 'queued') return;
          options.rejected(reason, job.sloClass);
          refuse(reason === 'unknown-model' ? { kind: 'unknown-model', model: job.model } : { kind: 'rejected', reason, retryAfterMs });
        },
        dispatched: (replicaId, prediction) => {
          if (state.kind !== 'queued') return;
          const upstreamModel = options.upstreamModel(replicaId, job.model);
          const request = {
            path: ENDPOINT_PATHS[endpoint],
            headers: serverHeaders(incoming.headers, requestId, job.slo, now() - arrivedAtMs),
            body: upstreamModel === job.model ? body : withModelName(body, upstreamModel),
          };
          const call = options.send(replicaId, request, sinkFor(job, replicaId, prediction, arrivedAtMs));
          state = { kind: 'sent', jobId: job.jobId, call };
        },
      });
    }

    function sinkFor(job: JobSpec, replicaId: ReplicaId, prediction: Prediction, arrivedAtMs: number): AnswerSink {
      const { jobId } = job;
      return {
        answered: (statusCode, headers) => {
          if (state.kind !== 'sent') return;
          // The client's key was never sent, so a refused key is the gateway's own, and not for the client to mend.
          if (statusCode === 401 || statusCode === 403) {
            state.call.abort();
            options.failed({ requestId, replicaId, phase: 'before-answer', error: new Error(`the model server answered ${statusCode}: check replicas[].apiKeyEnv`) });
            refuse({ kind: 'upstream-refused-us' });
            return runtime.ended(jobId, 'failed', null);
          }
          const eventStream = String(headers['content-type'] ?? '').startsWith('text/event-stream');
          state = { kind: 'answering', jobId, call: state.call, eventStream, succeeded: statusCode < 400 };
          const processingMs = eventStream ? null : now() - arrivedAtMs;
          outgoing.writeHead(statusCode, clientHeaders(headers, { requestId, replicaId, prediction, processingMs }));
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
          if (tokens > 0) runtime.tokens(jobId, tokens);
        },
        ended: (usage, errorInside) => {
          if (state.kind !== 'answering') return;
          const outcome = state.succeeded && !errorInside ? 'finished' : 'failed';
          state = { kind: 'over' };
          outgoing.end();
          cutIfUnread(outgoing, options.stallMs);
          runtime.ended(jobId, outcome, usage);
        },
        failed: (failure) => {
          if (state.kind !== 'sent' && state.kind !== 'answering') return;
          const left = state;
          const refusal: Refusal = { kind: `upstream-${failure.kind}` };
          options.failed({ requestId, replicaId, phase: left.kind === 'sent' ? 'before-answer' : 'mid-answer', error: failure.error });
          if (left.kind === 'sent') refuse(refusal);
          else {
            state = { kind: 'over' };
            // A cut connection is the only way left to say that an answer with a length is not whole.
            if (left.eventStream) outgoing.end(`${failure.atBoundary ? '' : '\n\n'}${errorEvent(refusal)}`);
            else cut(outgoing);
            cutIfUnread(outgoing, options.stallMs);
          }
          runtime.ended(jobId, 'failed', null);
        },
      };
    }
  };
}

/** The server is done and the replica free; what is left waits in the socket for a client that may never read it. */
function cutIfUnread(outgoing: ServerResponse, stallMs: number): void {
  if (outgoing.writableLength > 0) outgoing.setTimeout(stallMs, () => cut(outgoing));
}

function flushHeaders(outgoing: ServerResponse): void {
  if (!outgoing.destroyed && !outgoing.writableEnded) outgoing.flushHeaders();
}

function jobOf(endpoint: Endpoint, request: InferenceRequest, of: { readonly tenant: string; readonly slo: JobSpec['slo']; readonly sloClass: string }): JobSpec {
  const { model, promptBytes, promptTokens, maxOutputTokens, stream } = request;
  return {
    jobId: randomUUID() as JobId,
    model,
    ...of,
    promptBytes,
    ...(promptTokens === null ? {} : { promptTokens }),
    ...(maxOutputTokens === null ? {} : { maxOutputTokens }),
    work: endpoint === 'embeddings' ? 'embed' : 'generate',
    streaming: stream && endpoint !== 'embeddings',
  };
}

type Identity = { readonly kind: 'known'; readonly tenant: TenantConfig } | { readonly kind: 'unauthorized'; readonly message: string };

/** By the hash of the key; without configured tenants whoever comes is let in and no key is looked at. */
export function tenantOf(authorization: string | undefined, tenants: ReadonlyMap<string, TenantConfig>): Identity {
  if (tenants.size === 0) return { kind: 'known', tenant: ANONYMOUS };
  const apiKey = /^Bearer +(\S+)$/i.exec(authorization ?? '')?.[1];
  if (apiKey === undefined) return { kind: 'unauthorized', message: "You didn't provide an API key; send it as Authorization: Bearer YOUR_KEY" };
  const tenant = tenants.get(createHash('sha256').update(apiKey).digest('hex'));
  return tenant === undefined ? { kind: 'unauthorized', message: 'Incorrect API key provided' } : { kind: 'known', tenant };
}
