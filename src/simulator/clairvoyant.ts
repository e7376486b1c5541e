// The clairvoyant policy: it knows every arrival, length and the truth of the machines, and plans with all of it before it is
// played on the same emulated replicas as everyone else. A yardstick: how much there was to save. Not optimal, no bound either;
// and made for loads that can be served: with far too much to do it does not look for what to give up.
import type { JobId, ReplicaId } from '../core/job.ts';
import { limitsOf } from '../engine/batching.ts';
import { type Physics, createPhysics } from '../engine/physics.ts';
import type { JobReport } from '../scheduler/events.ts';
import { type ClockPlan, forecastClocks, improveClocks, repairClocks } from './clairvoyant-clocks.ts';
import { type Gear, phasedGears, uniformGears } from './clairvoyant-gears.ts';
import { type PlacementRule, placeRequests } from './clairvoyant-placement.ts';
import { type Dispatch, type Stage, type Times, isMet, playReplica } from './clairvoyant-play.ts';
import { type KnownRequest, knownRequests } from './clairvoyant-request.ts';
import { aloneAtFastest } from './feasibility.ts';
import { createRolloutEngine } from './clairvoyant-rollout.ts';
import type { SimulatedRun, SimulationOptions } from './simulate.ts';

export interface ClairvoyantOptions extends Pick<SimulationOptions, 'requests' | 'classes' | 'replicas' | 'truth' | 'truthScale' | 'seed' | 'untilMs' | 'controlDelayMs'> {
  /** Length of an interval of the clock schedules. */
  readonly controlMs?: number;
  /** How long it searches, 1 being some seconds for 1,500 requests; 0: no search after the first placements. */
  readonly effort?: number;
}

/** Of all replicas. */
interface FleetPlan {
  readonly dispatches: readonly (readonly Dispatch[])[];
  readonly clocks: readonly ClockPlan[];
}

/** What the forecasts keep back for switches, which they know nothing of. What is too much is won back when clocks are improved. */
const FORECAST_MARGIN = { tpotShare: 0.01, ms: 30 };
/** Plans whose clocks are improved. */
const IMPROVED_PLANS = 2;
/** A replica is played at most so often to improve its clocks, per unit of effort. */
const PLAYS = 600;

/**
 * 1. *Placement*, on a model of the engine that is rolled forward: each request goes to the first replica where every deadline
 *    still holds, so that few replicas carry full batches and the others idle parked; it waits for that while its own
 *    deadlines allow. How fast to run, and so how many replicas to open, is chosen anew every few seconds by
 *    what all that arrives in the next ones would take.
 * 2. *Clocks*: per replica and control interval the lowest gear that holds over a horizon of known arrivals.
 * 3. *Search*: the best plans are played on the real replicas again and again, each time with a block of intervals shifted; what
 *    misses fewer, or takes less, stays.
 * What counts is only ever the play, switch latency and its outliers included; a request that cannot meet its SLO alone at the
 * fastest clock is best effort.
 */
export function simulateClairvoyant(options: ClairvoyantOptions): SimulatedRun {
  const { replicas, untilMs = 0, seed, controlMs = 250, controlDelayMs = 15, effort = 1 } = options;
  const physics = createPhysics(options.truth, options.truthScale);
  const requests = knownRequests(options.requests, options.classes.map(({ slo }) => slo), physics, untilMs);
  const stages = Array.from({ length: replicas }, (_, index): Stage => ({ physics, limits: limitsOf(options.truth), seed: seed + index, untilMs, controlMs, controlDelayMs }));
  const plans = rules(physics, requests).map((rule) => planFleet(physics, requests, stages, rule));
  plans.sort(compare);
  const improved = effort === 0 ? plans.slice(0, 1) : plans.slice(0, IMPROVED_PLANS).map((plan) => improveFleet(stages, plan, Math.round(PLAYS * effort)));
  return playFleet(requests, options.classes, stages, improved.reduce((a, b) => (compare(b, a) < 0 ? b : a)));
}

/** Those that were the best somewhere when many were tried on traces and bursts, at light and heavy load. */
function rules(physics: Physics, requests: readonly KnownRequest[]): PlacementRule[] {
  const patient = requests.some(({ firstByMs, endByMs }) => firstByMs === Infinity && endByMs < Infinity);
  const ruleOf = (gears: readonly Gear[], packAheadMs: number, holdUpTo: number): PlacementRule => ({ gears, packIn: gears.map((_, gear) => gear), packAheadMs, holdUpTo });
  const uniform = uniformGears(physics);
  const phased = phasedGears(physics);
  return [ruleOf(uniform, 8_000, 1.08), ruleOf(phased, 8_000, 1.08), ruleOf(phased, 14_000, 1.08), patient ? ruleOf(phased, 8_000, 1.15) : ruleOf(phased, 25_000, 1.08)];
}

function planFleet(physics: Physics, requests: readonly KnownRequest[], stages: readonly Stage[], rule: PlacementRule): FleetPlan {
  const engine = createRolloutEngine(physics, FORECAST_MARGIN);
  const { gears } = rule;
  const dispatches = placeRequests(engine, physics, requests, stages.length, rule);
  const clocks = stages.map((stage, index): ClockPlan => {
    const sent = dispatches[index] as Dispatch[];
    const schedule = forecastClocks(engine, stage, gears, sent);
    return repairClocks(stage, sent, { gears, schedule, played: playReplica(stage, sent, gears, schedule) }, { left: PLAYS });
  });
  return { dispatches, clocks };
}

function improveFleet(stages: readonly Stage[], plan: FleetPlan, plays: number): FleetPlan {
  const passes = [
    { blockMs: 8000, shifts: [-2, -1, 1] },
    { blockMs: 2000, shifts: [-2, -1, 1] },
    { blockMs: 500, shifts: [-1, 1] },
  ];
  const clocks = plan.clocks.map((clocksOf, index) => improveClocks(stages[index] as Stage, plan.dispatches[index] as readonly Dispatch[], clocksOf, passes, { left: plays }));
  return { ...plan, clocks };
}

function missedOf({ clocks }: FleetPlan): number {
  return clocks.reduce((sum, { played }) => sum + played.missed, 0);
}
function energyOf({ clocks }: FleetPlan): number {
  return clocks.reduce((sumJ, { played }) => sumJ + played.energyJ, 0);
}
function compare(a: FleetPlan, b: FleetPlan): number {
  return missedOf(a) - missedOf(b) || energyOf(a) - energyOf(b);
}

function playFleet(requests: readonly KnownRequest[], classes: ClairvoyantOptions['classes'], stages: readonly Stage[], { dispatches, clocks }: FleetPlan): SimulatedRun {
  const times: Times[] = [];
  const endedAtMs = Math.max(...clocks.map(({ played }) => played.endedAtMs));
  const durationMs = Math.max(endedAtMs, ...stages.map(({ untilMs }) => untilMs));
  let energyJ = 0;
  let clockMhzMs = 0;
  let busyMs = 0;
  const reports: JobReport[] = [];
  stages.forEach((stage, replica) => {
    const { gears, schedule } = clocks[replica] as ClockPlan;
    const sent = dispatches[replica] as readonly Dispatch[];
    energyJ += playReplica({ ...stage, untilMs: durationMs }, sent, gears, schedule, times).energyJ;
    let coveredMs = 0;
    for (const { request, sentAtMs } of sent) {
      const endAtMs = times[request.index]?.endAtMs ?? sentAtMs;
      busyMs += Math.max(0, endAtMs - Math.max(coveredMs, sentAtMs));
      coveredMs = Math.max(coveredMs, endAtMs);
      reports.push(reportOf(request, classes[request.index]?.name ?? '', replica, times[request.index], sentAtMs, stage.physics));
    }
    for (let index = 0; index * stage.controlMs < durationMs; index++) {
      const gear = gears[schedule[Math.min(index, schedule.length - 1)] ?? 0];
      clockMhzMs += (gear?.decodeMhz ?? 0) * Math.min(stage.controlMs, durationMs - index * stage.controlMs);
    }
  });
  const spanMs = Math.max(1, stages.length * durationMs);
  return { reports, rejected: requests.length - reports.length, energyJ, durationMs, utilisation: busyMs / spanMs, clockMhzMean: clockMhzMs / spanMs };
}

function reportOf(request: KnownRequest, sloClass: string, replica: number, times: Times | undefined, sentAtMs: number, physics: Physics): JobReport {
  const { index, atMs, promptTokens, outputTokens, feasible, slo } = request;
  const alone = aloneAtFastest(physics, request);
  const done = times !== undefined;
  return {
    jobId: String(index) as JobId,
    replicaId: `r${replica}` as ReplicaId,
    sloClass,
    tenant: 'anonymous',
    model: 'model',
    outcome: done ? 'finished' : 'failed',
    ttftMs: done ? times.firstAtMs - atMs : null,
    tpotMs: done && outputTokens > 1 ? (times.endAtMs - times.firstAtMs) / (outputTokens - 1) : null,
    e2eMs: (done ? times.endAtMs : sentAtMs) - atMs,
    promptTokens,
    cachedTokens: 0,
    outputTokens: done ? outputTokens : 0,
    // Nobody is charged for it here.
    energyJ: 0,
    met: slo.ttftMs === undefined && slo.tpotMs === undefined && slo.e2eMs === undefined ? null : done && isMet(request, times),
    prediction: { ttftMs: alone.ttftMs, tpotMs: alone.tpotMs ?? 0, e2eMs: alone.e2eMs, ttftP90Ms: alone.ttftMs, tpotP90Ms: alone.tpotMs ?? 0, slackMs: null, feasible },
  };
}
