// VoltanaLLM: per iteration the slowest clock at which a latency predictor says that the phase keeps its SLO, and routing
// that keeps instances from being pushed over the edge to a faster clock.
// Source: Yu, Taneja, Lin and Zhang, VoltanaLLM: Feedback-Driven Frequency Control and State-Space Routing for Energy-Efficient
// LLM Serving, arXiv 2509.04827; rules checked against the authors' published implementation on SGLang (none of its text is here).
// EcoFreq, prefill: with prompts beyond the batch under way the fastest clock; else the slowest whose predicted prefill
//   fits the TTFT less what was waited. EcoFreq, decode: the slowest whose predicted step (linear in sequences and context)
//   keeps the inter-token limit. Nothing to do: the slowest.
// EcoPred: the belief's linear fits, corrected online by measured over predicted gaps between tokens.
// EcoRoute: with few requests everywhere the slowest clock, then the fewest requests; with more, a what-if clock per instance.
// Adapted: published for prefill and decode on separate GPUs; colocated, a replica takes the faster of the two phases'
//   choices, and the online correction takes in what prefills cost the streams. Published with 2 to 5 clocks; here all points.
// Left out: thresholds on request and token rates (off by default), decode batches in tiles of its one model's kernels
//   other than the 128 at which its routing changes.
import type { ReplicaId } from '../../core/job.ts';
import { type ReplicaView, sequencesOf } from '../../core/replica-view.ts';
import { type PointIndex, fasterOf } from '../../frontier/performance-model.ts';
import type { ClockPolicy } from '../../scheduler/clock-policy.ts';
import { decodeStepMs, firstTokensMs, runningStepMs } from './predictions.ts';
import type { RivalContext } from './rival.ts';
import { tightestTpotMs } from './slo-limits.ts';
import { createStreamMeter, type StreamTotals } from './stream-meter.ts';

/** Below this many requests on every instance its routing only balances. */
const TILE_SEQUENCES = 128;
/** Weight of one tick's measurement in the online correction; it stays within what a fit can be off. */
const CORRECTION = { weight: 0.02, min: 0.5, max: 2 };
/** About an iteration: decided each time the server goes round. */
const PERIOD_MS = 20;

export function createVoltanaLlm({ belief }: RivalContext): ClockPolicy {
  const points = belief.bySlowness;
  const meter = createStreamMeter();
  const corrections = new Map<ReplicaId, { factor: number; seen: StreamTotals }>();

  function correctionOf(replicaId: ReplicaId): { factor: number; seen: StreamTotals } {
    const known = corrections.get(replicaId) ?? { factor: 1, seen: meter.totals(replicaId) };
    corrections.set(replicaId, known);
    return known;
  }

  function learn(replicaId: ReplicaId, view: ReplicaView): void {
    const correction = correctionOf(replicaId);
    const totals = meter.totals(replicaId);
    const gaps = totals.gaps - correction.seen.gaps;
    if (gaps === 0 || view.running.length === 0) return;
    const ratio = (totals.gapsMs - correction.seen.gapsMs) / gaps / runningStepMs(view, view.appliedPoint ?? belief.fastest);
    correction.factor += CORRECTION.weight * (Math.min(8, ratio) - correction.factor);
    correction.factor = Math.min(CORRECTION.max, Math.max(CORRECTION.min, correction.factor));
    correction.seen = totals;
  }

  /** Of the slowest point whose predicted step keeps the limit; the fastest if none does. */
  function decodePoint(sequences: number, contextTokens: number, limitMs: number, factor: number): PointIndex {
    return points.find((point) => decodeStepMs(belief, point, sequences, contextTokens) * factor <= limitMs) ?? belief.fastest;
  }

  function prefillPoint(view: ReplicaView): PointIndex {
    const inBatch = batchUnderWay(view);
    if (view.waiting.length > inBatch) return belief.fastest;
    const fits = (point: PointIndex): boolean => {
      const firstMs = firstTokensMs(view, point);
      return view.waiting.every(({ ttftDeadlineAtMs }, index) => view.nowMs + (firstMs[index] as number) <= ttftDeadlineAtMs);
    };
    return points.find(fits) ?? belief.fastest;
  }

  return {
    name: 'voltanallm',
    controlPeriodMs: PERIOD_MS,
    observe: (event, nowMs) => meter.observe(event, nowMs),
    choose(replicaId, view, cause) {
      if (cause === 'arrival') meter.placed(replicaId, view);
      else learn(replicaId, view);
      const { factor } = correctionOf(replicaId);
      const decode = view.running.length === 0 ? (points[0] as PointIndex) : decodePoint(view.running.length + view.foreignSequences, view.contextTokens, tightestTpotMs({ waiting: [], running: view.running }), factor);
      return view.waiting.length === 0 ? decode : fasterOf(belief, decode, prefillPoint(view));
    },
    route(candidates, job) {
      const states = candidates.map(({ replicaId, view }) => {
        const { factor } = correctionOf(replicaId);
        const limitMs = Math.min(view.tightestTpotMs, job.spec.slo.tpotMs ?? Number.POSITIVE_INFINITY);
        const load = sequencesOf(view);
        const now = decodePoint(Math.max(1, load), view.contextTokens, limitMs, factor);
        const then = decodePoint(load + 1, view.contextTokens + job.promptTokens, limitMs, factor);
        return { replicaId, load, levelNow: points.indexOf(view.appliedPoint ?? belief.fastest), level: points.indexOf(then), crosses: then !== now };
      });
      const few = states.every(({ load }) => load < TILE_SEQUENCES);
      const levels = states.map(({ level }) => level);
      const apart = Math.max(...levels) - Math.min(...levels) > 1;
      // Neighbours in clock are left so: the faster of them takes what does not push it further, and the slower stays slow.
      const inOrder = states.sort((a, b) => {
        if (few) return a.levelNow - b.levelNow || a.load - b.load;
        if (apart) return a.level - b.level || Number(a.crosses) - Number(b.crosses) || a.load - b.load;
        return Number(a.crosses) - Number(b.crosses) || (a.crosses ? a.level - b.level : b.level - a.level) || tiles(a.load) - tiles(b.load) || b.load - a.load;
      });
      return inOrder[0]?.replicaId ?? null;
    },
  };
}

/** How many of the waiting prompts the server takes into its next pass; the rest waits. */
function batchUnderWay({ waiting, model }: ReplicaView): number {
  let room = model.profile.serving.maxBatchTokens;
  let taken = 0;
  for (const { promptTokens, prefilledTokens } of waiting) {
    room -= promptTokens - prefilledTokens;
    if (taken > 0 && room < 0) break;
    taken += 1;
  }
  return taken;
}

function tiles(load: number): number {
  return Math.ceil(load / TILE_SEQUENCES);
}
