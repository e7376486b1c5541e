// The gateway's own decision code on virtual time over modelled replicas: the same scheduler, the emulated engine and
// device instead of servers. Deterministic: the same workload, options and seed give the same run.
import type { JobId, ReplicaId, Slo } from '../core/job.ts';
import { CONTROL_PERIOD_MS } from '../core/limits.ts';
import type { Mechanisms } from '../core/mechanisms.ts';
import { unreachable } from '../core/unreachable.ts';
import { limitsOf } from '../engine/batching.ts';
import { createPhysics, type TruthScale } from '../engine/physics.ts';
import { createEmulatedReplica, type EmulatedReplica } from '../engine/replica.ts';
import { createPerformanceModel } from '../frontier/performance-model.ts';
import type { Routing } from '../core/routing.ts';
import type { Profile } from '../frontier/profile.ts';
import type { Effect, JobReport, SchedulerEvent } from '../scheduler/events.ts';
import { createScheduler, type PlannerPolicy } from '../scheduler/scheduler.ts';
import type { WorkloadRequest } from '../workload/request.ts';
import type { RivalFactory } from './rivals/rival.ts';

export interface SimulationOptions {
  readonly requests: readonly WorkloadRequest[];
  /** Class of each request, in the order of `requests`. */
  readonly classes: readonly { readonly name: string; readonly slo: Slo }[];
  readonly replicas: number;
  /** What the machines do. The scheduler never sees it. */
  readonly truth: Profile;
  readonly truthScale?: TruthScale;
  /** What the scheduler believes they do. */
  readonly belief: Profile;
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
  /** Of all device groups, idle included, over `durationMs`. */
  readonly energyJ: number;
  /** To the end of the last job, or to `untilMs` if that is later. */
  readonly durationMs: number;
  /** Share of replica time with work on the devices. */
  readonly utilisation: number;
  /** Time-weighted over replicas. */
  readonly clockMhzMean: number;
}

interface SimulatedReplica {
  readonly replicaId: ReplicaId;
  readonly machine: EmulatedReplica<JobId>;
  /** A demand on its way to the device. */
  pending: { readonly atMs: number; readonly clockMhz: number | null; readonly pointId: string | null } | null;
  clockMhzMs: number;
  busyMs: number;
  seenAtMs: number;
}

/** Bytes that a token of the modelled prompts has: the scheduler has to learn it, as it would. */
const BYTES_PER_TOKEN = 4;
const MODEL = 'model';

export function simulate(options: SimulationOptions): SimulatedRun {
  const { requests, classes, seed, attainmentTarget = 0.99, controlDelayMs = 15, streaming = true, untilMs = 0 } = options;
  const physics = createPhysics(options.truth, options.truthScale);
  const belief = createPerformanceModel(options.belief);
  /** What the machines brought forth in the step under way, told to the scheduler when all of them have got there. */
  const brought: { readonly jobId: JobId; readonly finished: boolean; readonly outputTokens: number; readonly cachedTokens: number }[] = [];
  const replicas = Array.from({ length: options.replicas }, (_, index): SimulatedReplica => ({
    replicaId: `r${index}` as ReplicaId,
    machine: createEmulatedReplica<JobId>({
      physics,
      limits: limitsOf(options.truth),
      seed: seed + index,
      startMs: 0,
      tokenEvents: 'each',
      deliver: (events) => {
        for (const { kind, id, outputTokens, cachedTokens } of events) brought.push({ jobId: id, finished: kind === 'finished', outputTokens, cachedTokens });
      },
    }),
    pending: null,
    clockMhzMs: 0,
    busyMs: 0,
    seenAtMs: 0,
  }));
  const byId = new Map(replicas.map((replica) => [replica.replicaId, replica]));
  const policy = options.policy.kind === 'rival-factory' ? rivalOf(options.policy) : options.policy;
  const controlPeriodMs = options.controlPeriodMs ?? (policy.kind === 'rival' ? policy.clocks.controlPeriodMs : undefined) ?? CONTROL_PERIOD_MS.default;
  const scheduler = createScheduler({
    replicas: replicas.map(({ replicaId }) => ({ replicaId, models: [MODEL], belief, concurrencyMax: options.concurrencyMax ?? options.belief.serving.maxSequences })),
    policy,
    ...(options.routing === undefined ? {} : { routing: options.routing }),
    attainmentTarget,
    controlPeriodMs,
    queuedMax: 100_000,
    ...(options.mechanisms === undefined ? {} : { mechanisms: options.mechanisms }),
  });
  const reports: JobReport[] = [];
  let rejected = 0;
  let nowMs = 0;

  function rivalOf({ create, margin }: RivalPolicy): Extract<PlannerPolicy, { kind: 'rival' }> {
    const of = (replicaId: ReplicaId): SimulatedReplica => byId.get(replicaId) as SimulatedReplica;
    return {
      kind: 'rival',
      clocks: create({
        belief,
        replicaIds: replicas.map(({ replicaId }) => replicaId),
        energyJ: (replicaId) => meterJ(of(replicaId).machine),
        busyMs: (replicaId) => of(replicaId).busyMs,
        seed,
        margin,
      }),
    };
  }

  function tell(event: SchedulerEvent): void {
    for (const effect of scheduler.handle(event, nowMs)) perform(effect);
  }

  function perform(effect: Effect): void {
    switch (effect.kind) {
      case 'dispatch': {
        const replica = byId.get(effect.replicaId) as SimulatedReplica;
        const request = requests[indexOf(effect.jobId)] as WorkloadRequest;
        const submitted = replica.machine.submit({ id: effect.jobId, promptTokens: Math.max(1, request.promptTokens), outputTokens: Math.max(1, request.outputTokens) }, nowMs);
        if (submitted.kind === 'rejected') tell({ kind: 'ended', jobId: effect.jobId, outcome: 'failed' });
        return;
      }
      case 'reject':
        rejected += 1;
        return;
      case 'demand': {
        if (effect.change === 'renew') return;
        const clockMhz = effect.point === null ? null : Number(effect.point.knobs['clockMhz']);
        (byId.get(effect.replicaId) as SimulatedReplica).pending = { atMs: nowMs + controlDelayMs, clockMhz, pointId: effect.point?.id ?? null };
        return;
      }
      case 'report':
        reports.push(effect.report);
        return;
      default:
        unreachable(effect);
    }
  }

  function tellBrought(): void {
    for (const { jobId, finished, outputTokens, cachedTokens } of brought.splice(0)) {
      tell({ kind: 'tokens', jobId, tokens: 1 });
      if (!finished) continue;
      const { promptTokens } = requests[indexOf(jobId)] as WorkloadRequest;
      tell({ kind: 'ended', jobId, outcome: 'finished', usage: { promptTokens, cachedTokens, outputTokens } });
    }
  }

  function applyDemand(replica: SimulatedReplica): void {
    const { clockMhz, pointId } = replica.pending as NonNullable<SimulatedReplica['pending']>;
    replica.pending = null;
    const { machine } = replica;
    const lowestMhz = machine.clockListMhz[0] as number;
    for (let device = 0; device < machine.devices; device++) machine.lock(device, clockMhz === null ? null : { minMhz: lowestMhz, maxMhz: clockMhz }, nowMs);
    tell({ kind: 'control', replicaId: replica.replicaId, controlled: true, pointId });
  }

  for (const { replicaId } of replicas) {
    tell({ kind: 'control', replicaId, controlled: true, pointId: null });
    tell({ kind: 'replica-health', replicaId, state: 'up' });
  }
  let arriving = 0;
  let tickAtMs = 0;
  while (arriving < requests.length || reports.length + rejected < requests.length || nowMs < untilMs) {
    const arrivalAtMs = requests[arriving]?.atMs ?? Number.POSITIVE_INFINITY;
    let nextMs = Math.min(arrivalAtMs, tickAtMs);
    for (const { machine, pending } of replicas) nextMs = Math.min(nextMs, machine.nextEventAtMs(), pending?.atMs ?? Number.POSITIVE_INFINITY);
    nowMs = nextMs;
    for (const replica of replicas) {
      replica.clockMhzMs += replica.machine.clockMhz() * (nowMs - replica.seenAtMs);
      if (replica.machine.stats().running > 0) replica.busyMs += nowMs - replica.seenAtMs;
      replica.seenAtMs = nowMs;
      replica.machine.advanceTo(nowMs);
      if (replica.pending !== null && replica.pending.atMs <= nowMs) applyDemand(replica);
    }
    tellBrought();
    if (tickAtMs <= nowMs) {
      tell({ kind: 'tick' });
      tickAtMs += controlPeriodMs;
      options.onProgress?.(nowMs);
    }
    if (arrivalAtMs <= nowMs) {
      const request = requests[arriving] as WorkloadRequest;
      const sloClass = classes[arriving] as SimulationOptions['classes'][number];
      const job = { jobId: String(arriving) as JobId, model: MODEL, tenant: 'anonymous', sloClass: sloClass.name, slo: sloClass.slo, promptBytes: request.promptTokens * BYTES_PER_TOKEN, maxOutputTokens: 4096, work: 'generate', streaming } as const;
      arriving += 1;
      tell({ kind: 'arrived', job });
    }
  }
  return {
    reports,
    rejected,
    energyJ: replicas.reduce((sum, { machine }) => sum + machine.energyJ(), 0),
    durationMs: nowMs,
    utilisation: replicas.reduce((sum, { busyMs }) => sum + busyMs, 0) / Math.max(1, replicas.length * nowMs),
    clockMhzMean: replicas.reduce((sum, { clockMhzMs }) => sum + clockMhzMs, 0) / Math.max(1, replicas.length * nowMs),
  };
}

/** As the devices' counters show it, which move about every 100 ms. */
function meterJ(machine: EmulatedReplica<JobId>): number {
  let energyJ = 0;
  for (let device = 0; device < machine.devices; device++) energyJ += machine.reading(device).tickEnergyJ;
  return energyJ;
}

function indexOf(jobId: JobId): number {
  return Number(jobId);
}
