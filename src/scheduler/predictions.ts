// What is said of a job when it is sent: medians and what nine of ten stay below, corrected by how wrong this was lately for its class.
import type { LengthPredictor } from '../core/length-predictor.ts';
import { createPredictionErrors } from '../core/prediction-error.ts';
import { isOfWorkflow, type PendingJob, type TrackedJob } from '../core/tracked-job.ts';
import type { JobReport, Prediction } from './events.ts';

/** As the route has it, from the moment of sending; kept until the job ends, to be compared with what came. */
export interface RawPrediction {
  readonly ttftMs: number;
  readonly tpotMs: number;
}

export interface Predictions {
  of(job: PendingJob, route: RawPrediction & { readonly feasible: boolean }, nowMs: number): Prediction;
  /** What became of a job for which `raw` was expected. */
  learn(job: TrackedJob, raw: RawPrediction, report: JobReport): void;
}

export function createPredictions({ lengths }: { readonly lengths: Pick<LengthPredictor, 'remaining'> }): Predictions {
  const firstTokenErrors = createPredictionErrors();
  const perTokenErrors = createPredictionErrors();
  return {
    of(job, route, nowMs) {
      const { slo, sloClass, work, maxOutputTokens } = job.spec;
      const { ttftMs, tpotMs } = slo;
      const waitedMs = nowMs - job.arrivedAtMs;
      const outputTokens = work === 'embed' ? 1 : lengths.remaining(job.lengthKey, 0, 0.5, maxOutputTokens ?? Number.POSITIVE_INFINITY);
      const first = firstTokenErrors.corrected(sloClass, route.ttftMs);
      const perToken = perTokenErrors.corrected(sloClass, route.tpotMs);
      const predictedTtftMs = waitedMs + first.medianMs;
      const predictedE2eMs = predictedTtftMs + (outputTokens - 1) * perToken.medianMs;
      const slackMs = Math.min(
        ttftMs === undefined ? Number.POSITIVE_INFINITY : ttftMs - predictedTtftMs,
        tpotMs === undefined ? Number.POSITIVE_INFINITY : (tpotMs - perToken.medianMs) * Math.max(1, outputTokens - 1),
        job.e2eDeadlineAtMs - job.arrivedAtMs - predictedE2eMs,
      );
      return {
        ttftMs: predictedTtftMs,
        tpotMs: perToken.medianMs,
        e2eMs: predictedE2eMs,
        ttftP90Ms: waitedMs + first.upperMs,
        tpotP90Ms: perToken.upperMs,
        slackMs: Number.isFinite(slackMs) ? slackMs : null,
        ...(isOfWorkflow(job) && Number.isFinite(job.e2eDeadlineAtMs) ? { workflowDueMs: job.e2eDeadlineAtMs - job.arrivedAtMs } : {}),
        feasible: route.feasible,
      };
    },
    learn(job, raw, report) {
      if (report.ttftMs !== null) firstTokenErrors.observe(job.spec.sloClass, raw.ttftMs, report.ttftMs - (job.dispatchedAtMs - job.arrivedAtMs));
      if (report.tpotMs !== null) perTokenErrors.observe(job.spec.sloClass, raw.tpotMs, report.tpotMs);
    },
  };
}
