// The accounts of energy, where the scheduler keeps them: what it tells a replica's ledger, and what of it goes out.
import { createEnergyLedger, type EnergyLedger, type JobEnergy, type Settled } from '../core/energy-ledger.ts';
import type { Usage } from '../core/job.ts';
import { type Company, jobEnergyJ } from '../core/job-energy.ts';
import type { ReplicaQueue } from '../core/replica-queue.ts';
import { PHASE_GROUPS, type PhaseGroup } from '../core/replica-view.ts';
import type { TrackedJob } from '../core/tracked-job.ts';
import type { PointIndex } from '../frontier/performance-model.ts';
import type { Effect, SchedulerEvent } from './events.ts';
import { tokensAtEnd } from './job-report.ts';
import type { Replica } from './replica.ts';
import type { ReplicaSpec } from './replica.ts';

export function createReplicaEnergy({ belief, disaggregated }: ReplicaSpec, queue: Pick<ReplicaQueue, 'decoding'>): EnergyLedger<TrackedJob> {
  return createEnergyLedger({ model: belief, groups: disaggregated === true ? PHASE_GROUPS : [null], streams: queue.decoding });
}

/** What a job was charged that ends now: by its account where there is one. It is still in the replica's queue, with those that it shared steps with. */
export function energyAtEnd(
  { spec: { belief }, energy, queue }: Replica,
  job: TrackedJob,
  company: { readonly sent: Company; readonly ended: Company },
  event: Extract<SchedulerEvent, { kind: 'ended' }>,
  nowMs: number,
): { readonly energyJ: number; readonly account: JobEnergy | null } {
  const { promptTokens, cachedTokens, outputTokens } = tokensAtEnd(job, job, event);
  // What a server had cached it did not prefill; of a job that was let go before its first token without an account, for all we know, all of its prompt was read.
  const tokens = { promptTokens: promptTokens - cachedTokens, outputTokens };
  if (energy === null) return { energyJ: jobEnergyJ(belief, tokens, company.sent, company.ended), account: null };
  queue.bringUpToDate(nowMs, job);
  // Done sooner, fewer would run at once: as in an account's own counterfactual (`energy-work.ts`).
  const fastest = ({ point, sequences }: Company): Company => {
    const step = { sequences, contextTokens: sequences * promptTokens };
    return { point: belief.fastest, sequences: Math.max(1, (sequences * belief.decodeTimeMs(step, belief.fastest)) / belief.decodeTimeMs(step, point)) };
  };
  const done = event.usage === undefined ? null : { prefilledTokens: tokens.promptTokens, outputTokens };
  const account = energy.ended(job, done, nowMs, () => ({ energyJ: jobEnergyJ(belief, tokens, company.sent, company.ended), maximumClockJ: jobEnergyJ(belief, tokens, fastest(company.sent), fastest(company.ended)) }));
  return { energyJ: account.meteredJ + account.modelledJ, account };
}

/** Of a job that is there still: by its account. */
export function energyNow({ energy, queue }: Replica, job: TrackedJob, usage: Usage | null, nowMs: number): JobEnergy | null {
  if (energy === null) return null;
  queue.bringUpToDate(nowMs, job);
  return energy.known(job, usage === null ? null : { prefilledTokens: usage.promptTokens - usage.cachedTokens, outputTokens: usage.outputTokens });
}

/** It goes to another replica: what this one took for it is its own all the same. */
export function energyAtReturn({ energy }: Replica, job: TrackedJob, nowMs: number): readonly Effect[] {
  if (energy === null) return [];
  const more = energy.ended(job, null, nowMs, () => ({ energyJ: 0, maximumClockJ: 0 }));
  return more.meteredJ === 0 && more.modelledJ === 0 ? [] : [settledEffect({ job, more })];
}

export function metered({ energy, queue }: Replica, { group, reading }: Extract<SchedulerEvent, { kind: 'metered' }>, nowMs: number): readonly Effect[] {
  if (energy === null) return [];
  queue.bringUpToDate(nowMs);
  const { settled, window } = energy.metered(group ?? null, reading, nowMs);
  if (window !== null) queue.energySeen(window);
  return settled.map(settledEffect);
}

/** Its group is at another point from now on; `null`: default clocks. The queue must not have been told of it yet. */
export function moved({ energy, queue, spec: { belief } }: Replica, group: PhaseGroup | null, point: PointIndex | null, nowMs: number): void {
  if (energy === null) return;
  queue.bringUpToDate(nowMs);
  energy.moved(group, point ?? belief.fastest, nowMs);
}

function settledEffect({ job: { spec }, more }: Settled<TrackedJob>): Effect {
  const { jobId, tenant, model, sloClass } = spec;
  return { kind: 'settled', jobId, tenant, model, sloClass, more };
}
