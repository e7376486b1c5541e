// Which headers pass, in both directions. Default-deny: what is not named here stays here, so no key of a client
// reaches a model server and no header of a client chooses one.
import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { Slo } from '../core/job.ts';
import type { Prediction } from '../scheduler/events.ts';

/** Content negotiation, W3C trace context and the version of Anthropic's API; everything else of the client's is for us or for nobody. */
const TO_SERVER = ['accept', 'traceparent', 'tracestate', 'baggage', 'anthropic-version', 'anthropic-beta'] as const;

/**
 * In this order: behind a length Node would read a disposition as UTF-8, and refuse to write it where it is.
 * What describes the body, and what the SDKs read. The server's rate limits are ours to keep, not the client's.
 */
const TO_CLIENT = ['content-type', 'content-disposition', 'content-length', 'content-encoding', 'cache-control', 'trailer', 'openai-version', 'retry-after', 'retry-after-ms', 'x-should-retry'] as const;

/** Trailers that would be read as something about the message itself, or that no server has any business setting. */
const NO_TRAILER = new Set(['keep-alive', 'upgrade', 'proxy-connection', 'http2-settings', 'transfer-encoding', 'content-length', 'content-encoding', 'content-type', 'content-range', 'trailer', 'host', 'connection', 'te', 'authorization', 'set-cookie', 'cache-control']);

/** RFC 9110, 7.6.3. */
const VIA = '1.1 paceline';

/** What a request id may look like; others are replaced, for they end in logs and in the server's. */
const REQUEST_ID = /^[A-Za-z0-9._:/+=-]{1,128}$/;

/** The client's own id where it is usable, else a new one. */
export function requestIdOf(headers: IncomingHttpHeaders): string {
  const given = headers['x-request-id'];
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID();
}

/**
 * The id that the model server gets. Engines keep their books by it (vLLM, transformers serve): of two requests under one id, one gets
 * the other's tokens and the other hangs. So what a client has chosen goes on with an end that nobody can choose.
 */
export function serverRequestIdOf(headers: IncomingHttpHeaders, requestId: string): string {
  return headers['x-request-id'] === requestId ? `${requestId}-${randomUUID().slice(-12)}` : requestId;
}

/** Of the W3C context that the client sent; `null` where there is none that can be read. */
export function traceIdOf({ traceparent }: IncomingHttpHeaders): string | null {
  return typeof traceparent === 'string' ? (/^[\da-f]{2}-([\da-f]{32})-[\da-f]{16}-[\da-f]{2}/.exec(traceparent)?.[1] ?? null) : null;
}

/** Headers for the model server: name, value, name, value …. What is left of the SLO is said anew, and `trace` stands in for the client's context. */
export function serverHeaders(headers: IncomingHttpHeaders, requestId: string, contentType: string | null, slo: Slo, spentMs: number, trace: Readonly<Record<string, string>> | null = null): string[] {
  const out = contentType === null ? ['x-request-id', requestId] : ['content-type', contentType, 'x-request-id', requestId];
  out.push('via', VIA);
  for (const name of TO_SERVER) {
    const value = headers[name];
    if (typeof value === 'string' && trace?.[name] === undefined) out.push(name, value);
  }
  if (trace !== null) for (const name in trace) out.push(name, trace[name] as string);
  if (slo.ttftMs !== undefined) out.push('x-slo-ttft-ms', leftMs(slo.ttftMs, spentMs));
  if (slo.tpotMs !== undefined) out.push('x-slo-tpot-ms', leftMs(slo.tpotMs, 0));
  if (slo.e2eMs !== undefined) out.push('x-request-deadline-ms', leftMs(slo.e2eMs, spentMs));
  return out;
}

/** Headers of the answer: the server's that pass, and ours. `processingMs` only where the whole answer is known by now. */
export function clientHeaders(
  headers: IncomingHttpHeaders,
  ours: { readonly requestId: string; readonly replicaId: string; readonly prediction: Prediction; readonly processingMs: number | null; readonly lengthKept: boolean; /** Where it is another than the one asked for. */ readonly model: string | null },
): string[] {
  const out = ['x-request-id', ours.requestId, 'x-paceline-replica', ours.replicaId, 'x-paceline-predicted-ttft-ms', rounded(ours.prediction.ttftMs)];
  if (ours.model !== null) out.push('x-paceline-model', headerText(ours.model));
  if (ours.prediction.slackMs !== null) out.push('x-paceline-slack-ms', rounded(ours.prediction.slackMs));
  if (ours.prediction.workflowDueMs !== undefined) out.push('x-paceline-workflow-due-ms', rounded(ours.prediction.workflowDueMs));
  if (ours.processingMs !== null) out.push('openai-processing-ms', rounded(ours.processingMs));
  for (const name of TO_CLIENT) {
    const value = headers[name];
    if (value === undefined || (name === 'content-length' && !ours.lengthKept)) continue;
    // Trailers go with chunks alone.
    if (name === 'trailer' && ours.lengthKept && headers['content-length'] !== undefined) continue;
    // What came in several lines is a list; of what can be said only once the first counts.
    const whole = typeof value === 'string' ? value : name === 'content-type' || name === 'content-length' ? (value[0] as string) : value.join(', ');
    out.push(name, whole);
  }
  // Elsewhere than on this server it would show, and name, what is behind the gateway.
  const location = headers.location;
  if (location !== undefined && /^\/(?!\/)/.test(location)) out.push('location', location);
  return out;
}

/** Names of models come from the config and may have any letters, headers may not: those that no header can hold are percent-encoded. */
function headerText(name: string): string {
  return name.toWellFormed().replaceAll(/[^\x20-\x7e]/gu, encodeURIComponent);
}

/** Of those that the server announced; `null` where none may pass. */
export function clientTrailers(headers: IncomingHttpHeaders, trailers: IncomingHttpHeaders): Record<string, string> | null {
  const passing: [string, string][] = [];
  for (const announced of String(headers['trailer'] ?? '').toLowerCase().split(',')) {
    const name = announced.trim();
    const value = trailers[name];
    if (value !== undefined && !NO_TRAILER.has(name)) passing.push([name, typeof value === 'string' ? value : value.join(', ')]);
  }
  return passing.length === 0 ? null : Object.fromEntries(passing);
}

/** At least 1: what is late already is still wanted, and 0 would be refused by a gateway behind us. */
function leftMs(limitMs: number, spentMs: number): string {
  return rounded(Math.max(1, limitMs - spentMs));
}

function rounded(valueMs: number): string {
  return String(Math.round(valueMs));
}
