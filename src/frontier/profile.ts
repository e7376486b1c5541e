// The profile: what was measured of one (model, engine, device group). The document behind the narrow waist.
// Shapes only; reading a file and refusing a bad one is `profile-file.ts`, making functions of it is `performance-model.ts`.

/**
 * One setting of every knob of a device group. Above the waist a point is opaque: it is compared by what it costs,
 * never by what its knobs are called. Below the waist the agent's client turns the knobs into device settings.
 */
export interface OperatingPoint {
  readonly id: string;
  readonly knobs: Readonly<Record<string, number | string>>;
  /** Power of the whole group with the model loaded and nothing to do, at this point. */
  readonly idlePowerW: number;
}

/** Work of one prefill pass: `tokens` new ones, attending to `contextTokens` that are already in the KV cache. */
export interface PrefillWork {
  readonly tokens: number;
  readonly contextTokens: number;
}

/** Work of one decode step: `sequences` streams get one token each; `contextTokens` is the sum over all of them. */
export interface DecodeWork {
  readonly sequences: number;
  readonly contextTokens: number;
}

export type Phase = 'prefill' | 'decode';

/** Optional detail that a measurement may carry for people to read; no decision uses it. */
export interface HardwareDetail {
  readonly actualClockMhz?: number;
  readonly smUtilisation?: number;
  readonly dramUtilisation?: number;
  readonly throttleReasons?: readonly string[];
}

export interface PrefillRow extends PrefillWork {
  readonly point: string;
  readonly timeMs: number;
  /** Of the whole device group. */
  readonly energyJ: number;
  readonly hardware?: HardwareDetail;
}

export interface DecodeRow extends DecodeWork {
  readonly point: string;
  readonly timeMs: number;
  /** Of the whole device group, for the whole step. */
  readonly energyJ: number;
  readonly hardware?: HardwareDetail;
}

export interface Knob {
  readonly unit: string;
  readonly description?: string;
  /**
   * Whether a group that serves can be moved along it (default), or only a restart of its server changes it, as with its tensor-parallel
   * degree or its chunk size. Points that differ in the latter are points of different servers (`configurations.ts`).
   */
  readonly changes?: 'running' | 'restart';
}

/** What it takes to put a group's server to sleep, and what that spares. All of the whole group. */
export interface SleepCosts {
  /** Asleep. */
  readonly powerW: number;
  /** From the call to that power; it serves nothing meanwhile. */
  readonly sleepMs: number;
  /** From the call to the first request that it serves again. */
  readonly wakeMs: number;
  /** Taken by waking; default: as idling at its fastest point for `wakeMs`. */
  readonly wakeEnergyJ?: number;
}

export interface Provenance {
  readonly measuredBy: string;
  readonly measuredOn: string;
  readonly measuredAt: string;
  readonly method: string;
  readonly sources: readonly { readonly title: string; readonly url: string; readonly licence: string; readonly used: string }[];
  readonly licence: string;
  readonly madeBy: string;
}

export interface Profile {
  readonly format: 'paceline-profile/1';
  readonly name: string;
  readonly model: string;
  readonly engine: { readonly name: string; readonly version?: string };
  readonly deviceGroup: { readonly device: string; readonly devices: number; readonly parallelism?: string };
  readonly knobs: Readonly<Record<string, Knob>>;
  readonly points: readonly OperatingPoint[];
  readonly prefill: readonly PrefillRow[];
  readonly decode: readonly DecodeRow[];
  /** Time outside the kernels, added to every iteration whatever the point is (scheduling, launches, sampling). */
  readonly launchOverheadMs: number;
  readonly switch: {
    /** From the call to the new point's speed. */
    readonly latencyMs: number;
    readonly outlierMs?: number;
    readonly outlierShare?: number;
  };
  /** Absent: nothing is known of its sleep, and it is never put to sleep by this profile's word. */
  readonly sleep?: SleepCosts;
  /** What the engine was started with; the queue model needs the same numbers. */
  readonly serving: { readonly maxBatchTokens: number; readonly maxSequences: number; readonly kvTokens: number };
  readonly provenance: Provenance;
}
