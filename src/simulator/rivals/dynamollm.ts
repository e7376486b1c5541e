// DynamoLLM, its instance level only: every five seconds the clock that the energy profile names as the cheapest which keeps
// the SLOs at the measured load.
// Source: Stojkovic, Zhang, Goiri, Torrellas and Choukse, DynamoLLM: Designing LLM Inference Clusters for Performance and Energy
// Efficiency, HPCA 2025, arXiv 2408.00741.
// Profile: TTFT and TPOT (99th percentiles) and power, idle included, by load and clock for the request class at hand; the
//   paper measures it per class and interpolates, here it follows from the belief (`steady-state.ts`) at the sizes seen.
// Load: of the last epoch, or of the last half minute if that is more: the paper's predictor knows the week's pattern and
//   plans for a peak.
// Emergency, as published: a queue that would miss its TTFT takes the fastest clock until the next epoch.
// Left out: pools per request class (all classes share a replica, so its tightest SLO counts), the cluster and pool levels
//   (instances, sharding, tensor parallelism), re-ordering and re-steering of queued requests.
import type { ReplicaId } from '../../core/job.ts';
import type { ReplicaView } from '../../core/replica-view.ts';
import { type PointIndex, fasterOf } from '../../frontier/performance-model.ts';
import type { ClockPolicy } from '../../scheduler/clock-policy.ts';
import { firstTokensMs } from './predictions.ts';
import type { RivalContext } from './rival.ts';
import { steadyStateAt } from './steady-state.ts';
import { createStreamMeter, type StreamTotals } from './stream-meter.ts';

const EPOCH_MS = 5000;
/** Epochs in the longer look back. */
const LONG_EPOCHS = 6;

interface Instance {
  point: PointIndex;
  nextEpochAtMs: number;
  /** At the starts of past epochs, oldest first. */
  readonly past: { readonly atMs: number; readonly totals: StreamTotals }[];
}

export function createDynamoLlm({ belief }: RivalContext): ClockPolicy {
  const meter = createStreamMeter();
  const instances = new Map<ReplicaId, Instance>();

  function instanceOf(replicaId: ReplicaId, nowMs: number): Instance {
    const known = instances.get(replicaId);
    if (known !== undefined) return known;
    // Before anything was measured it does not slow down.
    const fresh: Instance = { point: belief.fastest, nextEpochAtMs: nowMs + EPOCH_MS, past: [{ atMs: nowMs, totals: meter.totals(replicaId) }] };
    instances.set(replicaId, fresh);
    return fresh;
  }

  function startEpoch(instance: Instance, replicaId: ReplicaId, view: ReplicaView): void {
    const { nowMs } = view;
    const totals = meter.totals(replicaId);
    const perMs = Math.max(...[instance.past[0], instance.past.at(-1)].map((since) => (since === undefined ? 0 : (totals.arrivals - since.totals.arrivals) / Math.max(1, nowMs - since.atMs))));
    instance.past.push({ atMs: nowMs, totals });
    if (instance.past.length > LONG_EPOCHS) instance.past.shift();
    instance.nextEpochAtMs = nowMs + EPOCH_MS;
    instance.point = profiledPoint(view, perMs);
  }

  return {
    name: 'dynamollm',
    observe: (event, nowMs) => meter.observe(event, nowMs),
    choose(replicaId, view, cause) {
      const instance = instanceOf(replicaId, view.nowMs);
      if (cause === 'arrival') meter.placed(replicaId, view);
      else if (view.nowMs >= instance.nextEpochAtMs) startEpoch(instance, replicaId, view);
      if (isQueueLate(view, instance.point)) instance.point = belief.fastest;
      return instance.point;
    },
  };
}

/** The cheapest that keeps the tightest limits at this load; the fastest if none does. Exported for its test. */
export function profiledPoint(view: ReplicaView, perMs: number): PointIndex {
  const { model, forecast, outputTokensMean, tightestTpotMs, tightestTtftMs } = view;
  const load = { perMs, promptTokens: forecast.promptTokensMean, promptUnevenness: forecast.promptUnevenness, outputTokens: Math.max(1, outputTokensMean) };
  let best: { point: PointIndex; powerW: number } | null = null;
  for (let point = 0; point < model.points.length; point++) {
    const state = steadyStateAt(model, load, point);
    if (state === null || state.tpotMs > tightestTpotMs || state.ttftMs > tightestTtftMs) continue;
    const isTie = best !== null && state.powerW === best.powerW;
    if (best === null || state.powerW < best.powerW || (isTie && fasterOf(model, point, best.point) === point)) best = { point, powerW: state.powerW };
  }
  return best?.point ?? model.fastest;
}

function isQueueLate(view: ReplicaView, point: PointIndex): boolean {
  if (view.waiting.length === 0) return false;
  const firstMs = firstTokensMs(view, point);
  return view.waiting.some(({ ttftDeadlineAtMs }, index) => view.nowMs + (firstMs[index] as number) > ttftDeadlineAtMs);
}
