// AGFT: learns the clock online, with no model and no SLO: a contextual bandit rewarded by the energy-delay product.
// Source: Ye, Zhang and Tang, AGFT: An Adaptive GPU Frequency Tuner for Real-Time LLM Inference Optimization, arXiv 2508.01744.
// Window: 0.8 s. Context: its seven signals of load (is there a queue, prefill and decode throughput, how well batches are
//   packed, concurrency, KV cache in use, prefix hits). Cost: joules of the window times its mean time per token. One learner
//   per replica. LinUCB, pruning, change detection and refinement are in `bandit.ts`.
// Adapted: refinement goes to the profile's points (75 to 90 MHz apart), not to 15 MHz steps; widths, thresholds and counts
//   are ours where the paper leaves them open. Prefix hits are 0, as the modelled servers are given no shared prefixes.
// Left out: keeping what was learnt across restarts; every run starts without experience, and pays for its trying.
import type { ReplicaId } from '../../core/job.ts';
import type { ReplicaView } from '../../core/replica-view.ts';
import type { PointIndex } from '../../frontier/performance-model.ts';
import type { ClockPolicy } from '../../scheduler/clock-policy.ts';
import { type Bandit, createBandit } from './bandit.ts';
import type { RivalContext } from './rival.ts';
import { createStreamMeter, type StreamTotals } from './stream-meter.ts';

const WINDOW_MS = 800;
/** Features are shares of these, at most 1 each. */
const FULL = { prefillTokensPerMs: 10, decodeTokensPerMs: 3 };
const DIMENSIONS = 8;

interface Window {
  readonly point: PointIndex;
  readonly context: readonly number[];
  readonly fromMs: number;
  readonly energyJ: number;
  readonly totals: StreamTotals;
}

/** It knows no SLO: a margin weighs delay more, energy · delay^(1/(1 − margin)), so 0.5 is the ED² product. */
export function createAgft({ belief, replicaIds, energyJ, seed, margin }: RivalContext): ClockPolicy {
  const points = belief.bySlowness;
  const meter = createStreamMeter();
  // The seed only decides where the first round of trying begins.
  const bandits = new Map<ReplicaId, Bandit>(replicaIds.map((replicaId, index) => [replicaId, createBandit(points, DIMENSIONS, (seed + 5 * index) % points.length)]));
  const windows = new Map<ReplicaId, Window>();

  /** What the window that ends now cost; `null` where nothing was decoded, since then there is no delay to speak of. */
  function costOf(replicaId: ReplicaId, window: Window): number | null {
    const totals = meter.totals(replicaId);
    const gaps = totals.gaps - window.totals.gaps;
    if (gaps === 0) return null;
    const delayMs = (totals.gapsMs - window.totals.gapsMs) / gaps;
    return (energyJ(replicaId) - window.energyJ) * delayMs ** (1 / (1 - margin));
  }

  function contextOf(replicaId: ReplicaId, view: ReplicaView, window: Window | undefined): readonly number[] {
    const totals = meter.totals(replicaId);
    const passedMs = Math.max(1, view.nowMs - (window?.fromMs ?? 0));
    const since = window?.totals ?? totals;
    const share = (value: number, full: number): number => Math.min(1, value / full);
    const sequences = view.running.length + view.waiting.length;
    return [
      1,
      view.waiting.length > 0 ? 1 : 0,
      share((totals.promptTokens - since.promptTokens) / passedMs, FULL.prefillTokensPerMs),
      share((totals.tokens - since.tokens) / passedMs, FULL.decodeTokensPerMs),
      sequences === 0 ? 0 : view.running.length / sequences,
      share(sequences, view.sequencesMax),
      share(view.contextTokens, view.kvTokens),
      0,
    ];
  }

  return {
    name: 'agft',
    observe: (event, nowMs) => meter.observe(event, nowMs),
    choose(replicaId, view, cause) {
      if (cause === 'arrival') meter.placed(replicaId, view);
      const window = windows.get(replicaId);
      const bandit = bandits.get(replicaId);
      if (cause === 'arrival' || bandit === undefined) return null;
      if (window !== undefined && view.nowMs - window.fromMs < WINDOW_MS) return window.point;
      const cost = window === undefined ? null : costOf(replicaId, window);
      if (window !== undefined && cost !== null) bandit.learn(window.point, window.context, cost);
      const context = contextOf(replicaId, view, window);
      const point = bandit.choose(context);
      windows.set(replicaId, { point, context, fromMs: view.nowMs, energyJ: energyJ(replicaId), totals: meter.totals(replicaId) });
      return point;
    },
  };
}
