// Jobs come in bursts of like ones, and judging every replica for each of them anew would tell nothing new: what was decided
// for one holds for so many like it as change the load of its replica, and eat its slack, by little.
import { planOfGroup } from '../core/group-plan.ts';
import { ALIKE, LEARNT_KEYS_MAX } from '../core/limits.ts';
import type { PrefixAffinity } from '../core/prefix-affinity.ts';
import type { Route } from '../core/routing.ts';
import type { PendingJob, TrackedJob } from '../core/tracked-job.ts';
import type { Replica } from './replica.ts';

export interface Judgements {
  /** `sure`: the plan holds everything, at hardly a risk. `load`: jobs on the replica, with this one. */
  remember(job: TrackedJob, route: Route<Replica>, how: { readonly sure: boolean; readonly load: number }, nowMs: number): void;
  /** The route of a job like this one, judged so lately that it holds for this one, and whose replica `hasPlace`; counts it. `null` where there is none. */
  alike(job: PendingJob, hasPlace: (replica: Replica) => boolean, nowMs: number): Route<Replica> | null;
}

interface Judged {
  readonly atMs: number;
  readonly job: TrackedJob;
  readonly route: Route<Replica>;
  left: number;
}

export function createJudgements({ affinity }: { readonly affinity: Pick<PrefixAffinity, 'cachedTokens' | 'mostCachedTokens'> }): Judgements {
  /** By key, the last job that was judged and sent. */
  const judged = new Map<string, Judged>();

  return {
    remember(job, route, { sure, load }, nowMs) {
      const prefillMs = route.id.spec.belief.prefillTimeMs({ tokens: job.promptTokens - job.cachedTokens, contextTokens: job.cachedTokens }, planOfGroup(route.plan, 'prefill').point);
      const left = Math.floor(Math.min(ALIKE.loadShare * load, (ALIKE.slackShare * route.plan.slackMs) / prefillMs));
      if (!sure || left <= 0 || judged.size >= LEARNT_KEYS_MAX) judged.delete(job.key);
      else judged.set(job.key, { atMs: nowMs, job, route, left });
    },
    alike(job, hasPlace, nowMs) {
      const known = judged.get(job.key);
      if (known === undefined) return null;
      const { spec, promptTokens, cachedTokens } = known.job;
      const { slo, work, streaming, sloClass } = job.spec;
      const replica = known.route.id;
      // What is cached there must be alike too, and not more of it anywhere else.
      const cachedHere = affinity.cachedTokens(job, replica.index);
      const [toPrefill, toPrefillThen] = [job.promptTokens - cachedHere, promptTokens - cachedTokens];
      const alike =
        toPrefillThen >= toPrefill / ALIKE.sizeRatio &&
        toPrefillThen <= toPrefill * ALIKE.sizeRatio &&
        affinity.mostCachedTokens(job) <= cachedHere &&
        promptTokens >= job.promptTokens / ALIKE.sizeRatio &&
        promptTokens <= job.promptTokens * ALIKE.sizeRatio &&
        spec.slo.ttftMs === slo.ttftMs &&
        spec.slo.tpotMs === slo.tpotMs &&
        spec.slo.e2eMs === slo.e2eMs &&
        spec.workflow === undefined &&
        job.spec.workflow === undefined &&
        spec.sloClass === sloClass &&
        spec.work === work &&
        spec.streaming === streaming;
      if (!alike || job.avoid !== undefined || nowMs - known.atMs > ALIKE.ageMs || known.left === 0 || !hasPlace(replica)) return null;
      known.left -= 1;
      return known.route;
    },
  };
}
