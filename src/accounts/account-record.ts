// What is written down of energy: for every hour, who used how much, and what the replicas took besides.

export interface UsageAmounts {
  readonly requests: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
  /** By the devices' counters. */
  readonly meteredJ: number;
  /** By the profile, where there was no meter. */
  readonly modelledJ: number;
  /** Counterfactual: the same work at maximum clock. */
  readonly maximumClockJ: number;
}

export interface UsageRow extends UsageAmounts {
  readonly tenant: string;
  readonly model: string;
  readonly sloClass: string;
}

/** What a replica's devices took that is no request's. */
export interface ReplicaRow {
  readonly replica: string;
  readonly idleMeteredJ: number;
  readonly idleModelledJ: number;
  readonly othersJ: number;
  readonly unapportionedJ: number;
  /** Counterfactual: idling at maximum clock, longer for what would have been done sooner. */
  readonly maximumClockIdleJ: number;
}

export interface HourlyUsage extends UsageRow {
  /** Where it begins, seconds since 1970; in UTC, as all hours here. */
  readonly hourAtS: number;
}

export interface HourlyReplica extends ReplicaRow {
  readonly hourAtS: number;
}

export const HOUR_S = 3_600;

export function hourOf(unixMs: number): number {
  return Math.floor(unixMs / 1_000 / HOUR_S) * HOUR_S;
}
