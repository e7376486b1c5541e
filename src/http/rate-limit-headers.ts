// What OpenAI's clients read of their limits: on every answer of a tenant that has some.
import type { ServerResponse } from 'node:http';
import type { Standings } from '../core/tenant-limits.ts';

/** Before the answer's own headers are written. */
export function setRateLimitHeaders(outgoing: ServerResponse, { requests, tokens }: Standings): void {
  if (outgoing.headersSent) return;
  for (const [name, standing] of [['requests', requests], ['tokens', tokens]] as const) {
    if (standing === null) continue;
    outgoing.setHeader(`x-ratelimit-limit-${name}`, String(standing.limit));
    outgoing.setHeader(`x-ratelimit-remaining-${name}`, String(Math.floor(standing.remaining)));
    outgoing.setHeader(`x-ratelimit-reset-${name}`, goDuration(standing.resetMs));
  }
}

/** As Go prints one, which is what OpenAI does: `0s`, `120ms`, `6.5s`, `1m0s`, `1h0m0s`. */
export function goDuration(ms: number): string {
  const wholeMs = Math.max(0, Math.ceil(ms));
  if (wholeMs === 0) return '0s';
  if (wholeMs < 1_000) return `${wholeMs}ms`;
  const hours = Math.floor(wholeMs / 3_600_000);
  const minutes = Math.floor((wholeMs % 3_600_000) / 60_000);
  const seconds = `${(wholeMs % 60_000) / 1_000}s`;
  if (hours > 0) return `${hours}h${minutes}m${seconds}`;
  return minutes > 0 ? `${minutes}m${seconds}` : seconds;
}
