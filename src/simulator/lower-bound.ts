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
 * Tp·Pp + Td·Pd − m·min(Pp, Pd) + launch·Pi. So excess is Tp(Pp − P0) + Td(Pd − P0) − m(min(Pp, Pd) − P0) + launch(Pi − P0). What is
 * saved, m(min(Pp, Pd) − P0), is at most m(Pp∧ − P0) and at most d0(Pd∧ − P0), where Pp∧ is the lesser of Pp(n) and the most that
 * Pd(B) is for any B, and Pd∧ the lesser of Pd(B) and the most that Pp(n) is for any n. For every σ from 0 to 1, excess is therefore at
 * least a *prefill part* Tp(Pp − P0) − (1 − σ)·m(Pp∧ − P0) and a *decode part* Td(Pd − P0) − σ·d0(Pd∧ − P0) + launch(Pi − P0); so is that of an
 * iteration that has one of them only. As m ≤ d0, and m ≤ Tp, the prefill part is at least what p0 + p1 n in the place of Tp
 * gives, and p2 A times Pp − P0 where p0 + p1 n ≥ d0, otherwise Pp − P0 − (1 − σ)(Pp∧ − P0). Time is at least Td + launch. Where
 * Pp ≥ P0 and Pd ≥ Pi for all sizes, all of these are ≥ 0 and no draw is below P0; a profile where it is not so gets the idle bound
 * alone. One σ holds for a whole workload, and the best of some is taken: 0 suits long answers, since with more all their steps are charged less,
 * and 1 long prompts with short answers.
 *
 * **4. Prefill.** Let G(r) be the least prefill part without attention per token, W(r) the least per unit of attention, over the points and n ≥ r.
 * An iteration that does not end a prompt has used its token budget up, which is at least F = maxBatchTokens − the most streams.
 * So of a prompt of L tokens only the r tokens of its last chunk may be in an iteration of fewer, and of at least r. Attention is L²/2 in
 * all, r(L − r/2) of it in the last chunk: it takes at least min over r of r·G(r) + (L − r)·G(F) + r(L − r/2)·W(r) + (L − r)²/2·W(F),
 * which does not fall as L grows.
 *
 * **5. Decode.** A request of n tokens takes part in n − 1 steps (one less for each preemption; the recomputation then costs at least the
 * prefill of its prompt and one token more, so no step is priced higher than that). The decode part is shared out: each of B streams
 * pays 1/B of what does not depend on B or K, and (d1 + d2·c)(Pd(B) − P0), c being its own context. B is at most maxSequences, and at most
 * the number of requests between arrival and the last instant their SLO allows them to end (TTFT + TPOT·(n − 1), e2e): for a
 * request, the most that there are at any time between its own.
 *
 * **6. Time.** Its steps take at most (n − 1)·τ in all, τ = min(TPOT, e2e/(n − 1)). So for every price λ ≥ 0 it pays at least
 * ηκ·Σ min over p, B of [share + λ·step time] − λ(n − 1)τ, the step taking at least d0 + d1 B + d2(c + (B − 1)·least context) + launch. The best
 * of some λ is taken. The minimum is concave in c, so the sum over its steps is at least their number times the mean of first and last.
 *
 * **Not covered: noise** on the iterations' times (`MachineOptions.durationCv`). A run may draw short times throughout; and the mean over
 * runs need not keep the bound either, for noise also says how many steps are over when one is cut. Slow clock switches and
 * power caps are covered: they only choose clocks of the list and instants.
 */
export function energyLowerBoundJ(options: LowerBoundOptions): number {
  const { truth, truthScale = {}, replicas, windowMs } = options;
  const { time = 1, power = 1 } = truthScale;
  const model = createPerformanceModel(truth);
  const parkedW = Math.min(...truth.points.map(({ idlePowerW }) => idlePowerW));
  const idleJ = (replicas * parkedW * power * windowMs) / 1000;
  const points = model.points.map((_, point) => fitOf(model, point));
  if (!drawsAtLeastIdle(points, truth, parkedW)) return idleJ;

  const physics = createPhysics(truth, truthScale);
  const requests = knownRequests(options.requests, options.slos, physics, 0);
  const share = interpolationShare(physics.measuredClocksMhz) * (truth.deviceGroup.devices === 1 ? 1 : slowestMemberShare(points, truth));
  const sequencesMax = concurrencyOf(requests).map((count) => Math.min(count, truth.serving.maxSequences));
  const streamsMax = sequencesMax.reduce((most, count) => Math.max(most, count), 1);
  const slowestW = (points[0]?.decodeW[1] as number) - parkedW;
  const timePricesW = TIME_PRICES.map((price) => price * slowestW);
  const contextMin = requests.reduce((least, { promptTokens }) => Math.min(least, promptTokens + 1), Infinity);

  function excessJ(passShare: number): number {
    const charges = points.map((fit) => chargesOf(fit, { parkedW, passShare, streamsMax }));
    const prefillJ = prefillBound(charges, streamsMax);
    let sumJ = 0;
    requests.forEach((request, index) => {
      const { promptTokens, outputTokens, tpotMs, endByMs, atMs } = request;
      sumJ += share * prefillJ(promptTokens);
      const steps = outputTokens - 1;
      if (steps === 0) return;
      const stepLimitMs = Math.min(tpotMs, (endByMs - atMs) / steps) / time;
      sumJ += steps * decodeBound(charges, { sequencesMax: sequencesMax[index] as number, first: promptTokens + 1, last: promptTokens + steps, contextMin, stepLimitMs, timePricesW, share, recomputeJ: prefillJ(promptTokens + 1) });
    });
    return sumJ;
  }
  return idleJ + Math.max(...PASS_SHARES.map(excessJ)) * time * power;
}

/** The bound as a row beside the runs: all requests met, no times. */
/** As a row among runs: what meets every SLO that can be met takes at least this. */
export function lowerBoundReport(
  label: { readonly policy: string; readonly replicas: number; readonly seed: number },
  options: Pick<SimulationOptions, 'requests' | 'classes' | 'truth' | 'truthScale' | 'replicas' | 'untilMs'>,
  feasible: readonly boolean[] = [],
): RunReport {
  const { requests, classes, untilMs = 0 } = options;
  const energyJ = energyLowerBoundJ({ ...options, slos: classes.map(({ slo }) => slo), windowMs: untilMs });
  const report = runReport(label, { reports: [], rejected: 0, energyJ, durationMs: untilMs, utilisation: 0, clockMhzMean: 0 }, feasible);
  const attainment = requests.length === 0 ? 0 : 1 - report.infeasibleAlone / requests.length;
  return {
    ...report,
    requests: requests.length,
    completed: requests.length,
    attainment,
    attainmentOfFeasible: 1,
    joulesPerOutputToken: energyJ / Math.max(1, requests.reduce((sum, { outputTokens }) => sum + Math.max(1, outputTokens), 0)),
    note: 'a proven bound, no schedule',
  };
}

/** Values of σ to try. */
const PASS_SHARES = [0, 0.25, 0.5, 0.75, 1];

/** A point's fits and power curves. */
export interface Fit {
  readonly clockMhz: number;
  readonly idleW: number;
  readonly launchMs: number;
  /** Of 1, n, A. */
  readonly prefillMs: readonly [number, number, number];
  /** Of 1, B, K. */
  readonly decodeMs: readonly [number, number, number];
  readonly prefillW: Float64Array;
  readonly decodeW: Float64Array;
}

/** The model's coefficients, by asking it: times are affine in the features, and a context of −n/2 has no attention work. */
export function fitOf(model: PerformanceModel, point: number): Fit {
  const { maxBatchTokens, maxSequences } = model.profile.serving;
  const prefill = (tokens: number, attention: number): number => model.prefillTimeMs({ tokens, contextTokens: attention / tokens - tokens / 2 }, point);
  const decode = (sequences: number, contextTokens: number): number => model.decodeTimeMs({ sequences, contextTokens }, point);
  const perToken = prefill(2, 0) - prefill(1, 0);
  const perSequence = decode(2, 0) - decode(1, 0);
  const powerOf = (energyJ: number, timeMs: number): number => (1000 * energyJ) / timeMs;
  return {
    clockMhz: Number(model.points[point]?.knobs['clockMhz']),
    idleW: model.idlePowerW(point),
    launchMs: model.profile.launchOverheadMs,
    prefillMs: [prefill(1, 0) - perToken, perToken, prefill(1, 1) - prefill(1, 0)],
    decodeMs: [decode(1, 0) - perSequence, perSequence, decode(1, 1) - decode(1, 0)],
    prefillW: Float64Array.from({ length: maxBatchTokens + 1 }, (_, tokens) => powerOf(model.prefillEnergyJ({ tokens: Math.max(1, tokens), contextTokens: 0 }, point), model.prefillTimeMs({ tokens: Math.max(1, tokens), contextTokens: 0 }, point))),
    decodeW: Float64Array.from({ length: maxSequences + 1 }, (_, sequences) => powerOf(model.decodeEnergyJ({ sequences: Math.max(1, sequences), contextTokens: 1 }, point), model.decodeTimeMs({ sequences: Math.max(1, sequences), contextTokens: 1 }, point))),
  };
}

/** What an iteration at a point is charged at the least, in joules above parked idling; by its tokens n and its streams B, from 1. */
export interface Charges {
  readonly prefillPerTokenJ: Float64Array;
  readonly prefillPerAttentionJ: Float64Array;
  readonly decodePerStreamJ: Float64Array;
  readonly decodePerContextJ: Float64Array;
  /** Of 1, B, K, launch included: what a step takes at least. */
  readonly stepMs: readonly [number, number, number];
}

export interface ChargeOptions {
  readonly parkedW: number;
  /** σ of the derivation. */
  readonly passShare: number;
  /** No iteration has more. */
  readonly streamsMax: number;
}

/** The prefill part and the decode part of the derivation. */
export function chargesOf({ idleW, launchMs, prefillMs, decodeMs, prefillW, decodeW }: Fit, { parkedW, passShare, streamsMax }: ChargeOptions): Charges {
  const [passMs, perStreamMs, perContextMs] = decodeMs;
  const mostDecodeW = decodeW.subarray(0, streamsMax + 1).reduce((most, powerW) => Math.max(most, powerW), 0);
  const mostPrefillW = prefillW.reduce((most, powerW) => Math.max(most, powerW), 0);
  const savedByPrefillW = prefillW.map((powerW) => (1 - passShare) * (Math.min(powerW, mostDecodeW) - parkedW));
  const tokensMs = (tokens: number): number => prefillMs[0] + prefillMs[1] * tokens;
  return {
    prefillPerTokenJ: prefillW.map((powerW, tokens) => (tokensMs(tokens) * (powerW - parkedW) - Math.min(tokensMs(tokens), passMs) * (savedByPrefillW[tokens] as number)) / (1000 * Math.max(1, tokens))),
    prefillPerAttentionJ: prefillW.map((powerW, tokens) => (prefillMs[2] * (powerW - parkedW - (tokensMs(tokens) >= passMs ? 0 : (savedByPrefillW[tokens] as number)))) / 1000),
    decodePerStreamJ: decodeW.map((powerW, sequences) => {
      const sharedJ = passMs * (powerW - parkedW - passShare * (Math.min(powerW, mostPrefillW) - parkedW)) + launchMs * (idleW - parkedW);
      return (sharedJ / Math.max(1, sequences) + perStreamMs * (powerW - parkedW)) / 1000;
    }),
    decodePerContextJ: decodeW.map((powerW) => (perContextMs * (powerW - parkedW)) / 1000),
    stepMs: [passMs + launchMs, perStreamMs, perContextMs],
  };
}

function drawsAtLeastIdle(points: readonly Fit[], { prefill, decode }: Profile, parkedW: number): boolean {
  assert(prefill.length > 0 && decode.length > 0, 'a profile has rows of both phases');
  return points.every(({ prefillW, decodeW, idleW }) => prefillW.every((powerW) => powerW >= parkedW) && decodeW.every((powerW) => powerW >= idleW));
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
function prefillBound(charges: readonly Charges[], streamsMax: number): (promptTokens: number) => number {
  const maxBatchTokens = (charges[0] as Charges).prefillPerTokenJ.length - 1;
  /** G and W of the derivation. */
  const perToken = new Float64Array(maxBatchTokens + 2).fill(Infinity);
  const perAttention = perToken.slice();
  for (let tokens = maxBatchTokens; tokens >= 1; tokens--) {
    perToken[tokens] = charges.reduce((least, { prefillPerTokenJ }) => Math.min(least, prefillPerTokenJ[tokens] as number), perToken[tokens + 1] as number);
    perAttention[tokens] = charges.reduce((least, { prefillPerAttentionJ }) => Math.min(least, prefillPerAttentionJ[tokens] as number), perAttention[tokens + 1] as number);
  }
  const full = Math.max(1, maxBatchTokens - streamsMax);
  const known = new Map<number, number>();
  return (promptTokens) => {
    const before = known.get(promptTokens);
    if (before !== undefined) return before;
    let boundJ = Infinity;
    for (let last = 1; last <= Math.min(promptTokens, maxBatchTokens); last++) {
      const earlier = promptTokens - last;
      const lastJ = last * (perToken[last] as number) + last * (promptTokens - last / 2) * (perAttention[last] as number);
      boundJ = Math.min(boundJ, lastJ + earlier * (perToken[full] as number) + ((earlier * earlier) / 2) * (perAttention[full] as number));
    }
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
  readonly timePricesW: readonly number[];
  /** ηκ. */
  readonly share: number;
  readonly recomputeJ: number;
}

/** Of one step of a request, in the mean over its steps. */
function decodeBound(charges: readonly Charges[], { sequencesMax, first, last, contextMin, stepLimitMs, timePricesW, share, recomputeJ }: DecodeQuestion): number {
  let bestJ = 0;
  for (const priceW of stepLimitMs === Infinity ? [0] : timePricesW) {
    let firstJ = Infinity;
    let lastJ = Infinity;
    const priceJ = priceW / 1000;
    for (const { decodePerStreamJ, decodePerContextJ, stepMs } of charges) {
      for (let sequences = 1; sequences <= sequencesMax; sequences++) {
        const fixedJ = (decodePerStreamJ[sequences] as number) + priceJ * (stepMs[0] + stepMs[1] * sequences + stepMs[2] * (sequences - 1) * contextMin);
        const perContextJ = (decodePerContextJ[sequences] as number) + priceJ * stepMs[2];
        firstJ = Math.min(firstJ, fixedJ + perContextJ * first);
        lastJ = Math.min(lastJ, fixedJ + perContextJ * last);
      }
    }
    // Without a limit, `Infinity`, the price is 0, and 0 times that is no number.
    const limitJ = priceW === 0 ? 0 : priceJ * stepLimitMs;
    bestJ = Math.max(bestJ, (share * (Math.min(firstJ, recomputeJ) + Math.min(lastJ, recomputeJ))) / 2 - limitJ);
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
