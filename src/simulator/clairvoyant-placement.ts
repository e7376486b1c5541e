// Which replica serves a request, and when it is sent there: in order of arrival, each time rolling a replica forward with
// the request and everything else that is known to be there.
import type { IterationWork } from '../frontier/performance-model.ts';
import type { Physics } from '../engine/physics.ts';
import type { Gear } from './clairvoyant-gears.ts';
import type { Dispatch } from './clairvoyant-play.ts';
import type { KnownRequest } from './clairvoyant-request.ts';
import { type AloneTimes, aloneAt } from './feasibility.ts';
import type { Rollout, RolloutEngine } from './clairvoyant-rollout.ts';

export interface PlacementRule {
  readonly gears: readonly Gear[];
  /** Gears to pack in, as indexes; more than one: the best over the near future is taken from time to time. */
  readonly packIn: readonly number[];
  /** They are compared by what all that arrives in so long takes to its end. */
  readonly packAheadMs: number;
  /**
   * A request without a limit on its first token waits until serving it along with others costs at most this many times
   * what it costs in a full batch. `Infinity`: nothing waits.
   */
  readonly holdUpTo: number;
}

interface Place {
  rollout: Rollout;
  gear: number;
}

interface Held {
  readonly request: KnownRequest;
  readonly latestAtMs: number;
  readonly firstMs: number;
}

interface Fleet {
  readonly places: Place[];
  /** By `latestAtMs`. */
  readonly held: Held[];
  heldAtMs: number;
  /** The next to arrive. */
  next: number;
  missed: number;
  /** `null` where it is only looked ahead. */
  readonly sent: Dispatch[][] | null;
}

/** How often held requests are looked at; and where none of them waits for its first token by a limit. */
const HELD_EVERY_MS = 100;
const PATIENT_EVERY_MS = 1_000;
/** Held ones that do not fit in a row, after which the others are not asked. */
const HELD_REFUSED_MAX = 4;
/** A held request is sent with this many times the time left that it takes alone in the slowest gear. */
const HELD_TIME_SHARE = 2.5;
/** The same for a first token; and time for others that are sent with it. */
const FIRST_TIME_SHARE = 2;
const FIRST_ALLOWANCE_MS = 100;
/** Streams that count as a full batch. */
const FULL_BATCH_SEQUENCES = 64;
/** How often the gear to pack in is chosen. */
const PACK_EVERY_MS = 2_000;
/** What a missed deadline counts when gears are compared: more than any detour. */
const MISSED_J = 20_000;

/** Dispatches of each replica, in order of time. `requests` in order of arrival. */
export function placeRequests(engine: RolloutEngine, physics: Physics, requests: readonly KnownRequest[], replicas: number, rule: PlacementRule): Dispatch[][] {
  const { gears, packIn, packAheadMs, holdUpTo } = rule;
  const slowest = gears[0] as Gear;
  const fastest = gears.length - 1;

  function run(fleet: Fleet, place: Place, toMs: number): void {
    while (!engine.run(place.rollout, gears[place.gear] as Gear, toMs)) fleet.missed++;
  }
  /** Whether all deadlines there hold with the request, in this gear. */
  function fits({ rollout }: Place, gear: number, request: KnownRequest, nowMs: number): boolean {
    const ahead = engine.copy(rollout);
    engine.submit(ahead, request, nowMs);
    return engine.run(ahead, gears[gear] as Gear, Infinity);
  }
  function finishJ({ rollout, gear }: Place, request: KnownRequest | null, nowMs: number): number | null {
    const ahead = engine.copy(rollout);
    if (request !== null) engine.submit(ahead, request, nowMs);
    return engine.run(ahead, gears[gear] as Gear, Infinity) ? ahead.excessJ : null;
  }
  function send(fleet: Fleet, request: KnownRequest, { place, gear }: { readonly place: Place; readonly gear: number }, nowMs: number): void {
    engine.submit(place.rollout, request, nowMs);
    place.gear = gear;
    fleet.sent?.[fleet.places.indexOf(place)]?.push({ request, sentAtMs: nowMs });
  }

  /** The first replica that takes it in the slowest gear from `pack` up in which any does; if none does, the least loaded. */
  function choose({ places }: Fleet, pack: number, request: KnownRequest, nowMs: number): { place: Place; gear: number } {
    const idle = places.find(({ rollout }) => isIdle(rollout));
    const candidates = places.filter((place) => (place === idle || !isIdle(place.rollout)) && engine.hasPlace(place.rollout, request));
    const inGear = (gear: number): Place | undefined => candidates.find((candidate) => fits(candidate, gear, request, nowMs));
    let low = pack;
    let found: { place: Place; gear: number } | null = null;
    // The gear to pack in first, which is nearly always enough; then the fastest, which says whether any is.
    for (let high = fastest, gear = pack; low <= high; gear = found === null ? fastest : (low + high) >> 1) {
      const place = inGear(gear);
      if (place !== undefined) {
        found = { place, gear };
        high = gear - 1;
      } else {
        if (gear === fastest) break;
        low = gear + 1;
      }
    }
    if (found !== null) return found;
    return { place: places.reduce((a, b) => (b.rollout.finalTokens < a.rollout.finalTokens ? b : a)), gear: fastest };
  }
  /** A replica that runs anyway and takes the request: for little, where it could as well wait for longer. */
  function join({ places }: Fleet, pack: number, request: KnownRequest, nowMs: number): { place: Place; gear: number } | null {
    for (const place of places) {
      if (isIdle(place.rollout) || !engine.hasPlace(place.rollout, request)) continue;
      if (request.firstByMs < Infinity) {
        if (fits(place, pack, request, nowMs)) return { place, gear: pack };
        continue;
      }
      const withJ = finishJ(place, request, nowMs);
      const withoutJ = withJ === null ? null : finishJ(place, null, nowMs);
      if (withJ !== null && withoutJ !== null && withJ - withoutJ <= holdUpTo * fullBatchJ(physics, slowest, request)) return { place, gear: place.gear };
    }
    return null;
  }

  function latestSendAtMs(request: KnownRequest, alone: AloneTimes): number {
    if (holdUpTo === Infinity) return -Infinity;
    if (request.firstByMs < Infinity) return request.firstByMs - FIRST_TIME_SHARE * alone.ttftMs - FIRST_ALLOWANCE_MS;
    return request.endByMs < Infinity ? request.endByMs - HELD_TIME_SHARE * alone.e2eMs : -Infinity;
  }
  /** How many of those held, first in order, can wait no longer, were they all sent to one replica. */
  function due({ held }: Fleet, nowMs: number): number {
    let behindMs = 0;
    let count = 0;
    for (let index = 0; index < held.length; index++) {
      const { request, latestAtMs, firstMs } = held[index] as Held;
      if (latestAtMs - behindMs <= nowMs) count = index + 1;
      if (request.firstByMs < Infinity) behindMs += FIRST_TIME_SHARE * firstMs;
    }
    return count;
  }
  function sendHeld(fleet: Fleet, pack: number, nowMs: number): void {
    const { held } = fleet;
    let refused = 0;
    let forced = due(fleet, nowMs);
    for (let index = 0; index < held.length; ) {
      const { request } = held[index] as Held;
      const where = forced > 0 ? choose(fleet, pack, request, nowMs) : refused < HELD_REFUSED_MAX ? join(fleet, pack, request, nowMs) : null;
      if (where === null) {
        refused++;
        index++;
        continue;
      }
      send(fleet, request, where, nowMs);
      held.splice(index, 1);
      forced--;
    }
  }

  function pass(fleet: Fleet, pack: number, toMs: number): void {
    const { held, places } = fleet;
    while (held.length > 0 && fleet.heldAtMs < toMs) {
      for (const place of places) run(fleet, place, fleet.heldAtMs);
      sendHeld(fleet, pack, fleet.heldAtMs);
      fleet.heldAtMs += held.some(({ request }) => request.firstByMs < Infinity) ? HELD_EVERY_MS : PATIENT_EVERY_MS;
    }
    fleet.heldAtMs = Math.max(fleet.heldAtMs, Math.ceil(toMs / HELD_EVERY_MS) * HELD_EVERY_MS);
    if (toMs < Infinity) for (const place of places) run(fleet, place, toMs);
  }
  /** Serves all that arrives before `toMs`. */
  function serve(fleet: Fleet, pack: number, toMs: number): void {
    const { held } = fleet;
    for (let request = requests[fleet.next]; request !== undefined && request.atMs < toMs; request = requests[++fleet.next]) {
      pass(fleet, pack, request.atMs);
      const alone = aloneAt(physics, request, slowest.prefillMhz);
      const latestAtMs = latestSendAtMs(request, alone);
      const where = latestAtMs > request.atMs + HELD_EVERY_MS ? join(fleet, pack, request, request.atMs) : choose(fleet, pack, request, request.atMs);
      if (where === null) {
        const at = held.findIndex((other) => other.latestAtMs > latestAtMs);
        held.splice(at < 0 ? held.length : at, 0, { request, latestAtMs, firstMs: alone.ttftMs });
        if (request.firstByMs < Infinity) fleet.heldAtMs = Math.min(fleet.heldAtMs, Math.ceil(request.atMs / HELD_EVERY_MS) * HELD_EVERY_MS);
      } else send(fleet, request, where, request.atMs);
    }
    pass(fleet, pack, toMs);
  }

  /** What all that arrives up to `toMs` takes to its end, in this gear from here on. */
  function aheadJ(fleet: Fleet, pack: number, toMs: number): number {
    const ahead: Fleet = { ...fleet, places: fleet.places.map(({ rollout, gear }) => ({ rollout: engine.copy(rollout), gear })), held: fleet.held.slice(), sent: null };
    serve(ahead, pack, toMs);
    for (const place of ahead.places) run(ahead, place, Infinity);
    const heldJ = ahead.held.reduce((sumJ, { request }) => sumJ + fullBatchJ(physics, slowest, request), 0);
    return ahead.places.reduce((sumJ, { rollout }) => sumJ + rollout.excessJ, heldJ) + MISSED_J * (ahead.missed - fleet.missed);
  }

  const sent = Array.from({ length: replicas }, (): Dispatch[] => []);
  const fleet: Fleet = { places: sent.map(() => ({ rollout: engine.start(), gear: packIn[0] as number })), held: [], heldAtMs: 0, next: 0, missed: 0, sent };
  for (let nowMs = 0; fleet.next < requests.length; nowMs += PACK_EVERY_MS) {
    const costs = packIn.length === 1 ? [0] : packIn.map((pack) => aheadJ(fleet, pack, nowMs + packAheadMs));
    serve(fleet, packIn[costs.indexOf(Math.min(...costs))] as number, nowMs + PACK_EVERY_MS);
  }
  pass(fleet, packIn[0] as number, Infinity);
  return sent;
}

function isIdle({ streams, waiting }: Rollout): boolean {
  return streams.length + waiting.length === 0;
}

/** Energy of a request above parked idling, its tokens in a full batch. */
function fullBatchJ(physics: Physics, { prefillMhz, decodeMhz }: Gear, { promptTokens, outputTokens }: KnownRequest): number {
  const parkedW = Math.min(...physics.measuredClocksMhz.map((mhz) => physics.idlePowerW(mhz)));
  const excessJ = (work: IterationWork, clockMhz: number): number => physics.iterationEnergyJ(work, clockMhz) - (parkedW * physics.iterationTimeMs(work, clockMhz)) / 1000;
  const prefill: IterationWork = { prefill: { tokens: promptTokens, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } };
  const step: IterationWork = { prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: FULL_BATCH_SEQUENCES, contextTokens: FULL_BATCH_SEQUENCES * (promptTokens + outputTokens / 2) } };
  return excessJ(prefill, prefillMhz) + (outputTokens * excessJ(step, decodeMhz)) / FULL_BATCH_SEQUENCES;
}
