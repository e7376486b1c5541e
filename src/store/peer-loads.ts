// What the other gateways of a fleet say of themselves: from the fields of the fleet's hash to sums per replica. Pure.
//
// A field counts while its text keeps changing under the reader's eyes, who counts its own beats meanwhile. No machine's
// clock is compared with another's, a field that a killed gateway left behind is never believed, and a reader that was
// itself paused does not take the others for dead.
import { z } from 'zod';
import type { ReplicaId } from '../core/job.ts';

export interface ReplicaLoad {
  /** Requests that have their first token. */
  readonly running: number;
  /** Requests sent, without a first token. */
  readonly waiting: number;
}

export type ReplicaLoads = ReadonlyMap<ReplicaId, ReplicaLoad>;

export interface PeerLoads {
  /** An answer of the store, at the reader's own beat; `whole` where it cannot have left fields out. */
  read(fields: Iterable<readonly [field: string, text: string]>, whole: boolean, beat: number): void;
  /** Of the gateways that are alive at the reader's own beat. */
  sum(beat: number): { readonly gateways: number; readonly loads: ReplicaLoads };
  /** Forgets and names the fields that nobody has written for so many readings that they are rubbish. */
  takeAbandoned(): readonly string[];
  /** There are more gateways than are counted. */
  overflowing(): boolean;
}

/** Gateways that are read at most: a bound on what an answer holds, far above any fleet of one region. */
export const GATEWAYS_MAX = 64;
/** Replicas that one gateway tells of at most. */
export const REPLICAS_MAX = 256;
/** Each of them with an id of 64 characters and two counts of seven digits: 82 at most. */
export const TEXT_CHARACTERS_MAX = 64 + REPLICAS_MAX * 90;
const COUNT_MAX = 1_000_000;
/** Three beats may be lost; a gateway of which the fourth is missing is gone. */
export const SILENT_BEATS_MAX = 4;
/** About ten seconds: a gateway that was paused for less is not mistaken for one that was killed. */
export const ABANDONED_READINGS = 40;

const quantity = z.int().min(0).max(COUNT_MAX);
const published = z.object({ loads: z.record(z.string().max(64), z.tuple([quantity, quantity])) });

interface Peer {
  text: string;
  loads: ReplicaLoads;
  changedAtBeat: number;
  /** Not before it has changed once: it may have been lying there. */
  alive: boolean;
  readingsUnchanged: number;
}

/** `count` makes every text unlike the one before it. The busiest replicas, where there are too many; idle ones are left out. */
export function publishedText(count: number, loads: ReplicaLoads): string {
  const busy = [...loads].filter(([, { running, waiting }]) => running + waiting > 0);
  if (busy.length > REPLICAS_MAX) busy.sort(([, a], [, b]) => b.running + b.waiting - a.running - a.waiting);
  return JSON.stringify({ count, loads: Object.fromEntries(busy.slice(0, REPLICAS_MAX).map(([replicaId, { running, waiting }]) => [replicaId, [Math.min(running, COUNT_MAX), Math.min(waiting, COUNT_MAX)]])) });
}

export function createPeerLoads(ownField: string): PeerLoads {
  const peers = new Map<string, Peer>();
  let overflowing = false;

  return {
    read: (fields, whole, beat) => {
      const seen = new Set<string>();
      overflowing = false;
      for (const peer of peers.values()) peer.readingsUnchanged++;
      for (const [field, text] of fields) {
        if (field === ownField) continue;
        seen.add(field);
        const peer = peers.get(field);
        if (peer === undefined) {
          if (peers.size < GATEWAYS_MAX) peers.set(field, { text, loads: new Map(), changedAtBeat: beat, alive: false, readingsUnchanged: 0 });
          else overflowing = true;
        } else if (peer.text !== text) Object.assign(peer, { text, loads: loadsIn(text), changedAtBeat: beat, alive: true, readingsUnchanged: 0 });
      }
      // One that took its field back is gone now, not when it has been silent for long enough.
      if (whole) for (const field of peers.keys()) if (!seen.has(field)) peers.delete(field);
    },
    sum: (beat) => {
      const loads = new Map<ReplicaId, ReplicaLoad>();
      let gateways = 0;
      for (const peer of peers.values()) {
        if (!peer.alive || beat - peer.changedAtBeat >= SILENT_BEATS_MAX) continue;
        gateways++;
        for (const [replicaId, { running, waiting }] of peer.loads) {
          const others = loads.get(replicaId) ?? { running: 0, waiting: 0 };
          loads.set(replicaId, { running: others.running + running, waiting: others.waiting + waiting });
        }
      }
      return { gateways, loads };
    },
    takeAbandoned: () => {
      const abandoned = [...peers].filter(([, { readingsUnchanged }]) => readingsUnchanged >= ABANDONED_READINGS).map(([field]) => field);
      for (const field of abandoned) peers.delete(field);
      return abandoned;
    },
    overflowing: () => overflowing,
  };
}

/** None where it is not what a gateway writes: another version, or somebody else's. */
function loadsIn(text: string): ReplicaLoads {
  if (text.length > TEXT_CHARACTERS_MAX) return new Map();
  try {
    const parsed = published.safeParse(JSON.parse(text));
    if (!parsed.success) return new Map();
    return new Map(Object.entries(parsed.data.loads).map(([replicaId, [running, waiting]]) => [replicaId as ReplicaId, { running, waiting }]));
  } catch {
    return new Map();
  }
}
