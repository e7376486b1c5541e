// How little energy a workload can take at all: no schedule on the emulated machines that meets every SLO takes less. Proven,
// so it may be far below what anyone reaches; the clairvoyant policy is the other side of the gap.
import assert from 'node:assert/strict';
import type { Slo } from '../core/job.ts';
import { clockList } from '../engine/device.ts';
import { type TruthScale, createPhysics } from '../engine/physics.ts';
import { type PerformanceModel, createPerformanceModel } from '../frontier/performance-model.ts';
import type { Profile } from '../frontier/profile.ts';
import type { WorkloadRequest } from '../workload/request.ts';
import { type KnownRequest, knownRequests } from './clairvoyant-request.ts';
import { type RunReport, runReport } from './run-report.ts';
import type { SimulationOptions } from './simulate.ts';

export interface LowerBoundOptions {
  readonly requests: readonly WorkloadRequest[];
  /** Of each request, in the order of `requests`. */
  readonly slos: readonly Slo[];
  readonly truth: Profile;
  readonly truthScale?: TruthScale;
  readonly replicas: number;
  /** The energy is that of all replicas from 0 to here, or for longer where the schedule takes longer. */
  readonly windowMs: number;
}

/**
 * A lower bound on the energy, idle included, of every schedule that serves all requests on `replicas` emulated replicas and
 * meets every SLO that one alone at the fastest clock could meet; whatever its routing, order, holding, clocks of the device's
 * list and instants of switching. Prefix caches are taken to be empty: the simulator submits no prefixes.
 *
 * **Idle.** P0 is the least idle power over the points. A group never draws less (3. for when it works), so all of them draw at
 * least replicas·P0·window, and on top the *excess* ∫(P − P0)dt of their iterations, which is bounded below.
 *
 * **1. Any clock → measured points.** Let an iteration take T(p) at draw P(p) at the measured points, y(p) = P(p) − P0 + any
 * constant ≥ 0, x(p) = T(p)·y(p). Between points lo and hi, time has the share s of hi and power the share q, so
 * t·y = Σjk s_j q_k T_j y_k = Σk q_k x_k (Σj s_j T_j)/T_k ≥ min(x_lo, x_hi) · Σjk s_j q_k T_j/T_k, and since a·r + b/r ≥ 2√(ab)
 * whatever the ratio r of the two times is, the last sum is ≥ η = (√(s_lo q_lo) + √(s_hi q_hi))². At a point η is 1; below the lowest
 * point time grows and power stays. Work over which the clock changes is a convex combination of these. In a group whose members
 * stand at different clocks, time is that of the slowest, c, and power the mean of P(c'), c' ≥ c: the same holds with T(c) ≥ κ·T(c'),
 * κ being the least ratio of any work's times at a lower and a higher clock (1 where higher clocks are never slower). So, with η the least
 * over the list: **x ≥ ηκ · min over p of x(p)**, for excess and for excess plus a price of time alike.
 *
 * **2. A run of decode steps** is played at its mean context. At a measured point, excess is affine in context, so the bounds below
 * hold for the run's steps one by one. One that is cut short has drawn the power of the mean of all of it, which is more, not less:
 * power rises with context if at all, the launch at idle power weighing less.
 *
 * **3. Mixed iterations → parts.** At a point, with n prompt tokens, attention work A, B streams, context K, fits p0 + p1 n + p2 A and
 * d0 + d1 B + d2 K, powers Pp(n), Pd(B), idle power Pi, and m = min(Tp, d0) where both are there: time is Tp + Td − m + launch, energy
 * Tp·Pp + Td·Pd + Pi(launch − m). Excess is Tp(Pp − P0) − m(Pi − P0) + Td(Pd − P0) + launch(Pi − P0). The last term is dropped, being ≥ 0;
 * m ≤ min(p0 + p1 n, d0) + p2 A. So it is at least a *prefill part* (p0 + p1 n)(Pp − P0) − min(p0 + p1 n, d0)(Pi − P0) + p2 A (Pp − Pi) and
 * a *decode part* Td(Pd − P0). Time is at least Td. Where Pp ≥ Pi and Pd ≥ Pi for all sizes, both are ≥ 0 and no draw is below P0; a
 * profile where it is not so gets the idle bound alone.
 *
 * **4. Prefill.** Let g(n) be the least first two terms per token over the points, G(r) the least g(n), n ≥ r. A prompt of L tokens that an
 * iteration does not end has used its token budget up, which is at least F = maxBatchTokens − maxSequences. So only the r tokens of
 * its last chunk may be in an iteration of fewer, and of at least r: it takes at least min over r of r·G(r) + (L − r)·G(F). Attention
 * is L²/2 in all, however it is cut, at the least p2(Pp − Pi).
 *
 * **5. Decode.** A request of n tokens takes part in n − 1 steps (one less for each preemption; the recomputation then costs at least the
 * prefill of its prompt and one token more, so no step is priced higher than that). The decode part is shared out: each of B
 * streams pays (d0/B + d1 + d2·c)(Pd(B) − P0), c being its own context. B is at most maxSequences, and at most the number of requests
 * between arrival and the last instant their SLO allows them to end (TTFT + TPOT·(n − 1), e2e): for a request, the most that
 * there are at any time between its own.
 *
 * **6. Time.** Its steps take at most (n − 1)·τ in all, τ = min(TPOT, e2e/(n − 1)). So for every price λ ≥ 0 it pays at least
 * ηκ·Σ min over p, B of [share + λ·step time] − λ(n − 1)τ, the step taking at least d0 + d1 B + d2(c + (B − 1)·least context). The best
 * of some λ is taken. The minimum is concave in c, so the sum over its steps is at least their number times the mean of first and last.
 */
export function energyLowerBoundJ(options: LowerBoundOptions): number {
  const { truth, truthScale = {}, replicas, windowMs } = options;
  const { time = 1, power = 1 } = truthScale;
  const model = createPerformanceModel(truth);
  const parkedW = Math.min(...truth.points.map(({ idlePowerW }) => idlePowerW));
  const idleJ = (replicas * parkedW * power * windowMs) / 1000;
  const points = model.points.map((_, point) => fitOf(model, point));
  if (!drawsAtLeastIdle(points, truth)) return idleJ;

  const physics = createPhysics(truth, truthScale);
  const requests = knownRequests(options.requests, options.slos, physics, 0);
  const share = interpolationShare(physics.measuredClocksMhz) * (truth.deviceGroup.devices === 1 ? 1 : slowestMemberShare(points, truth));
  const prefillJ = prefillBound(points, truth, parkedW);
  const sequencesMax = concurrencyOf(requests).map((count) => Math.min(count, truth.serving.maxSequences));
  const contextMin = Math.min(...requests.map(({ promptTokens }) => promptTokens + 1));
  let excessJ = 0;
  requests.forEach((request, index) => {
    const { promptTokens, outputTokens, tpotMs, endByMs, atMs } = request;
    excessJ += share * prefillJ(promptTokens);
    const steps = outputTokens - 1;
    if (steps === 0) return;
    const stepLimitMs = Math.min(tpotMs, (endByMs - atMs) / steps) / time;
    excessJ += steps * decodeBound(points, parkedW, { sequencesMax: sequencesMax[index] as number, first: promptTokens + 1, last: promptTokens + steps, contextMin, stepLimitMs, share, recomputeJ: prefillJ(promptTokens + 1) });
  });
  return idleJ + excessJ * time * power;
}

/** The bound as a row beside the runs: all requests met, no times. */
export function lowerBoundReport(label: { readonly policy: string; readonly replicas: number; readonly seed: number }, options: Pick<SimulationOptions, 'requests' | 'classes' | 'truth' | 'truthScale' | 'replicas' | 'untilMs'>): RunReport {
  const { requests, classes, untilMs = 0 } = options;
  const energyJ = energyLowerBoundJ({ ...options, slos: classes.map(({ slo }) => slo), windowMs: untilMs });
  const met = { ...runReport(label, { reports: [], rejected: 0, energyJ, durationMs: untilMs, utilisation: 0, clockMhzMean: 0 }), requests: requests.length, completed: requests.length, attainment: 1, attainmentOfFeasible: 1 };
  return { ...met, joulesPerOutputToken: energyJ / Math.max(1, requests.reduce((sum, { outputTokens }) => sum + Math.max(1, outputTokens), 0)) };
}

/** A point's fits and power curves. */
interface Fit {
  readonly clockMhz: number;
  readonly idleW: number;
  /** Of 1, n, A. */
  readonly prefillMs: readonly [number, number, number];
  /** Of 1, B, K. */
  readonly decodeMs: readonly [number, number, number];
  readonly prefillW: Float64Array;
  readonly decodeW: Float64Array;
}

/** The model's coefficients, by asking it: times are affine in the features, and a context of −n/2 has no attention work. */
function fitOf(model: PerformanceModel, point: number): Fit {
  const { maxBatchTokens, maxSequences } = model.profile.serving;
  const prefill = (tokens: number, attention: number): number => model.prefillTimeMs({ tokens, contextTokens: attention / tokens - tokens / 2 }, point);
  const decode = (sequences: number, contextTokens: number): number => model.decodeTimeMs({ sequences, contextTokens }, point);
  const perToken = prefill(2, 0) - prefill(1, 0);
  const perSequence = decode(2, 0) - decode(1, 0);
  const powerOf = (energyJ: number, timeMs: number): number => (1000 * energyJ) / timeMs;
  return {
    clockMhz: Number(model.points[point]?.knobs['clockMhz']),
    idleW: model.idlePowerW(point),
    prefillMs: [prefill(1, 0) - perToken, perToken, prefill(1, 1) - prefill(1, 0)],
    decodeMs: [decode(1, 0) - perSequence, perSequence, decode(1, 1) - decode(1, 0)],
    prefillW: Float64Array.from({ length: maxBatchTokens + 1 }, (_, tokens) => powerOf(model.prefillEnergyJ({ tokens: Math.max(1, tokens), contextTokens: 0 }, point), model.prefillTimeMs({ tokens: Math.max(1, tokens), contextTokens: 0 }, point))),
    decodeW: Float64Array.from({ length: maxSequences + 1 }, (_, sequences) => powerOf(model.decodeEnergyJ({ sequences: Math.max(1, sequences), contextTokens: 1 }, point), model.decodeTimeMs({ sequences: Math.max(1, sequences), contextTokens: 1 }, point))),
  };
}

function drawsAtLeastIdle(points: readonly Fit[], { prefill, decode }: Profile): boolean {
  assert(prefill.length > 0 && decode.length > 0, 'a profile has rows of both phases');
  return points.every(({ prefillW, decodeW, idleW }) => prefillW.every((powerW) => powerW >= idleW) && decodeW.every((powerW) => powerW >= idleW));
}

/** η of the derivation. */
function interpolationShare(measuredMhz: readonly number[]): number {
  let least = 1;
  for (const clockMhz of clockList(measuredMhz)) {
    const upper = measuredMhz.findIndex((mhz) => mhz > clockMhz);
    if (upper < 1) continue;
    const [lowMhz, highMhz] = [measuredMhz[upper - 1] as number, measuredMhz[upper] as number];
    const timeShare = (1 / lowMhz - 1 / clockMhz) / (1 / lowMhz - 1 / highMhz);
    const powerShare = (clockMhz - lowMhz) / (highMhz - lowMhz);
    least = Math.min(least, (Math.sqrt((1 - timeShare) * (1 - powerShare)) + Math.sqrt(timeShare * powerShare)) ** 2);
  }
  return least;
}

/**
 * κ of the derivation. An iteration takes max(Tp, d0) + d1 B + d2 K, or Tp, or Td, and the launch: ratios of sums and maxima are at least the
 * least ratio of their parts, and those of the affine parts are least at a corner of what n, A, B and K can be. Between
 * points times lie between those of the points.
 */
function slowestMemberShare(points: readonly Fit[], { serving }: Profile): number {
  const { maxBatchTokens, maxSequences, kvTokens } = serving;
  const affine = ([constant, first, second]: Fit['prefillMs'], a: number, b: number): number => constant + first * a + second * b;
  const partsOf = ({ prefillMs, decodeMs }: Fit): number[] => [
    ...[1, maxBatchTokens].flatMap((tokens) => [affine(prefillMs, tokens, tokens / 2), affine(prefillMs, tokens, tokens * kvTokens)]),
    ...[1, maxSequences].flatMap((sequences) => [affine(decodeMs, sequences, sequences), affine(decodeMs, sequences, kvTokens)]),
    decodeMs[0],
    ...[1, kvTokens].map((contextTokens) => decodeMs[1] + decodeMs[2] * contextTokens),
  ];
  const byClock = points.toSorted((a, b) => a.clockMhz - b.clockMhz).map(partsOf);
  let least = 1;
  byClock.forEach((slower, index) => {
    for (const faster of byClock.slice(index + 1)) {
      slower.forEach((partMs, part) => {
        const otherMs = faster[part] as number;
        if (otherMs > 0) least = Math.min(least, partMs / otherMs);
      });
    }
  });
  return Math.max(0, least);
}

/** Of a prompt's tokens, in joules, before η and κ. */
function prefillBound(points: readonly Fit[], { serving }: Profile, parkedW: number): (promptTokens: number) => number {
  const { maxBatchTokens, maxSequences } = serving;
  /** G of the derivation. */
  const least = new Float64Array(maxBatchTokens + 2).fill(Infinity);
  let attentionJ = Infinity;
  for (let tokens = maxBatchTokens; tokens >= 1; tokens--) {
    let perToken = least[tokens + 1] as number;
    for (const { prefillMs, decodeMs, prefillW, idleW } of points) {
      const timeMs = prefillMs[0] + prefillMs[1] * tokens;
      const powerW = prefillW[tokens] as number;
      perToken = Math.min(perToken, (timeMs * (powerW - parkedW) - Math.min(timeMs, decodeMs[0]) * (idleW - parkedW)) / (1000 * tokens));
      attentionJ = Math.min(attentionJ, (prefillMs[2] * (powerW - idleW)) / 1000);
    }
    least[tokens] = perToken;
  }
  const full = least[Math.max(1, maxBatchTokens - maxSequences)] as number;
  const known = new Map<number, number>();
  return (promptTokens) => {
    const before = known.get(promptTokens);
    if (before !== undefined) return before;
    let tokensJ = Infinity;
    for (let last = 1; last <= Math.min(promptTokens, maxBatchTokens); last++) tokensJ = Math.min(tokensJ, last * (least[last] as number) + (promptTokens - last) * full);
    const boundJ = tokensJ + (attentionJ * promptTokens * promptTokens) / 2;
    known.set(promptTokens, boundJ);
    return boundJ;
  };
}

/** Prices of time to try, as shares of what the slowest point draws above parked idling. */
const TIME_PRICES = [0, 0.003, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.3, 2];

interface DecodeQuestion {
  readonly sequencesMax: number;
  /** Its own context in its first and its last step. */
  readonly first: number;
  readonly last: number;
  readonly contextMin: number;
  readonly stepLimitMs: number;
  /** ηκ. */
  readonly share: number;
  readonly recomputeJ: number;
}

/** Of one step of a request, in the mean over its steps. */
function decodeBound(points: readonly Fit[], parkedW: number, { sequencesMax, first, last, contextMin, stepLimitMs, share, recomputeJ }: DecodeQuestion): number {
  const scaleW = (points[0]?.decodeW[1] as number) - parkedW;
  let bestJ = 0;
  for (const timePrice of stepLimitMs === Infinity ? [0] : TIME_PRICES) {
    const priceW = timePrice * scaleW;
    let firstJ = Infinity;
    let lastJ = Infinity;
    for (const { decodeMs, decodeW } of points) {
      for (let sequences = 1; sequences <= sequencesMax; sequences++) {
        const excessW = (decodeW[sequences] as number) - parkedW;
        const fixedJ = (decodeMs[0] / sequences + decodeMs[1]) * excessW + priceW * (decodeMs[0] + decodeMs[1] * sequences + decodeMs[2] * (sequences - 1) * contextMin);
        const perContextJ = decodeMs[2] * (excessW + priceW);
        firstJ = Math.min(firstJ, fixedJ + perContextJ * first);
        lastJ = Math.min(lastJ, fixedJ + perContextJ * last);
      }
    }
    // Without a limit, `Infinity`, the price is 0, and 0 times that is no number.
    const limitJ = priceW === 0 ? 0 : priceW * stepLimitMs;
    bestJ = Math.max(bestJ, (share * (Math.min(firstJ / 1000, recomputeJ) + Math.min(lastJ / 1000, recomputeJ))) / 2 - limitJ / 1000);
  }
  return bestJ;
}

/**
 * For each request, the most that can be there at once at any time between its arrival and the last instant it may end. They only
 * become more at an arrival, so only arrivals are looked at.
 */
function concurrencyOf(requests: readonly KnownRequest[]): number[] {
  const endsAtMs = requests.map(({ firstByMs, tpotMs, endByMs, outputTokens }) => Math.min(outputTokens === 1 ? firstByMs : firstByMs + tpotMs * (outputTokens - 1), endByMs));
  const sortedEndsMs = Float64Array.from(endsAtMs).sort();
  let ended = 0;
  const counts = requests.map(({ atMs }) => {
    while ((sortedEndsMs[ended] as number) < atMs) ended++;
    return ended;
  });
  // Of simultaneous arrivals, all are there when the last of them is counted.
  const there = counts.map((gone, index) => index + 1 - gone);
  return requests.map((_, index) => {
    let most = 0;
    for (let other = index; other < requests.length && (requests[other] as KnownRequest).atMs <= (endsAtMs[index] as number); other++) most = Math.max(most, there[other] as number);
    return most;
  });
}
