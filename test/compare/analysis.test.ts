import { describe, expect, test } from 'vitest';
import { analyse } from '../../src/compare/analysis.ts';
import { verdictText } from '../../src/compare/verdict-text.ts';
import { makeComparison, type MadeTurn } from './sample-comparison.ts';

function rounds(...energies: readonly (number | null)[]): readonly MadeTurn[] {
  return energies.map((energyJ) => ({ energyJ }));
}

const BASE = rounds(10_000, 12_000, 8000, 10_000);

describe('the verdict', () => {
  test.each([
    { why: 'all rounds take half, and all attain', arm: rounds(5000, 6100, 3900, 5050), kind: 'saves' },
    { why: 'it takes more', arm: rounds(11_000, 13_300, 8900, 11_100), kind: 'costs' },
    { why: 'rounds differ among themselves', arm: rounds(5000, 20_000, 4000, 19_000), kind: 'no-difference-shown' },
    { why: 'half the energy, and 2 % of requests less', arm: [5000, 6000, 4000, 5000].map((energyJ) => ({ energyJ, met: 490 })), kind: 'lower-attainment' },
    { why: 'half the energy, and two in a thousand less', arm: [5000, 6000, 4000, 5000].map((energyJ) => ({ energyJ, met: 499 })), kind: 'lower-attainment' },
    { why: 'half the energy, at as many of few requests', arm: [5000, 6000, 4000, 5000].map((energyJ) => ({ energyJ, requests: 20 })), base: BASE.map((turn) => ({ ...turn, requests: 20 })), kind: 'attainment-unsure' },
    { why: 'two rounds', arm: rounds(5000, 6000), base: BASE.slice(0, 2), kind: 'too-few-rounds' },
    { why: 'no meter', arm: rounds(null, null, null, null), base: rounds(null, null, null, null), kind: 'not-measured' },
  ])('is $kind where $why', ({ arm, base = BASE, kind }) => {
    const [against] = analyse(makeComparison({ a: base, b: arm })).against;
    expect(against?.verdict.kind).toBe(kind);
  });

  test('of a lower attainment says in words that it is no saving, and of nothing else than a saving that it saves', () => {
    const text = (arm: readonly MadeTurn[], base = BASE) => analyse(makeComparison({ a: base, b: arm })).against.map(verdictText).join('');
    expect(text([5000, 6000, 4000, 5000].map((energyJ) => ({ energyJ, met: 450 })))).toBe('Not at equal attainment: b attains less than a (-10.00 points [-11.39, -8.75]), so its energy (-50.0 % [-50.0, -50.0]) is that of a worse service, and no saving.');
    expect(text(rounds(5000, 6100, 3900, 5050))).toMatch(/^b saves energy at no lower attainment: -50\.0 % \[-51\.4, -48\.5\] relative to a; attainment 0\.00 points \[-0\.19, \+0\.19\]\.$/);
    for (const arm of [rounds(11_000, 13_300, 8900, 11_100), rounds(5000, 20_000, 4000, 19_000), rounds(5000, 6000), rounds(null, null, null, null)]) expect(text(arm)).not.toContain('saves');
  });
});

test('ratios are of turns in the same round, so that rounds that differ cost nothing', () => {
  const [against] = analyse(makeComparison({ a: rounds(1000, 100_000, 10, 4000), b: rounds(500, 50_000, 5, 2000) })).against;
  expect(against?.energyRatio).toEqual({ mean: expect.closeTo(0.5, 9), low: expect.closeTo(0.5, 9), high: expect.closeTo(0.5, 9) });
});

test('only rounds in which every arm had a whole turn count', () => {
  const analysis = analyse(makeComparison({ a: [...BASE, { energyJ: 1 }, { energyJ: 2 }], b: [...rounds(5000, 6000, 4000, 5000), { energyJ: 9e9, interrupted: true }] }, { kind: 'interrupted' }));
  expect(analysis.rounds).toEqual([0, 1, 2, 3]);
  expect(analysis.arms.map(({ requests }) => requests)).toEqual([2000, 2000]);
  expect(analysis.against[0]?.energyRatio?.mean).toBeCloseTo(0.5, 9);
  expect(analysis.notes).toContain('interrupted: 4 of 6 rounds are whole, and only those count');
});

test('with no round whole there is nothing to say, and that is said', () => {
  const analysis = analyse(makeComparison({ a: [{}], b: [] }, { kind: 'failed', why: 'round 1: b: is gone' }));
  expect(analysis.against[0]?.verdict).toEqual({ kind: 'too-few-rounds', rounds: 0 });
  expect(analysis.notes).toEqual(['ended early (round 1: b: is gone): 0 of 1 rounds are whole, and only those count', '0 whole rounds tell no interval: want 3 or more']);
});

test('a round whose energy is unknown costs that round and no other, and no mean is made of the rest', () => {
  const comparison = makeComparison({ a: BASE, b: rounds(5000, 6000, 4000, 5000) });
  const broken = { ...comparison, turns: comparison.turns.map((turn) => (turn.arm === 'b' && turn.round === 1 ? { ...turn, energy: { kind: 'unknown' as const, why: 'the counter fell' } } : turn)) };
  const { arms, against, notes } = analyse(broken);
  expect(against[0]?.verdict.kind).toBe('saves');
  expect(arms.map(({ energyJ }) => energyJ)).toEqual([10_000, null]);
  expect(notes).toContain('round 2 of b: energy unknown: the counter fell');
});

test('every arm is compared to the first', () => {
  const { against } = analyse(makeComparison({ a: BASE, b: rounds(5000, 6000, 4000, 5000), c: rounds(2500, 3000, 2000, 2500) }));
  expect(against.map(({ arm, base, energyRatio }) => [arm, base, energyRatio?.mean])).toEqual([['b', 'a', expect.closeTo(0.5, 9)], ['c', 'a', expect.closeTo(0.25, 9)]]);
});

test('arms that gave other numbers of tokens are told apart by joules per token', () => {
  const { against, notes } = analyse(makeComparison({ a: BASE, b: BASE.map(() => ({ energyJ: 5000, outputTokens: 25_000 })) }));
  expect(against[0]?.tokenEnergyRatio?.mean).toBeCloseTo(1.0, 1);
  expect(notes.join()).toContain('b gave 100000 tokens where a gave 200000: they did not do the same work');
});

test('latencies are compared round by round', () => {
  const base = [100, 200, 300].map((ms) => ({ ttftMs: [ms] }));
  const { against } = analyse(makeComparison({ a: base, b: base.map(({ ttftMs: [ms = 0] }) => ({ ttftMs: [ms + 40] })) }));
  expect(against[0]?.latency[0]).toEqual({ name: 'TTFT p50', difference: { mean: 40, low: expect.closeTo(40, 9), high: expect.closeTo(40, 9) } });
});

test('the same note of many turns stands once', () => {
  const { notes } = analyse(makeComparison({ a: BASE.map((turn, index) => ({ ...turn, notes: [`${index + 2} of 500 requests went out late`] })), b: BASE }));
  expect(notes.filter((note) => note.includes('went out late'))).toEqual(['a: 2 of 500 requests went out late (and so, with other numbers, in 3 further turns)']);
});

test('a share of misses with equal attainment in every arm holds no verdict up when requests are many', () => {
  const less = (energies: readonly number[]) => energies.map((energyJ) => ({ energyJ, requests: 5000, met: 4900 }));
  expect(analyse(makeComparison({ a: less([10_000, 12_000, 8000, 10_000]), b: less([5000, 6100, 3900, 5050]) })).against[0]?.verdict.kind).toBe('saves');
});
