import { expect, test } from 'vitest';
import { scheduleOf } from '../../src/compare/schedule.ts';

function orders(arms: number, rounds: number, seed: number): string[] {
  const turns = scheduleOf(arms, rounds, seed);
  return Array.from({ length: rounds }, (_, round) => turns.filter((turn) => turn.round === round).map(({ arm }) => arm).join(''));
}

test('every arm has one turn in each round, and every second round mirrors the one before', () => {
  for (let seed = 0; seed < 50; seed++) {
    const rounds = orders(3, 6, seed);
    for (const order of rounds) expect([...order].toSorted().join('')).toBe('012');
    for (let pair = 0; pair < 6; pair += 2) expect(rounds[pair + 1]).toBe([...(rounds[pair] as string)].toReversed().join(''));
  }
});

test('which arm is first is drawn, the same for the same seed', () => {
  expect(orders(2, 20, 4)).toEqual(orders(2, 20, 4));
  const firsts = Array.from({ length: 200 }, (_, seed) => orders(2, 1, seed)[0]);
  expect(firsts.filter((order) => order === '01').length).toBeGreaterThan(60);
  expect(firsts.filter((order) => order === '10').length).toBeGreaterThan(60);
});
