// GreenLLM: a clock for prefills by queueing, and for decodes two loops: throughput picks a band of clocks, the measured tail
// of the time between tokens moves within it.
// Source: Liu, Huang, Zapater and Atienza, GreenLLM: SLO-Aware Dynamic Frequency Scaling for Energy-Efficient LLM Serving,
// arXiv 2508.16449.
// Prefill: the clock at which the queue's busy energy and the idle energy until its deadline are least, among those that
//   bring every prompt of the queue to its first token in time (latency and power per clock fitted beforehand: the belief).
// Decode, coarse: tokens per second over 200 ms look up a clock, the cheapest per token that keeps the limit at that
//   throughput; another band only after three intervals that agree. Fine, every 20 ms: 95th percentile over streams of the
//   recent time between tokens over its limit; above 1 a step up, below 0.65 a step down, between them nothing. Every six
//   seconds a band at whose edge the fine loop spent most of its time moves by a step.
// Adapted: published for prefill and decode on separate GPUs; colocated, the faster of the two choices while prompts wait.
//   The tail is taken over streams' means of 16 tokens, since single gaps of a mixed batch contain whole prefills. The fine
//   step is a point of the profile (75 to 90 MHz, published 15), and how wide a band is, is ours. Deadlines are the jobs' own,
//   for its two length classes.
// Left out: length-based queues to different prefill workers; the server takes prompts in order of arrival.
import type { ReplicaId } from '../../core/job.ts';
import type { ReplicaView } from '../../core/replica-view.ts';
import { type PerformanceModel, type PointIndex, fasterOf } from '../../frontier/performance-model.ts';
import type { ClockPolicy } from '../../scheduler/clock-policy.ts';
import { decodeStepMs, firstTokensMs } from './predictions.ts';
import type { RivalContext } from './rival.ts';
import { createStreamMeter, type StreamMeter } from './stream-meter.ts';

const FINE_MS = 20;
const COARSE_MS = 200;
const ADAPT_MS = 6000;
/** Intervals that must agree before the band moves. */
const AGREEING = 3;
/** Of the tail over its limit. */
const RATIO = { up: 1, down: 0.65 };
/** Points on either side of the looked-up one. */
const BAND_HALF = 3;
const EDGE_SHARE = 0.8;
const TAIL = 0.95;

/** Places count from the slowest point. */
interface Decode {
  bandCentre: number;
  candidate: number;
  agreed: number;
  place: number;
  /** What slow adaptation has moved the look-up by. */
  shift: number;
  coarseAtMs: number;
  coarseTokens: number;
  adaptAtMs: number;
  ticks: number;
  atTop: number;
  atBottom: number;
}

export function createGreenLlm({ belief }: RivalContext): ClockPolicy {
  const points = belief.bySlowness;
  const meter = createStreamMeter();
  const decodes = new Map<ReplicaId, Decode>();
  const last = points.length - 1;
  const within = (place: number): number => Math.min(last, Math.max(0, place));

  function decodeOf(replicaId: ReplicaId, nowMs: number): Decode {
    const known = decodes.get(replicaId);
    if (known !== undefined) return known;
    const fresh: Decode = { bandCentre: last, candidate: last, agreed: 0, place: last, shift: 0, coarseAtMs: nowMs, coarseTokens: 0, adaptAtMs: nowMs + ADAPT_MS, ticks: 0, atTop: 0, atBottom: 0 };
    decodes.set(replicaId, fresh);
    return fresh;
  }

  function coarse(decode: Decode, view: ReplicaView, tokens: number): void {
    if (view.nowMs - decode.coarseAtMs < COARSE_MS) return;
    const tokensPerMs = (tokens - decode.coarseTokens) / (view.nowMs - decode.coarseAtMs);
    decode.coarseAtMs = view.nowMs;
    decode.coarseTokens = tokens;
    const looked = points.indexOf(lookUp(belief, tokensPerMs, view));
    decode.agreed = looked === decode.candidate ? decode.agreed + 1 : 1;
    decode.candidate = looked;
    if (decode.agreed >= AGREEING) decode.bandCentre = looked;
  }

  function fine(decode: Decode, ratio: number): void {
    const bottom = within(decode.bandCentre + decode.shift - BAND_HALF);
    const top = within(decode.bandCentre + decode.shift + BAND_HALF);
    if (ratio > RATIO.up) decode.place += 1;
    else if (ratio < RATIO.down) decode.place -= 1;
    decode.place = Math.min(top, Math.max(bottom, decode.place));
    decode.ticks += 1;
    if (decode.place === top) decode.atTop += 1;
    else if (decode.place === bottom) decode.atBottom += 1;
  }

  function adapt(decode: Decode, nowMs: number): void {
    if (nowMs < decode.adaptAtMs) return;
    if (decode.atTop > EDGE_SHARE * decode.ticks) decode.shift = Math.min(last, decode.shift + 1);
    else if (decode.atBottom > EDGE_SHARE * decode.ticks) decode.shift = Math.max(-last, decode.shift - 1);
    Object.assign(decode, { adaptAtMs: nowMs + ADAPT_MS, ticks: 0, atTop: 0, atBottom: 0 });
  }

  return {
    name: 'greenllm',
    controlPeriodMs: FINE_MS,
    observe: (event, nowMs) => meter.observe(event, nowMs),
    choose(replicaId, view, cause) {
      const decode = decodeOf(replicaId, view.nowMs);
      if (cause === 'arrival') meter.placed(replicaId, view);
      else {
        coarse(decode, view, meter.totals(replicaId).tokens);
        fine(decode, tailRatio(view, meter));
        adapt(decode, view.nowMs);
      }
      const point = points[decode.place] as PointIndex;
      return view.waiting.length === 0 ? point : fasterOf(belief, point, prefillPoint(view));
    },
  };
}

/** The cheapest per token, prefills aside, that keeps the tightest limit at this throughput; the fastest if none does. */
function lookUp(model: PerformanceModel, tokensPerMs: number, { running, contextTokens, tightestTpotMs }: ReplicaView): PointIndex {
  const contextEach = running.length === 0 ? 0 : contextTokens / running.length;
  let best: { point: PointIndex; tokenJ: number } | null = null;
  for (let point = 0; point < model.points.length; point++) {
    // The batch at which the point yields this throughput: sequences = throughput · step, the step linear in sequences.
    const oneMs = decodeStepMs(model, point, 1, contextEach);
    const eachMs = decodeStepMs(model, point, 2, 2 * contextEach) - oneMs;
    const headroom = 1 - tokensPerMs * eachMs;
    const sequences = Math.max(1, (tokensPerMs * (oneMs - eachMs)) / headroom);
    if (headroom <= 0 || decodeStepMs(model, point, sequences, sequences * contextEach) > tightestTpotMs) continue;
    const tokenJ = model.decodeEnergyJ({ sequences, contextTokens: sequences * contextEach }, point) / sequences;
    if (best === null || tokenJ < best.tokenJ) best = { point, tokenJ };
  }
  return best?.point ?? model.fastest;
}

/** 0 where no stream has a limit or two tokens. */
function tailRatio({ running, nowMs }: ReplicaView, meter: StreamMeter): number {
  const ratios = running.flatMap(({ jobId, tpotLimitMs }) => {
    const gapMs = meter.recentGapMs(jobId, nowMs);
    return gapMs === null ? [] : [gapMs / tpotLimitMs];
  });
  ratios.sort((a, b) => a - b);
  return ratios[Math.min(ratios.length - 1, Math.floor(TAIL * ratios.length))] ?? 0;
}

function prefillPoint(view: ReplicaView): PointIndex {
  const { model, nowMs, waiting } = view;
  const dueMs = Math.min(Number.MAX_SAFE_INTEGER, ...waiting.map(({ ttftDeadlineAtMs }) => ttftDeadlineAtMs - nowMs));
  let best: { point: PointIndex; energyJ: number } | null = null;
  for (let point = 0; point < model.points.length; point++) {
    const firstMs = firstTokensMs(view, point);
    if (waiting.some(({ ttftDeadlineAtMs }, index) => nowMs + (firstMs[index] as number) > ttftDeadlineAtMs)) continue;
    let energyJ = 0;
    let busyMs = 0;
    for (const { promptTokens, prefilledTokens } of waiting) {
      const work = { tokens: Math.max(1, promptTokens - prefilledTokens), contextTokens: prefilledTokens };
      energyJ += model.prefillEnergyJ(work, point);
      busyMs += model.prefillTimeMs(work, point);
    }
    if (Number.isFinite(dueMs)) energyJ += (model.idlePowerW(point) * Math.max(0, Math.min(dueMs, IDLE_HORIZON_MS) - busyMs)) / 1000;
    if (best === null || energyJ < best.energyJ) best = { point, energyJ };
  }
  return best?.point ?? model.fastest;
}

/** Without a deadline there is no "until": idling is then counted over this much. */
const IDLE_HORIZON_MS = 2000;
