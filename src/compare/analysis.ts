// What a comparison says: each arm over the rounds that count, each against the first, and a verdict. Pure: from the file alone.
//
// A round counts where every arm had a whole turn in it, so that all arms are judged by the same requests. Energies are compared round by
// round (the same load, minutes apart), so what differs between rounds cancels out. See `statistics/intervals.ts` for the intervals.
import { type Estimate, type Interval, meanInterval, ratioInterval, ROUNDS_MIN, type Share, shareDifference, wilsonInterval } from '../statistics/intervals.ts';
import { type Percentiles, percentiles } from '../statistics/percentiles.ts';
import type { Comparison, Turn } from './comparison-file.ts';

/** A lower attainment by more than this is a lower one: one request in a thousand is noise. */
export const SAME_ATTAINMENT = 0.001;
/** Not lower for all we know: the difference's interval may reach so far below nothing and no further. */
export const ATTAINMENT_MARGIN = 0.01;

export interface ArmSummary {
  readonly name: string;
  readonly turns: readonly Turn[];
  readonly requests: number;
  readonly completed: number;
  readonly met: number;
  readonly attainment: number | null;
  readonly attainmentInterval: Interval | null;
  readonly byClass: Readonly<Record<string, Share & { readonly interval: Interval | null }>>;
  readonly ttftMs: Percentiles;
  readonly tpotMs: Percentiles;
  readonly e2eMs: Percentiles;
  readonly outputTokens: number;
  /** Of a turn, the mean; `null` where one of them was not measured. */
  readonly energyJ: number | null;
  readonly energyInterval: Estimate | null;
  readonly meanPowerW: number | null;
  readonly joulesPerOutputToken: number | null;
  readonly tokenEnergyInterval: Estimate | null;
}

export type Verdict =
  | { readonly kind: 'not-measured'; readonly why: string }
  | { readonly kind: 'too-few-rounds'; readonly rounds: number }
  /** It attains less, so its energy is of another service; however little it takes, that is no saving. */
  | { readonly kind: 'lower-attainment' }
  /** As much as was seen, but of too few requests to say so. */
  | { readonly kind: 'attainment-unsure' }
  /** At no lower attainment, the interval wholly on one side. */
  | { readonly kind: 'saves' }
  | { readonly kind: 'costs' }
  | { readonly kind: 'no-difference-shown' };

export interface Against {
  readonly arm: string;
  readonly base: string;
  /** Energy of this arm over that of the first, in the same round; below 1 it takes less. */
  readonly energyRatio: Estimate | null;
  /** The mean of the rounds, where there are too few for an interval. */
  readonly meanEnergyRatio: number | null;
  readonly tokenEnergyRatio: Estimate | null;
  /** This arm's minus the first's; the wider one of Newcombe's interval over all requests and Student's over rounds. */
  readonly attainmentDifference: Estimate | null;
  /** Milliseconds, this arm's minus the first's, of each round's own percentile. */
  readonly latency: readonly { readonly name: string; readonly difference: Estimate | null }[];
  readonly verdict: Verdict;
}

export interface Analysis {
  readonly arms: readonly ArmSummary[];
  readonly against: readonly Against[];
  /** Numbers of those that count, from 0. */
  readonly rounds: readonly number[];
  /** What a reader has to know to trust it, or not to. */
  readonly notes: readonly string[];
}

export function analyse(comparison: Comparison): Analysis {
  const whole = comparison.turns.filter(({ interrupted }) => !interrupted);
  const names = comparison.arms.map(({ name }) => name);
  const rounds = [...new Set(whole.map(({ round }) => round))].filter((round) => names.every((name) => whole.some((turn) => turn.round === round && turn.arm === name))).toSorted((one, other) => one - other);
  const arms = names.map((name) => summaryOf(name, whole.filter((turn) => turn.arm === name && rounds.includes(turn.round)).toSorted((one, other) => one.round - other.round)));
  const [base] = arms;
  const against = base === undefined ? [] : arms.slice(1).map((arm) => compared(base, arm));
  return { arms, against, rounds, notes: notesOf(comparison, arms, rounds) };
}

function summaryOf(name: string, turns: readonly Turn[]): ArmSummary {
  const total = (of: (turn: Turn) => number): number => turns.reduce((sum, turn) => sum + of(turn), 0);
  const [requests, met] = [total((turn) => turn.requests), total((turn) => turn.met)];
  const classes = [...new Set(turns.flatMap(({ byClass }) => Object.keys(byClass)))].toSorted();
  const energies = measured(turns);
  const perToken = energies === null || turns.some(({ outputTokens }) => outputTokens === 0) ? null : turns.map((turn, index) => (energies[index] as number) / turn.outputTokens);
  const energyJ = energies === null ? null : energies.reduce((sum, value) => sum + value, 0);
  return {
    name,
    turns,
    requests,
    completed: total((turn) => turn.completed),
    met,
    attainment: requests === 0 ? null : met / requests,
    attainmentInterval: wilsonInterval({ successes: met, total: requests }),
    byClass: Object.fromEntries(classes.map((className) => {
      const share = { successes: total(({ byClass }) => byClass[className]?.met ?? 0), total: total(({ byClass }) => byClass[className]?.requests ?? 0) };
      return [className, { ...share, interval: wilsonInterval(share) }];
    })),
    ttftMs: percentiles(turns.flatMap(({ ttftMs }) => ttftMs)),
    tpotMs: percentiles(turns.flatMap(({ tpotMs }) => tpotMs)),
    e2eMs: percentiles(turns.flatMap(({ e2eMs }) => e2eMs)),
    outputTokens: total((turn) => turn.outputTokens),
    energyJ: energyJ === null ? null : energyJ / turns.length,
    energyInterval: energies === null ? null : meanInterval(energies),
    meanPowerW: energyJ === null ? null : energyJ / total(({ windowS }) => windowS),
    joulesPerOutputToken: energyJ === null || perToken === null ? null : energyJ / total((turn) => turn.outputTokens),
    tokenEnergyInterval: perToken === null ? null : meanInterval(perToken),
  };
}

/** Of every turn, in order; `null` where there is none or one was not measured: a mean of the others would be of other rounds. */
function measured(turns: readonly Turn[]): readonly number[] | null {
  const energies = turns.flatMap(({ energy }) => (energy?.kind === 'measured' ? [energy.energyJ] : []));
  return energies.length === 0 || energies.length < turns.length ? null : energies;
}

function compared(base: ArmSummary, arm: ArmSummary): Against {
  // Rounds in which both were measured: a meter that hiccuped in one must not cost the others.
  const pairs = arm.turns.flatMap((own, index) => {
    const other = base.turns[index];
    return other !== undefined && own.energy?.kind === 'measured' && other.energy?.kind === 'measured' && own.energy.energyJ > 0 && other.energy.energyJ > 0 ? [{ own, other, ratio: own.energy.energyJ / other.energy.energyJ }] : [];
  });
  const energyRatio = ratioInterval(pairs.map(({ ratio }) => ratio));
  const attainmentDifference = attainmentDifferenceOf(base, arm);
  const difference = (of: (turn: Turn) => number | null): Estimate | null => meanInterval(arm.turns.flatMap((turn, index) => {
    const [own, other] = [of(turn), base.turns[index] === undefined ? null : of(base.turns[index])];
    return own === null || other === null ? [] : [own - other];
  }));
  return {
    arm: arm.name,
    base: base.name,
    energyRatio,
    meanEnergyRatio: pairs.length === 0 ? null : Math.exp(pairs.reduce((sum, { ratio }) => sum + Math.log(ratio), 0) / pairs.length),
    tokenEnergyRatio: ratioInterval(pairs.flatMap(({ own, other, ratio }) => (own.outputTokens === 0 || other.outputTokens === 0 ? [] : [(ratio * other.outputTokens) / own.outputTokens]))),
    attainmentDifference,
    latency: [
      { name: 'TTFT p50', difference: difference(({ ttftMs }) => percentiles(ttftMs).p50) },
      { name: 'TTFT p99', difference: difference(({ ttftMs }) => percentiles(ttftMs).p99) },
      { name: 'TPOT p50', difference: difference(({ tpotMs }) => percentiles(tpotMs).p50) },
      { name: 'TPOT p99', difference: difference(({ tpotMs }) => percentiles(tpotMs).p99) },
    ],
    verdict: verdictOf({ energyRatio, pairs: pairs.length, attainmentDifference, unmeasured: [...base.turns, ...arm.turns].find(({ energy }) => energy?.kind !== 'measured') ?? null }),
  };
}

function attainmentDifferenceOf(base: ArmSummary, arm: ArmSummary): Estimate | null {
  const overRequests = shareDifference({ successes: base.met, total: base.requests }, { successes: arm.met, total: arm.requests });
  if (overRequests === null) return null;
  const overRounds = meanInterval(arm.turns.flatMap((turn, index) => {
    const other = base.turns[index];
    return other === undefined || turn.requests === 0 || other.requests === 0 ? [] : [turn.met / turn.requests - other.met / other.requests];
  }));
  if (overRounds === null) return overRequests;
  return { mean: overRequests.mean, low: Math.min(overRequests.low, overRounds.low), high: Math.max(overRequests.high, overRounds.high) };
}

/** In this order: without measurement nothing is said, and nothing is called a saving before attainment has been looked at. */
function verdictOf({ energyRatio, pairs, attainmentDifference, unmeasured }: { readonly energyRatio: Estimate | null; readonly pairs: number; readonly attainmentDifference: Estimate | null; readonly unmeasured: Turn | null }): Verdict {
  if (attainmentDifference === null) return { kind: 'too-few-rounds', rounds: 0 };
  if (pairs === 0 && unmeasured !== null) return { kind: 'not-measured', why: unmeasured.energy?.kind === 'unknown' ? unmeasured.energy.why : 'there was no meter (--meter)' };
  if (energyRatio === null) return { kind: 'too-few-rounds', rounds: pairs };
  if (attainmentDifference.mean < -SAME_ATTAINMENT) return { kind: 'lower-attainment' };
  if (energyRatio.low > 1) return { kind: 'costs' };
  if (energyRatio.high >= 1) return { kind: 'no-difference-shown' };
  return attainmentDifference.low < -ATTAINMENT_MARGIN ? { kind: 'attainment-unsure' } : { kind: 'saves' };
}

/** Tokens that differ by more say that arms did different work. */
const TOKENS_TOLERANCE = 0.01;

function notesOf(comparison: Comparison, arms: readonly ArmSummary[], rounds: readonly number[]): readonly string[] {
  const notes: string[] = [];
  const { end, load, turns } = comparison;
  if (end.kind === 'interrupted') notes.push(`interrupted: ${rounds.length} of ${load.rounds} rounds are whole, and only those count`);
  if (end.kind === 'failed') notes.push(`ended early (${end.why}): ${rounds.length} of ${load.rounds} rounds are whole, and only those count`);
  if (rounds.length < ROUNDS_MIN) notes.push(`${rounds.length} whole rounds tell no interval: want ${ROUNDS_MIN} or more`);
  else if (rounds.length % 2 === 1 && rounds.length < 9) notes.push(`an odd number of rounds: one arm was first once more often than another, which matters where something drifts`);
  const [base, ...others] = arms;
  for (const arm of others) {
    if (base !== undefined && base.outputTokens > 0 && Math.abs(arm.outputTokens / base.outputTokens - 1) > TOKENS_TOLERANCE) notes.push(`${arm.name} gave ${arm.outputTokens} tokens where ${base.name} gave ${base.outputTokens}: they did not do the same work, compare joules per token`);
  }
  if (turns.some(({ energy }) => energy?.kind === 'measured' && energy.how === 'integrated')) notes.push('energy was integrated from sampled power, since the meter has no energy counter: what happens between its samples is not seen');
  const unknown = turns.flatMap(({ arm, round, energy, interrupted }) => (energy?.kind === 'unknown' && !interrupted ? [`round ${round + 1} of ${arm}: energy unknown: ${energy.why}`] : []));
  return [...notes, ...unknown, ...turnNotes(turns)];
}

const NOTES_MAX = 20;

/** The same note of several turns once, with how many had it; numbers in it are of the first. */
function turnNotes(turns: readonly Turn[]): readonly string[] {
  const groups = [...Map.groupBy(turns.filter(({ interrupted }) => !interrupted).flatMap(({ arm, notes }) => notes.map((note) => ({ arm, note, key: `${arm}: ${note.replaceAll(/\d+(\.\d+)?/g, '#')}` }))), ({ key }) => key).values()];
  const lines = groups.map((same) => `${same[0]?.arm}: ${same[0]?.note}${same.length > 1 ? ` (and so, with other numbers, in ${same.length - 1} further turns)` : ''}`);
  return lines.length <= NOTES_MAX ? lines : [...lines.slice(0, NOTES_MAX), `and ${lines.length - NOTES_MAX} further notes: see the JSON`];
}
