// Pipelines: against every choice that there is, played micro-batch by micro-batch; and nobody hurries to wait.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Frontier, type FrontierPoint, paretoFrontier } from '../../src/frontier/frontier.ts';
import { pipeline } from '../../src/frontier/pipeline.ts';

type Stages = readonly (readonly FrontierPoint<number>[])[];

const small = fc.record({
  stages: fc.array(fc.array(fc.record({ timeMs: fc.integer({ min: 1, max: 9 }), energyJ: fc.integer({ min: 1, max: 30 }) }), { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 4 }).map((stages) => stages.map((points) => points.map((point, choice) => ({ ...point, choice })))),
  microBatches: fc.integer({ min: 1, max: 6 }),
  idleW: fc.array(fc.integer({ min: 0, max: 2_000 }), { minLength: 4, maxLength: 4 }),
});

/** A micro-batch goes on when it is done and the stage behind is free; who has nothing to do idles until all are done. */
function played(stages: Stages, choice: readonly number[], microBatches: number, idleW: readonly number[]): { timeMs: number; energyJ: number } {
  const ways = stages.map((points, stage) => points[choice[stage] as number] as FrontierPoint<number>);
  const freeAtMs = ways.map(() => 0);
  for (let batch = 0; batch < microBatches; batch++) {
    let atMs = 0;
    for (const [stage, { timeMs }] of ways.entries()) {
      atMs = Math.max(atMs, freeAtMs[stage] as number) + timeMs;
      freeAtMs[stage] = atMs;
    }
  }
  const timeMs = freeAtMs.at(-1) as number;
  return { timeMs, energyJ: ways.reduce((sum, way, stage) => sum + microBatches * way.energyJ + ((timeMs - microBatches * way.timeMs) * (idleW[stage] as number)) / 1000, 0) };
}

function allChoices(stages: Stages): number[][] {
  return stages.reduce<number[][]>((begun, points) => begun.flatMap((choice) => points.map((_, way) => [...choice, way])), [[]]);
}

test('the frontier is that of playing every choice, fill, drain and idling included', () => {
  fc.assert(
    fc.property(small, ({ stages, microBatches, idleW }) => {
      const all = paretoFrontier(allChoices(stages).map((choice) => ({ ...played(stages, choice, microBatches, idleW), choice })));
      const frontier = pipeline(stages, { microBatches, idlePowerW: (stage) => idleW[stage] as number });
      // Each is as good as one of the other, but for rounding.
      const covers = (points: Frontier<readonly number[]>, others: Frontier<readonly number[]>): boolean => others.every((other) => points.some(({ timeMs, energyJ }) => timeMs <= other.timeMs && energyJ <= other.energyJ + 1e-9));
      expect([covers(frontier, all), covers(all, frontier)]).toEqual([true, true]);
      for (const { timeMs, energyJ, choice } of frontier) {
        const truth = played(stages, choice, microBatches, idleW);
        expect([timeMs, energyJ]).toEqual([truth.timeMs, expect.closeTo(truth.energyJ, 6)]);
      }
    }),
    { numRuns: 2_000, seed: 41 },
  );
});

test('nobody hurries to wait: no stage could take another way that makes the whole cheaper and no later', () => {
  fc.assert(
    fc.property(small, ({ stages, microBatches, idleW }) => {
      for (const { timeMs, energyJ, choice } of pipeline(stages, { microBatches, idlePowerW: (stage) => idleW[stage] as number })) {
        for (const [stage, points] of stages.entries()) {
          for (const way of points.keys()) {
            const other = played(stages, choice.with(stage, way), microBatches, idleW);
            expect(other.timeMs > timeMs || other.energyJ > energyJ - 1e-9).toBe(true);
          }
        }
      }
    }),
    { numRuns: 1_000, seed: 42 },
  );
});

test('the slower of two unlike stages sets the pace, and the faster is slowed to it', () => {
  const slow = [{ timeMs: 20, energyJ: 30, choice: 'slow' }];
  const fast = [{ timeMs: 8, energyJ: 40, choice: 'hurries' }, { timeMs: 18, energyJ: 20, choice: 'keeps pace' }, { timeMs: 30, energyJ: 19, choice: 'holds up' }];
  const points = pipeline([slow, fast], { microBatches: 100, idlePowerW: () => 200 });
  expect(points.map(({ choice }) => choice[1])).toEqual(['hurries', 'keeps pace']);
  // Hurrying wins the ten milliseconds of the last micro-batch, for a third more energy; and the slow one never helps, for all would wait for it.
  expect(points.map(({ timeMs }) => timeMs)).toEqual([2_008, 2_018]);
});

test('one stage is its frontier as often as there are micro-batches, none is nothing, and no number of micro-batches is refused', () => {
  expect(pipeline([[{ timeMs: 5, energyJ: 2, choice: 'a' }]], { microBatches: 3, idlePowerW: () => 10 })).toEqual([{ timeMs: 15, energyJ: expect.closeTo(6, 9), choice: ['a'] }]);
  expect(pipeline([], { microBatches: 3, idlePowerW: () => 10 })).toEqual([{ timeMs: 0, energyJ: 0, choice: [] }]);
  expect(pipeline([[{ timeMs: 5, energyJ: 2, choice: 'a' }], []], { microBatches: 3, idlePowerW: () => 10 })).toEqual([]);
  for (const microBatches of [0, -1, 1.5, Number.NaN]) expect(() => pipeline([], { microBatches, idlePowerW: () => 0 })).toThrow(`got ${microBatches} micro-batches, want a whole number, 1 or more`);
});

test('more efficient points than are wanted are thinned, both ends kept', () => {
  const stages = Array.from({ length: 3 }, () => Array.from({ length: 9 }, (_, way) => ({ timeMs: 10 + way, energyJ: 100 / (1 + way), choice: way })));
  const all = pipeline(stages, { microBatches: 1, idlePowerW: () => 0 });
  const few = pipeline(stages, { microBatches: 1, idlePowerW: () => 0, pointsMax: 5 });
  expect(few).toHaveLength(5);
  expect([few[0], few.at(-1)]).toEqual([all[0], all.at(-1)]);
});
