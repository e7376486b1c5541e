// What goes to a replica in a client's place: its body with another model name where the replica knows the model by one, and
// headers of our own.
import type { IncomingMessage } from 'node:http';
import type { Slo } from '../core/job.ts';
import { withModelName, withPriority, withUsageAsked } from './body-edit.ts';
import type { Endpoint } from './endpoints.ts';
import type { EnginePriority } from './engine-priority.ts';
import { deadlineAtUnixMs, enginePriority } from './engine-priority.ts';
import { serverHeaders } from './headers.ts';
import { multipartFields } from './multipart.ts';
import type { InferenceRequest } from './openai-request.ts';

export interface ServerRequest {
  readonly method: string;
  readonly path: string;
  /** Name, value, name, value …. */
  readonly headers: readonly string[];
  readonly body: Buffer | null;
  readonly hideUsage: boolean;
  readonly streams: boolean;
}

export interface UpstreamRequestOptions {
  readonly endpoint: Endpoint;
  /** Of the route. */
  readonly path: string;
  /** As the server is to know it. */
  readonly requestId: string;
  readonly body: Buffer;
  readonly usageOptions: InferenceRequest['usageOptions'];
  readonly streams: boolean;
  /** The usage of a stream is asked for in the client's place, and shown to it. */
  readonly showUsage: boolean;
  /** As the client named it. */
  readonly model: string;
  readonly slo: Slo;
  readonly spentMs: number;
  /** Of the trace, by header, in the place of what the client said; `null`: what the client said goes on. */
  readonly trace?: Readonly<Record<string, string>> | null;
  /** How the replica is spoken to. */
  readonly upstream: { readonly model: string; readonly asksUsage: boolean; readonly priority: EnginePriority | null };
}

export function upstreamRequest(incoming: IncomingMessage, options: UpstreamRequestOptions): ServerRequest {
  const { endpoint, body, usageOptions, upstream, streams } = options;
  const asksUsage = usageOptions !== false && upstream.asksUsage;
  // What a body was parsed as it is sent as, whatever its sender called it.
  const contentType = endpoint === 'opaque' ? (incoming.headers['content-type'] ?? 'application/octet-stream') : 'application/json';
  const named = upstream.model === options.model ? body : withUpstreamModel(body, contentType, upstream.model);
  // Asked for by the endpoints that generate; elsewhere servers refuse what they do not know.
  const ordered = upstream.priority !== null && (endpoint === 'chat' || endpoint === 'completions' || endpoint === 'responses');
  const edited = ordered ? withPriority(named, enginePriority(upstream.priority, deadlineAtUnixMs(options.slo, Date.now() - options.spentMs))) : named;
  const hasBody = edited.length > 0 || incoming.method === 'POST';
  return {
    method: incoming.method ?? 'POST',
    path: options.path + queryOf(incoming.url),
    headers: serverHeaders(incoming.headers, options.requestId, hasBody ? contentType : null, options.slo, options.spentMs, options.trace ?? null),
    body: hasBody ? (asksUsage ? withUsageAsked(edited, usageOptions) : edited) : null,
    hideUsage: asksUsage && !options.showUsage,
    streams,
  };
}

/** With its question mark; empty where there is none. */
export function queryOf(url = ''): string {
  const at = url.indexOf('?');
  return at < 0 ? '' : url.slice(at);
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
