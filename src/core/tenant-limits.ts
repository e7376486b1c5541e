// What a tenant may have, and what is said of it: the words that the limiter, the store and HTTP share.
import type { JobId } from './job.ts';

export type LimitKind = 'requests' | 'tokens' | 'concurrency' | 'energy';
export const LIMIT_KINDS: readonly LimitKind[] = ['requests', 'tokens', 'concurrency', 'energy'];

/** What a limit does while the store cannot be asked. */
export type LostWay = 'open' | 'closed' | 'local-share';

/** Where a decision was made: by the store for all gateways, by this one alone as configured, or by this one because the store is lost. */
export type LimitScope = 'fleet' | 'gateway' | LostWay;

/** As the config has it; `null`: none. */
export interface LimitedTenant {
  readonly name: string;
  readonly limits: {
    readonly requestsPerMinute: number | null;
    readonly tokensPerMinute: number | null;
    readonly concurrencyMax: number | null;
    /** 'fleet': of all gateways together where there is a store; 'gateway': of each by itself, without asking the store. */
    readonly scope: 'fleet' | 'gateway';
  };
  readonly energyBudget: { readonly joulesPerDay: number; readonly atEnd: 'refuse' | { readonly class: string } } | null;
}

/** What is in force for one decision; 0 lets nothing through. */
export interface Allowance {
  readonly requests: number | null;
  readonly tokens: number | null;
  readonly concurrency: number | null;
}

export interface LimitRequest {
  readonly jobId: JobId;
  readonly tenant: LimitedTenant;
  readonly model: string;
  readonly promptBytes: number;
  readonly promptTokens: number | null;
  readonly maxOutputTokens: number | null;
  /** `declare`: it is counted as a request and takes nothing else. */
  readonly work: 'generate' | 'embed' | 'declare';
}

/** Of one limit of a minute; `resetMs`: until all of it is there again, were nothing sent. */
export interface Standing {
  readonly limit: number;
  readonly remaining: number;
  readonly resetMs: number;
}

export interface Standings {
  readonly requests: Standing | null;
  readonly tokens: Standing | null;
}

export type LimitDecision =
  /** `sloClass`: the energy budget is spent, and this class is what its requests get. */
  | { readonly kind: 'admitted'; readonly standings: Standings; readonly sloClass: string | null }
  /** `retryAfterMs` is `null` where it could never be admitted. */
  | { readonly kind: 'refused'; readonly limit: LimitKind; readonly allowed: number; readonly asked: number; readonly retryAfterMs: number | null; readonly standings: Standings };

/** What a job took in the end. */
export interface Spent {
  readonly promptTokens: number;
  /** `null` where its server did not tell: what was reserved stays. */
  readonly outputTokens: number | null;
  readonly energyJ: number;
}

export interface Limiter {
  /** `done` is called exactly once: before this returns where no store is asked, else within the store's timeout. */
  admit(request: LimitRequest, done: (decision: LimitDecision) => void): void;
  /** Once for everything that was admitted; what comes twice, or was never admitted, is nothing. `null`: it was never worked on. */
  settle(jobId: JobId, spent: Spent | null): void;
}

/** Whether there is anything to ask for. */
export function isLimited({ limits, energyBudget }: LimitedTenant): boolean {
  return limits.requestsPerMinute !== null || limits.tokensPerMinute !== null || limits.concurrencyMax !== null || energyBudget !== null;
}
