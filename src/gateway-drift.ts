// Tells the log once when a replica leaves its profile or is back at it, with what to do about it.
import type { Phase } from './frontier/profile.ts';
import type { FleetSnapshot } from './scheduler/scheduler.ts';

export interface DriftWatch {
  close(): void;
}

interface DriftWatchOptions {
  readonly snapshot: () => Pick<FleetSnapshot, 'replicas'>;
  readonly warn: (message: string) => void;
  readonly inform: (message: string) => void;
  readonly everyMs?: number;
  /** Of now. */
  readonly unixMs?: () => number;
}

const LOOK_EVERY_MS = 10_000;

export function createDriftWatch({ snapshot, warn, inform, everyMs = LOOK_EVERY_MS, unixMs = Date.now }: DriftWatchOptions): DriftWatch {
  /** Told of and not yet over. Bounded by the replicas: who is gone is forgotten. */
  let told = new Set<string>();

  function look(): void {
    const now = new Set<string>();
    const { replicas } = snapshot();
    for (const { replicaId, drift = {} } of replicas) {
      for (const [phase, { ratio, forMs }] of Object.entries(drift)) {
        const key = `${replicaId} ${phase}`;
        now.add(key);
        if (!told.has(key)) warn(`replica ${replicaId} ${driftText(phase as Phase, ratio)} since ${new Date(unixMs() - forMs).toISOString()}: plans are corrected, but its profile should be measured anew: run paceline profile`);
      }
    }
    const here = new Set(replicas.map(({ replicaId }) => replicaId as string));
    for (const key of told) {
      const [replicaId = '', phase = ''] = key.split(' ');
      if (!now.has(key) && here.has(replicaId)) inform(`replica ${replicaId} is back at its profile: ${phase}`);
    }
    told = now;
  }

  const timer = setInterval(look, everyMs);
  timer.unref();
  return { close: () => clearInterval(timer) };
}

/** `decodes 23 % slower than its profile`. */
export function driftText(phase: Phase, ratio: number): string {
  const percent = Math.round(100 * Math.abs(ratio - 1));
  return `${phase === 'prefill' ? 'prefills' : 'decodes'} ${percent} % ${ratio > 1 ? 'slower' : 'faster'} than its profile`;
}
