// Whose turn it is. Every arm has one in each round; rounds come in pairs that mirror each other (A B, B A), so that what drifts
// evenly through a session (temperature, other load) falls on all arms alike. Which way a pair begins is drawn from the seed. Pure.
import { createRandom } from '../random/random.ts';

export interface ScheduledTurn {
  /** From 0. */
  readonly round: number;
  readonly arm: number;
}

export function scheduleOf(arms: number, rounds: number, seed: number): readonly ScheduledTurn[] {
  const random = createRandom(seed, 'order-of-turns');
  const turns: ScheduledTurn[] = [];
  let order: number[] = [];
  for (let round = 0; round < rounds; round++) {
    order = round % 2 === 0 ? shuffled(arms, random) : order.toReversed();
    turns.push(...order.map((arm) => ({ round, arm })));
  }
  return turns;
}

function shuffled(count: number, random: () => number): number[] {
  const order = Array.from({ length: count }, (_, index) => index);
  for (let index = count - 1; index > 0; index--) {
    const other = Math.floor(random() * (index + 1));
    [order[index], order[other]] = [order[other] as number, order[index] as number];
  }
  return order;
}
