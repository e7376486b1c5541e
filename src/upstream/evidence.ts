// What an answer, or the want of one, says about a model server: that it works, that it fails, or that it has too much to do.
// The third is no ill health: a server that says so in time is a good one.
import type { IncomingHttpHeaders } from 'node:http';

/** `sentAtMs`: when the request that shows it was sent. */
export type Evidence =
  | { readonly kind: 'answered'; readonly sentAtMs: number }
  | { readonly kind: 'failed'; readonly sentAtMs: number; readonly why: string }
  | { readonly kind: 'silent'; readonly sentAtMs: number; readonly why: string }
  | { readonly kind: 'saturated'; readonly sentAtMs: number; readonly retryAfterMs: number | null };

export type Verdict =
  | { readonly kind: 'works' }
  | { readonly kind: 'fails' }
  | { readonly kind: 'saturated'; readonly retryAfterMs: number | null }
  /** Its body will tell: see `tellsOfOverload`. */
  | { readonly kind: 'unclear' };

/**
 * By status and headers. 429 and Anthropic's 529 say what they mean. 503 is used by servers that are full and by proxies without a
 * server: the former say when to come back, or why. Other 5xx than these are the request's own doing (501, 505 …).
 */
export function verdictOf(statusCode: number, headers: IncomingHttpHeaders, nowUnixMs: number): Verdict {
  const retryAfterMs = retryAfterMsOf(headers, nowUnixMs);
  switch (statusCode) {
    case 429:
    case 529:
      return { kind: 'saturated', retryAfterMs };
    case 503:
      return retryAfterMs === null ? { kind: 'unclear' } : { kind: 'saturated', retryAfterMs };
    case 500:
    case 502:
    case 504:
      return { kind: 'fails' };
    default:
      return { kind: 'works' };
  }
}

/** Words of vLLM, SGLang, TGI, Triton and llama.cpp where they have no place left; "Loading model" is none of them. */
const OVERLOAD = /overload|saturat|capacity|too many|queue (is )?full|queue size|queue length|rate.?limit|no (free )?slots?\b|server (is )?busy/i;

export function tellsOfOverload(body: Buffer): boolean {
  return OVERLOAD.test(body.toString('latin1', 0, 4_096));
}

/** `null` where it does not say, or not in a way that can be read. */
export function retryAfterMsOf(headers: IncomingHttpHeaders, nowUnixMs: number): number | null {
  const inMs = headers['retry-after-ms'];
  if (typeof inMs === 'string' && /^\d{1,9}(\.\d{1,6})?$/.test(inMs)) return Number(inMs);
  const value = headers['retry-after'];
  if (value === undefined) return null;
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1_000;
  const atUnixMs = Date.parse(value);
  return Number.isNaN(atUnixMs) ? null : Math.max(0, atUnixMs - nowUnixMs);
}
