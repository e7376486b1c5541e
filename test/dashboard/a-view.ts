// A view of a small fleet for tests of what is made of it; each test changes what it is about.
import type { DashboardView, Replica } from '../../src/dashboard/view.ts';
import type { JobId, ReplicaId } from '../../src/core/job.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import type { JobReport } from '../../src/scheduler/events.ts';
import { loadProfile } from '../../src/profile-file.ts';

export const MODEL = createPerformanceModel(loadProfile('config/profiles/llama-3.1-8b.h200.json'));
export const NOW_UNIX_MS = Date.UTC(2026, 10, 26, 14, 5, 9);

export function aReplica(replicaId: string, changes: Partial<Replica> = {}): Replica {
  return {
    replicaId: replicaId as ReplicaId,
    state: 'up',
    breaker: 'closed',
    room: 64,
    controlled: true,
    pointId: MODEL.points[0]?.id ?? null,
    why: { binding: 'tpot', jobId: 'job-7' as JobId, slackMs: 42 },
    waitingPrompts: 1,
    runningStreams: 5,
    stepTimeResidual: 1.02,
    energy: { source: 'metered', meterJ: 900, powerW: 310, requests: { meteredJ: 700, modelledJ: 0 }, idle: { meteredJ: 200, modelledJ: 0 }, othersJ: 0, unapportionedJ: 0, maximumClock: { requestsJ: 1_000, idleJ: 300 } },
    ...changes,
  };
}

export function aReport(changes: Partial<JobReport> = {}): JobReport {
  return { jobId: 'job-7' as JobId, replicaId: 'r0' as ReplicaId, sloClass: 'chat', tenant: 'acme', model: 'm', outcome: 'finished', ttftMs: 120, tpotMs: 21, e2eMs: 2_000, promptTokens: 900, cachedTokens: 0, outputTokens: 90, energyJ: 55, met: true, prediction: null, ...changes };
}

export function aView(changes: Partial<DashboardView> = {}): DashboardView {
  const replicas = changes.snapshot?.replicas ?? [aReplica('r0'), aReplica('r1')];
  return {
    atUnixMs: NOW_UNIX_MS,
    sinceUnixMs: NOW_UNIX_MS - 3_600_000,
    policy: 'paceline',
    attainmentTarget: 0.99,
    snapshot: { replicas, queued: 3 },
    inFlight: 12,
    beliefs: new Map(replicas.map(({ replicaId }) => [replicaId, MODEL])),
    agents: new Map([['node-a', { state: 'held' }]]),
    energy: [{ tenant: 'acme', model: 'm', sloClass: 'chat', requests: 10, promptTokens: 9_000, cachedTokens: 0, outputTokens: 700, meteredJ: 700, modelledJ: 0, maximumClockJ: 1_000 }],
    remembered: { power: [], attainment: [{ sloClass: 'chat', met: 9, missed: 1 }], clockChanges: [], requests: [{ kind: 'ended', atUnixMs: NOW_UNIX_MS, jobId: 'job-7' as JobId, sloClass: 'chat', report: aReport() }], size: null },
    workflows: { open: 2, lately: [{ tenant: 'acme', name: 'report', met: 11, missed: 1, unknown: 0, tookShare: 0.62, energyJ: 4_200 }] },
    draining: false,
    ...changes,
  };
}

/** For views in which nothing goes wrong. */
export function noFault(name: string, error: unknown): never {
  throw new Error(`the part '${name}' cannot be drawn`, { cause: error });
}
