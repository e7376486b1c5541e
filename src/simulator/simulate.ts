// The gateway's own decision code on virtual time over modelled replicas: the same scheduler, the emulated engine and
// device instead of servers. Deterministic: the same workload, options and seed give the same run.
import assert from 'node:assert/strict';
import type { EnergyPrice } from '../core/energy-prices.ts';
import type { JobId, JobSpec, PromptPrefix, ReplicaId, Slo } from '../core/job.ts';
import { CONTROL_PERIOD_MS } from '../core/limits.ts';
import { createLearnedModel, type LearnedModel } from '../core/learned-model.ts';
import type { Mechanisms } from '../core/mechanisms.ts';
import type { PowerBudget } from '../core/power-budget.ts';
import { unreachable } from '../core/unreachable.ts';
import type { TruthScale } from '../engine/physics.ts';
import { createPerformanceModel, type PerformanceModel } from '../frontier/performance-model.ts';
import type { Route, Routing } from '../core/routing.ts';
import { powerRange } from '../frontier/power-limited.ts';
import type { Profile, SleepCosts } from '../frontier/profile.ts';
import type { Effect, JobReport, SchedulerEvent } from '../scheduler/events.ts';
import type { ReplicaSpec } from '../scheduler/replica.ts';
import { createScheduler, type PlannerPolicy } from '../scheduler/scheduler.ts';
import { createRandom } from '../random/random.ts';
import { PREFIX_BLOCK_TOKENS } from '../workload/prefix-block.ts';
import type { WorkloadRequest } from '../workload/request.ts';
import { createMachineFactory, type MachineOptions } from './machines.ts';
import { type BudgetHeld, createPowerMeter } from './power-meter.ts';
import type { RivalFactory } from './rivals/rival.ts';
import { type Brought, type DoneByReplicas, createSimulatedFleet } from './simulated-fleet.ts';
import { type CallTicket, type ComingCall, createWorkflowClients, type SimulatedWorkflow, type WorkflowOutcome } from './workflow-clients.ts';

export interface SimulationOptions {
  readonly requests: readonly WorkloadRequest[];
  /** Class of each request, in the order of `requests`. */
  readonly classes: readonly { readonly name: string; readonly slo: Slo; readonly worth?: number }[];
  /** Model of each request, in the order of `requests`; default: one model, which all replicas serve. */
  readonly models?: readonly string[];
  /** Who sends each request, in the order of `requests`; default: one tenant, served best effort. */
  readonly tenants?: readonly SimulatedTenant[];
  /** Beside the requests; of one tenant. */
  readonly workflows?: readonly SimulatedWorkflow[];
  readonly replicas: number;
  /** What the machines do. The scheduler never sees it. */
  readonly truth: Profile;
  readonly truthScale?: TruthScale;
  readonly machines?: MachineOptions;
  /** What the scheduler believes they do. */
  readonly belief: Profile;
  /** A fleet of unlike replicas; it overrides `replicas`, `truth` and `belief`. */
  readonly fleet?: readonly FleetMember[];
  /** A rival is made here, because it may read the machines' meters. */
  readonly policy: PlannerPolicy | RivalPolicy;
  readonly routing?: Routing;
  readonly seed: number;
  readonly attainmentTarget?: number;
  readonly controlPeriodMs?: number;
  /** Jobs sent to a replica at once; default what its server takes. */
  readonly concurrencyMax?: number;
  /** Whether clients stream; default yes. */
  readonly streaming?: boolean;
  /** Goes on idling until then, so that runs can be compared over one window; default: until the last job has ended. */
  readonly untilMs?: number;
  /** Told of the virtual time now and then. */
  readonly onProgress?: (nowMs: number) => void;
  /** From a demand to the agent's call having been made; the device's own settling comes on top. */
  readonly controlDelayMs?: number;
  readonly mechanisms?: Mechanisms;
  /** Replicas whose belief says what sleeping costs sleep while the others are enough; default: none do. What it really takes says the truth. */
  readonly sleep?: { readonly awakeMin: number };
  /** The beliefs are starting profiles, to be learnt from; default: they are taken at their word, with corrections. */
  readonly learns?: boolean;
  /** What energy costs from when on; the run then has a cost. The scheduler is told, unless nothing is to be moved for it. */
  readonly prices?: readonly EnergyPrice[];
  readonly movesWork?: boolean;
  /** Joules so far are kept this often, on `energySamples`. */
  readonly sampleEnergyEveryMs?: number;
  /** The scheduler is told what the devices' counters say, as often as a gateway reads them; default: it is not. */
  readonly metered?: boolean;
  /** As in `SchedulerOptions`; to learn, the scheduler is told what the counters say. */
  readonly batchCap?: 'plan' | 'learn';
  readonly observer?: SimulationObserver;
  /** Caps on power, and how they are kept; default: none. */
  readonly power?: SimulatedPower;
  /** `each` tells the scheduler of every token when it comes, at many times the cost. For tests. */
  readonly tokenEvents?: 'each' | 'first-and-last';
}

export interface SimulatedPower {
  /** What may be drawn from when on; each replaces the one before. Ascending. */
  readonly schedule: readonly { readonly atMs: number; readonly budgets: readonly PowerBudget[] }[];
  /**
   * `allotted`: the scheduler is told, and shares them out. `uniform`: each device group is held to the same part of its believed peak by its devices' own limit, as
   * fleets are capped today; the scheduler is told that limit of each replica, which only `paceline` heeds.
   */
  readonly how: 'allotted' | 'uniform';
}

export interface SimulatedTenant {
  readonly name: string;
  readonly weight?: number;
  readonly infeasible?: 'refuse' | 'best-effort';
}

/** Told of what is decided, as it is. */
export interface SimulationObserver {
  onEffect(effect: Effect, nowMs: number): void;
  /** Each replica that is weighed for a job. */
  onRoute(jobId: JobId, route: Route<ReplicaSpec>, nowMs: number): void;
}

export interface FleetMember {
  /** What it serves; default: the one model. */
  readonly models?: readonly string[];
  readonly truth: Profile;
  readonly belief: Profile;
}

export interface RivalPolicy {
  readonly kind: 'rival-factory';
  readonly create: RivalFactory;
  /** As in `RivalContext`. */
  readonly margin: number;
}

export interface SimulatedRun {
  readonly reports: readonly JobReport[];
  readonly rejected: number;
  /** Where there were any, in the order of their ends. */
  readonly workflows?: readonly WorkflowOutcome[];
  /** Of all device groups, idle included, over `durationMs`. */
  readonly energyJ: number;
  /** To the end of the last job, or to `untilMs` if that is later. */
  readonly durationMs: number;
  /** Share of replica time with work on the devices. */
  readonly utilisation: number;
  /** Time-weighted over replicas. */
  readonly clockMhzMean: number;
  /** Its kilowatt-hours, each at the price of its time; absent without prices. */
  readonly cost?: number;
  readonly energySamples?: readonly { readonly atMs: number; readonly energyJ: number }[];
  /** What was drawn under each power budget; absent where there was none. */
  readonly budgets?: readonly BudgetHeld[];
  /** Prompt tokens that were found in the prefix cache. */
  readonly cachedPromptTokens?: number;
  /** What each replica did, in the order of the fleet; their reports name them. */
  readonly replicas?: readonly (DoneByReplicas & { readonly replicaId: ReplicaId })[];
}

/** Bytes that a token of the modelled prompts has: the scheduler has to learn it, as it would. */
const BYTES_PER_TOKEN = 4;
const MODEL = 'model';
/** What clients ask for, unless they got more. */
const MAX_OUTPUT_TOKENS = 4096;
const WORKFLOW_TENANT = 'workflows';
const ANONYMOUS: SimulatedTenant = { name: 'anonymous' };
const PROGRESS_EVERY_STEPS = 512;
/** No job is kept back for longer than this beyond its deadline. */
const STALLED_AFTER_MS = 600_000;
const DAY_MS = 86_400_000;
/** As often as a gateway reads them. */
const METER_EVERY_MS = 500;

/** Jobs wait for what never comes, under a budget that serves none of theirs: nothing has come, gone or changed for longer than any of them could wait on purpose. */
export class SimulationStalled extends Error {
  override name = 'SimulationStalled';
  constructor(jobs: number, sinceMs: number) {
    super(`${jobs} ${jobs === 1 ? 'request waits' : 'requests wait'} and nothing has happened since ${(sinceMs / 1_000).toFixed(1)} s of virtual time; under a power budget there is too little for what serves their model: raise it`);
  }
}

export function simulate(options: SimulationOptions): SimulatedRun {
  const { requests, classes, seed, attainmentTarget = 0.99, controlDelayMs = 15, streaming = true, untilMs = 0, tokenEvents = 'first-and-last', observer, metered = options.batchCap === 'learn' } = options;
  const members = options.fleet ?? Array.from({ length: options.replicas }, (): FleetMember => ({ truth: options.truth, belief: options.belief }));
  const replicaIds = members.map((_, index) => `r${index}` as ReplicaId);
  const { power } = options;
  const meter = createPowerMeter();
  const machines = createMachineFactory(options.truthScale, options.machines ?? {});
  const fleet = createSimulatedFleet(replicaIds, (index) => sleepOf(members[index] as FleetMember), (index, deliver) => machines.create((members[index] as FleetMember).truth, { seed: seed + index, tokenEvents, deliver }), power === undefined ? undefined : (replicaId, powerW, atMs) => meter.draws(replicaId, powerW, atMs));
  // Replicas of one profile share its model: the scheduler takes idle ones for alike by it.
  const models = new Map([...new Set(members.map(({ belief }) => belief))].map((profile) => [profile, options.learns === true ? createLearnedModel(profile) : { model: createPerformanceModel(profile) }]));
  const beliefOf = (index: number): PerformanceModel => learnedBy(index).model;
  const learnedBy = (index: number): LearnedModel | { readonly model: PerformanceModel } => models.get((members[index] as FleetMember).belief) as LearnedModel;
  const policy = options.policy.kind === 'rival-factory' ? rivalOf(options.policy) : options.policy;
  const controlPeriodMs = options.controlPeriodMs ?? (policy.kind === 'rival' ? policy.clocks.controlPeriodMs : undefined) ?? CONTROL_PERIOD_MS.default;
  const scheduler = createScheduler({
    replicas: replicaIds.map((replicaId, index) => ({ replicaId, models: members[index]?.models ?? [MODEL], belief: beliefOf(index), concurrencyMax: options.concurrencyMax ?? beliefOf(index).profile.serving.maxSequences, ...sleepBelieved(members[index] as FleetMember), ...('decodeSeen' in learnedBy(index) ? { learned: learnedBy(index) as LearnedModel } : {}) })),
    policy,
    ...(options.routing === undefined ? {} : { routing: options.routing }),
    attainmentTarget,
    controlPeriodMs,
    queuedMax: 100_000,
    bringUpToDate,
    ...(observer === undefined ? {} : { onRoute: (jobId: JobId, route: Route<ReplicaSpec>): void => observer.onRoute(jobId, route, nowMs) }),
    energyAccounts: metered,
    ...(options.sleep === undefined ? {} : { sleep: options.sleep }),
    ...(options.batchCap === undefined ? {} : { batchCap: options.batchCap === 'plan' ? { kind: 'plan' } : { kind: 'learn', random: createRandom(seed, 'batch-cap') } }),
    ...(options.mechanisms === undefined ? {} : { mechanisms: options.mechanisms }),
  });
  const reports: JobReport[] = [];
  const energySamples: { atMs: number; energyJ: number }[] = [];
  const clients = createWorkflowClients(options.workflows ?? [], { model: MODEL, tenant: WORKFLOW_TENANT });
  /** Those of `requests`, and calls of workflows behind them, by the number that a job is named by. */
  const sizes: Pick<WorkloadRequest, 'promptTokens' | 'outputTokens' | 'prefixBlocks'>[] = [...requests];
  const tickets = new Map<JobId, CallTicket>();
  let rejected = 0;
  let cachedPromptTokens = 0;
  let nowMs = 0;

  function rivalOf({ create, margin }: RivalPolicy): Extract<PlannerPolicy, { kind: 'rival' }> {
    return {
      kind: 'rival',
      clocks: create({
        belief: beliefOf(0),
        replicaIds,
        energyJ: (replicaId) => fleet.meterJ(replicaId, nowMs),
        busyMs: (replicaId) => fleet.busyMs(replicaId, nowMs),
        seed,
        margin,
      }),
    };
  }

  /** Point and limit that each replica's devices were told last; none yet: default clocks. */
  const told = new Map<ReplicaId, string>();

  function budgetsAre({ budgets }: SimulatedPower['schedule'][number]): void {
    meter.budgetsAre(budgets, nowMs);
    if (power?.how !== 'uniform') return tell({ kind: 'power-budgets', budgets });
    const peaksW = new Map(replicaIds.map((replicaId, index) => [replicaId, powerRange(beliefOf(index)).peakW]));
    const parts = new Map<ReplicaId, number>();
    for (const { watts, replicaIds: under } of budgets) {
      const part = watts / under.reduce((sum, replicaId) => sum + (peaksW.get(replicaId) ?? 0), 0);
      for (const replicaId of under) parts.set(replicaId, Math.min(part, parts.get(replicaId) ?? 1));
    }
    const limits = replicaIds.map((replicaId): PowerBudget => ({ name: replicaId, watts: (parts.get(replicaId) ?? 1) * (peaksW.get(replicaId) ?? 0), replicaIds: [replicaId] }));
    for (const { name, watts } of limits) fleet.limitPower(name as ReplicaId, watts, nowMs);
    tell({ kind: 'power-budgets', budgets: limits });
  }

  function tell(event: SchedulerEvent): void {
    for (const effect of scheduler.handle(event, nowMs)) {
      observer?.onEffect(effect, nowMs);
      perform(effect);
    }
  }

  function perform(effect: Effect): void {
    switch (effect.kind) {
      case 'dispatch': {
        const request = sizes[indexOf(effect.jobId)] as WorkloadRequest;
        const { prefixBlocks } = request;
        const submitted = fleet.submit(effect.replicaId, { id: effect.jobId, promptTokens: Math.max(1, request.promptTokens), outputTokens: Math.max(1, request.outputTokens), ...(prefixBlocks === undefined ? {} : { prefixBlocks }) }, nowMs);
        if (submitted.kind === 'rejected') tell({ kind: 'ended', jobId: effect.jobId, outcome: 'failed' });
        return;
      }
      case 'reject': {
        rejected += 1;
        const ticket = ticketOf(effect.jobId);
        if (ticket !== null) clients.refused(ticket);
        return;
      }
      case 'demand': {
        // What the devices were told last they need not be told again. Not every first demand changes anything for the scheduler: a
        // belief's fastest point may be below the device's default clock.
        const { powerLimitW } = effect;
        const setting = settingOf(effect);
        if (effect.change === 'renew' && told.get(effect.replicaId) === setting) return;
        told.set(effect.replicaId, setting);
        const clockMhz = effect.point === null ? null : Number(effect.point.knobs['clockMhz']);
        fleet.set(effect.replicaId, { clockMhz, pointId: effect.point?.id ?? null, ...(powerLimitW === undefined ? {} : { powerLimitW }) }, nowMs + controlDelayMs);
        return;
      }
      case 'sleep':
      case 'wake':
        fleet.rest(effect.replicaId, effect.kind === 'sleep' ? 'asleep' : 'awake', nowMs);
        return;
      case 'report': {
        reports.push(effect.report);
        const ticket = ticketOf(effect.report.jobId);
        if (ticket === null) return;
        if (effect.report.outcome === 'finished') clients.ended(ticket, nowMs);
        else clients.refused(ticket);
        return;
      }
      case 'settled':
      case 'workflow-declared':
      case 'workflow-ended':
      case 'left':
        return;
      default:
        unreachable(effect);
    }
  }

  /** The scheduler sees tokens when it looks, as many as have come by then: in between, nobody needs to know. */
  function bringUpToDate(replicaId: ReplicaId): void {
    if (!streaming) return;
    fleet.newTokens(replicaId, nowMs, (jobId, tokens, lastAtMs) => tell({ kind: 'tokens', jobId, tokens, lastAtMs }));
  }

  function tellBrought(event: Brought): void {
    const { replicaId, jobId, finished, outputTokens, cachedTokens } = event;
    bringUpToDate(replicaId);
    const tokens = fleet.takeTokens(event);
    if (streaming && tokens > 0) tell({ kind: 'tokens', jobId, tokens });
    if (!finished) return;
    const { promptTokens } = sizes[indexOf(jobId)] as WorkloadRequest;
    cachedPromptTokens += cachedTokens;
    tell({ kind: 'ended', jobId, outcome: 'finished', usage: { promptTokens, cachedTokens, outputTokens } });
  }

  function arrive(index: number): void {
    const { promptTokens, outputTokens, prefixBlocks } = requests[index] as WorkloadRequest;
    const { name, slo, worth } = classes[index] as SimulationOptions['classes'][number];
    const { name: tenant, weight = 1, infeasible = 'best-effort' } = options.tenants?.[index] ?? ANONYMOUS;
    tell({
      kind: 'arrived',
      job: { jobId: String(index) as JobId, model: options.models?.[index] ?? MODEL, tenant, weight, infeasible, sloClass: name, slo, ...(worth === undefined ? {} : { worth }), promptBytes: promptTokens * BYTES_PER_TOKEN, ...(prefixBlocks === undefined ? {} : { prefix: prefixOf(prefixBlocks, promptTokens) }), maxOutputTokens: Math.max(MAX_OUTPUT_TOKENS, outputTokens), work: 'generate', streaming },
    });
  }

  function ticketOf(jobId: JobId): CallTicket | null {
    const ticket = tickets.get(jobId);
    tickets.delete(jobId);
    return ticket ?? null;
  }

  function call({ workflow, workflowId, node, slo, ticket }: ComingCall): void {
    const { promptTokens, outputTokens, stage } = node;
    const jobId = String(sizes.push({ promptTokens, outputTokens }) - 1) as JobId;
    tickets.set(jobId, ticket);
    const { told, deadlineMs, name = 'workflow', sloClass } = workflow;
    const part: Pick<JobSpec, 'workflow'> = told === 'declared' ? { workflow: { workflowId, stage } } : told === 'discovered' ? { workflow: { workflowId, stage, discovered: { deadlineMs, name } } } : {};
    tell({
      kind: 'arrived',
      job: { jobId, model: MODEL, tenant: typeof told !== 'string' && told.byStage === true ? `${WORKFLOW_TENANT}/${stage}` : WORKFLOW_TENANT, sloClass, slo, promptBytes: promptTokens * BYTES_PER_TOKEN, maxOutputTokens: Math.max(MAX_OUTPUT_TOKENS, outputTokens), work: 'generate', streaming, ...part },
    });
  }

  for (const replicaId of replicaIds) {
    tell({ kind: 'control', replicaId, controlled: true, pointId: null });
    tell({ kind: 'replica-health', replicaId, state: 'up' });
  }
  let nextBudgets = 0;
  let arriving = 0;
  let tickAtMs = 0;
  let meterAtMs = metered ? 0 : Number.POSITIVE_INFINITY;
  let sampleAtMs = options.sampleEnergyEveryMs ?? Number.POSITIVE_INFINITY;
  const { prices = [], movesWork = true } = options;
  const bill = createBill(prices);
  if (movesWork && prices.length > 0) tell({ kind: 'energy-prices', prices });
  let steps = 0;
  let stood = '';
  let stoodSinceMs = 0;
  const longestMs = classes.reduce((longest, { slo }) => Math.max(longest, slo.e2eMs ?? 0), 0);
  while (arriving < requests.length || reports.length + rejected < sizes.length || !clients.isDone() || nowMs < untilMs) {
    const arrivalAtMs = requests[arriving]?.atMs ?? Number.POSITIVE_INFINITY;
    nowMs = Math.min(arrivalAtMs, clients.nextAtMs(), tickAtMs, power?.schedule[nextBudgets]?.atMs ?? Number.POSITIVE_INFINITY, meterAtMs, sampleAtMs, bill.nextAtMs(), fleet.nextAtMs(), nowMs < untilMs ? untilMs : Number.POSITIVE_INFINITY);
    assert(Number.isFinite(nowMs), 'what has not ended waits for something');
    const { brought, applied, rested } = fleet.advanceTo(nowMs);
    for (const { replicaId, state } of rested) tell({ kind: 'replica-rest', replicaId, state });
    for (const { replicaId, pointId, powerLimitW } of applied) tell({ kind: 'control', replicaId, controlled: true, pointId, ...(powerLimitW === undefined ? {} : { powerLimitW }) });
    for (const event of brought) tellBrought(event);
    for (let next = power?.schedule[nextBudgets]; next !== undefined && next.atMs <= nowMs; next = power?.schedule[nextBudgets]) {
      nextBudgets += 1;
      budgetsAre(next);
    }
    if (sampleAtMs <= nowMs) {
      energySamples.push({ atMs: nowMs, energyJ: fleet.totals(nowMs).energyJ });
      sampleAtMs += options.sampleEnergyEveryMs ?? Number.POSITIVE_INFINITY;
    }
    if (bill.nextAtMs() <= nowMs) bill.read(fleet.totals(nowMs).energyJ);
    if (meterAtMs <= nowMs) {
      for (const replicaId of replicaIds) bringUpToDate(replicaId);
      for (const replicaId of replicaIds) tell({ kind: 'metered', replicaId, reading: { energyJ: fleet.meterJ(replicaId, nowMs), epoch: 0, powerW: null } });
      meterAtMs += METER_EVERY_MS;
    }
    if (tickAtMs <= nowMs) {
      tell({ kind: 'tick' });
      tickAtMs = ticksOnce(policy) && options.sleep === undefined && options.batchCap === undefined ? Number.POSITIVE_INFINITY : tickAtMs + controlPeriodMs;
    }
    if (arrivalAtMs <= nowMs) arrive(arriving++);
    for (const coming of clients.take(nowMs)) {
      if (coming.kind === 'declare') tell({ kind: 'workflow-declared', workflow: coming.workflow });
      else call(coming.call);
    }
    if (++steps % PROGRESS_EVERY_STEPS === 0) {
      options.onProgress?.(nowMs);
      const waiting = sizes.length - reports.length - rejected;
      const mayChange = arriving < requests.length || waiting === 0 || clients.nextAtMs() < Number.POSITIVE_INFINITY || (power?.schedule[nextBudgets]?.atMs ?? Number.POSITIVE_INFINITY) < nowMs + DAY_MS;
      const stands = `${waiting} ${fleet.nextAtMs()}`;
      if (mayChange || stands !== stood) [stood, stoodSinceMs] = [stands, nowMs];
      else if (nowMs - stoodSinceMs > STALLED_AFTER_MS + longestMs) throw new SimulationStalled(waiting, stoodSinceMs);
    }
  }
  const { energyJ, busyMs, clockMhzMs } = fleet.totals(nowMs);
  const replicasMs = Math.max(1, replicaIds.length * nowMs);
  return { reports, rejected, ...(options.workflows === undefined ? {} : { workflows: clients.outcomes() }), energyJ, durationMs: nowMs, utilisation: busyMs / replicasMs, clockMhzMean: clockMhzMs / replicasMs, energySamples, cachedPromptTokens, replicas: fleet.each(nowMs).map((done, index) => ({ ...done, replicaId: replicaIds[index] as ReplicaId })), ...(prices.length === 0 ? {} : { cost: bill.total(energyJ) }), ...(power === undefined ? {} : { budgets: meter.read(nowMs) }) };
}

/** In one word, to tell whether devices were told it before. */
function settingOf({ point, powerLimitW }: Extract<Effect, { kind: 'demand' }>): string {
  return `${point?.id ?? ''} ${powerLimitW === undefined ? '' : powerLimitW}`;
}

const J_PER_KWH = 3_600_000;

/** Energy by the price of its time, read where that changes; before the first price it is that one. */
function createBill(prices: readonly EnergyPrice[]): { nextAtMs(): number; read(energyJ: number): void; total(energyJ: number): number } {
  let place = 0;
  let readJ = 0;
  let cost = 0;
  function read(energyJ: number): void {
    cost += ((energyJ - readJ) / J_PER_KWH) * (prices[place]?.price ?? 0);
    readJ = energyJ;
    place += 1;
  }
  return {
    nextAtMs: () => prices[place + 1]?.fromMs ?? Number.POSITIVE_INFINITY,
    read,
    total: (energyJ) => cost + ((energyJ - readJ) / J_PER_KWH) * (prices[place]?.price ?? 0),
  };
}

/** Of these a tick only repeats what was demanded at the first, so that virtual time may pass over all that follow. */
function ticksOnce({ kind }: PlannerPolicy): boolean {
  return kind === 'max-clock' || kind === 'static';
}

function sleepOf({ truth }: FleetMember): SleepCosts {
  assert(truth.sleep !== undefined, `${truth.name}: a server whose sleep nothing is known of is never put to sleep`);
  return truth.sleep;
}

/** Of a machine that has no such mode nobody believes any. */
function sleepBelieved({ truth, belief: { sleep } }: FleetMember): { readonly sleep?: SleepCosts } {
  return sleep === undefined || truth.sleep === undefined ? {} : { sleep };
}

/** As a gateway sees it: the blocks that the prompt fills, for of one begun nobody can say what it will be. */
function prefixOf(prefixBlocks: readonly number[], promptTokens: number): PromptPrefix {
  return { blocks: prefixBlocks.slice(0, Math.floor(promptTokens / PREFIX_BLOCK_TOKENS)), blockShare: PREFIX_BLOCK_TOKENS / Math.max(1, promptTokens) };
}

function indexOf(jobId: JobId): number {
  return Number(jobId);
}
