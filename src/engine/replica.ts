// An emulated replica: the batching engine on its device group, driven by time as an argument. The real-time server and
// the virtual-time simulator both run exactly this.
import assert from 'node:assert/strict';
import type { IterationWork } from '../frontier/performance-model.ts';
import type { EngineEvent, EngineLimits, EngineRequest, EngineStats, Submission } from './batching.ts';
import { createBatchingEngine } from './batching.ts';
import type { ClockLock, DeviceReading, EmulatedGroup, GroupOptions } from './device.ts';
import { createEmulatedGroup } from './device.ts';
import { logNormal } from '../random/distributions.ts';
import { createRandom } from '../random/random.ts';

export interface ReplicaOptions<Id> extends GroupOptions {
  readonly limits: EngineLimits;
  /** As in `createBatchingEngine`. With `first-and-last`, decode steps between two changes are run in one go. */
  readonly tokenEvents: 'each' | 'first-and-last';
  /** Called within `advanceTo` with what an iteration brought, in order of time. It must not call the replica back. */
  readonly deliver: (events: readonly EngineEvent<Id>[], atMs: number) => void;
  /** How late a late caller may still start an iteration in the past; later, the time is lost. Default `Infinity`. */
  readonly catchUpMaxMs?: number;
  /**
   * Iterations take a log-normal time around the modelled one, of this coefficient of variation; default 0. It is drawn for a
   * run of equal steps as a whole, by the variance of their sum.
   */
  readonly durationCv?: number;
}

/** Every `nowMs` must be at or after the one before. */
export interface EmulatedReplica<Id> {
  readonly devices: number;
  readonly clockListMhz: readonly number[];
  submit(request: EngineRequest<Id>, nowMs: number): Submission;
  cancel(id: Id, nowMs: number): boolean;
  /** Locks one device of the group, or with `null` sets it back to default clocks. */
  lock(device: number, lock: ClockLock | null, nowMs: number): void;
  limitPower(device: number, limitW: number | null, nowMs: number): void;
  /** Its server is out of work and draws so much from now on, its cache forgotten; `null`: it is back. Nothing may be submitted in between. */
  rest(powerW: number | null, nowMs: number): void;
  advanceTo(nowMs: number): void;
  /** Nothing happens by itself before this instant; `Infinity` when idle and settled. */
  nextEventAtMs(): number;
  /** As of the last `advanceTo`; steps of a run that are over count, and the run goes on uncut. */
  outputTokensOf(id: Id): number | undefined;
  /** When the last decode step that is over ended: all that decode got their latest token then. As of the last `advanceTo`. */
  lastStepAtMs(): number;
  /** Of the whole group, at a clock, with nothing to do. */
  idlePowerW(clockMhz: number): number;
  /** Whether there is work on the devices. */
  busy(): boolean;
  stats(): EngineStats;
  /** The actual clock of the slowest device. */
  clockMhz(): number;
  /** Of the whole group, up to the last `advanceTo`. */
  energyJ(): number;
  powerW(): number;
  reading(device: number): DeviceReading;
}

export function createEmulatedReplica<Id extends string | number>(options: ReplicaOptions<Id>): EmulatedReplica<Id> {
  const { physics, limits, tokenEvents, deliver, catchUpMaxMs = Infinity, durationCv = 0 } = options;
  const random = createRandom(options.seed, 'duration');
  const engine = createBatchingEngine<Id>(limits, tokenEvents);
  const group: EmulatedGroup = createEmulatedGroup(options);
  let nowMs = options.startMs;

  /**
   * Steps that the engine has not been told of yet: a run of equal decode steps is one piece of work for the group, and is cut
   * where something comes between. 0 while a single iteration, begun in the engine, is under way.
   */
  let runSteps = 0;
  let runFromMs = 0;
  /** Times the modelled time, of the work under way. */
  let noise = 1;
  let busy = false;
  let resting = false;
  /** End of the last iteration that the engine was told of. */
  let steppedAtMs = options.startMs;
  /** Steps of the run under way that were over at `overAtMs`; `NaN` until somebody asks. */
  let stepsOver = 0;
  let overAtMs = Number.NaN;
  const runWork = { prefill: { tokens: 0, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } };

  function beginNext(atMs: number): void {
    const steps = tokenEvents === 'each' ? 0 : engine.iterationsUntilChange();
    if (steps > 1) {
      const { sequences, contextTokens } = engine.decodeWork();
      runWork.decode.sequences = sequences;
      runWork.decode.contextTokens = contextTokens + (sequences * (steps - 1)) / 2;
      begin(runWork, steps, atMs);
      return;
    }
    const work = engine.beginIteration();
    if (work !== null) begin(work, 0, atMs);
  }
  function begin(work: IterationWork, steps: number, atMs: number, doneShare = 0): void {
    if (durationCv > 0) noise = logNormal(random, 1, durationCv / Math.sqrt(Math.max(1, steps)));
    group.begin(work, Math.max(1, steps) * noise, atMs, doneShare);
    runSteps = steps;
    runFromMs = atMs;
    busy = true;
    overAtMs = Number.NaN;
  }

  /** Asked for each of a batch's streams at one instant, so it is worked out once. */
  function wholeStepsOver(): number {
    if (runSteps === 0) return 0;
    if (overAtMs !== nowMs) {
      stepsOver = Math.min(runSteps - 1, physics.decodeStepsWithin(engine.decodeWork(), group.clockMhz(), (nowMs - runFromMs) / noise));
      overAtMs = nowMs;
    }
    return stepsOver;
  }
  /** From the start of a run to the end of so many of its steps. */
  function stepsMs(steps: number): number {
    const { sequences, contextTokens } = engine.decodeWork();
    runWork.decode.sequences = sequences;
    runWork.decode.contextTokens = contextTokens + (sequences * (steps - 1)) / 2;
    return steps * physics.iterationTimeMs(runWork, group.clockMhz()) * noise;
  }

  /** Cuts a run at this instant: its whole steps are done, the one under way goes on as a single iteration. */
  function cutRun(): void {
    if (runSteps === 0) return;
    const passedMs = nowMs - runFromMs;
    const wholeSteps = wholeStepsOver();
    const wholeStepsMs = stepsMs(wholeSteps);
    const clockMhz = group.clockMhz();
    group.end(nowMs);
    assert(engine.skipIterations(wholeSteps).length === 0, 'nothing finishes before the last step of a run');
    if (wholeSteps > 0) steppedAtMs = Math.min(nowMs, runFromMs + wholeStepsMs);
    const work = engine.beginIteration();
    assert(work !== null, 'a run has sequences');
    begin(work, 0, nowMs, Math.min(1, Math.max(0, passedMs - wholeStepsMs) / (physics.iterationTimeMs(work, clockMhz) * noise)));
  }

  function complete(atMs: number, callerMs: number): void {
    group.end(atMs);
    busy = false;
    const events = runSteps > 0 ? engine.skipIterations(runSteps) : engine.endIteration();
    runSteps = 0;
    steppedAtMs = atMs;
    if (events.length > 0) deliver(events, atMs);
    const nextAtMs = Math.max(atMs, callerMs - catchUpMaxMs);
    group.advance(nextAtMs);
    nowMs = nextAtMs;
    beginNext(nextAtMs);
  }

  function advanceTo(toMs: number): void {
    for (;;) {
      const endsAtMs = group.endsAtMs();
      const settlesAtMs = group.settlesAtMs();
      const nextMs = Math.min(endsAtMs, settlesAtMs);
      if (nextMs > toMs) break;
      nowMs = Math.max(nowMs, nextMs);
      group.advance(nowMs);
      if (endsAtMs <= settlesAtMs) complete(nowMs, toMs);
      else {
        cutRun();
        group.settle(nowMs);
      }
    }
    nowMs = Math.max(nowMs, toMs);
    group.advance(nowMs);
  }

  return {
    devices: group.devices,
    clockListMhz: group.clockListMhz,
    submit: (request, atMs) => {
      assert(!resting, 'a server that sleeps takes nothing');
      advanceTo(atMs);
      cutRun();
      const submission = engine.submit(request);
      if (!busy) beginNext(nowMs);
      return submission;
    },
    cancel: (id, atMs) => {
      advanceTo(atMs);
      cutRun();
      return engine.cancel(id);
    },
    lock: (device, lock, atMs) => {
      advanceTo(atMs);
      group.lock(device, lock, nowMs);
    },
    limitPower: (device, limitW, atMs) => {
      advanceTo(atMs);
      cutRun();
      group.limitPower(device, limitW, nowMs);
    },
    rest: (powerW, atMs) => {
      advanceTo(atMs);
      assert(!busy, 'a server sleeps when it has nothing to do');
      resting = powerW !== null;
      if (resting) engine.forgetPrefixes();
      group.restAt(powerW, nowMs);
    },
    advanceTo,
    nextEventAtMs: () => Math.min(group.endsAtMs(), group.settlesAtMs()),
    outputTokensOf: (id) => engine.outputTokensOf(id, wholeStepsOver()),
    lastStepAtMs: () => {
      const steps = wholeStepsOver();
      return steps === 0 ? steppedAtMs : Math.min(nowMs, runFromMs + stepsMs(steps));
    },
    idlePowerW: physics.idlePowerW,
    busy: () => busy,
    stats: () => {
      cutRun();
      return engine.stats();
    },
    clockMhz: group.clockMhz,
    energyJ: group.energyJ,
    powerW: group.powerW,
    reading: group.reading,
  };
}
