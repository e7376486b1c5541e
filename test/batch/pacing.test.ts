import { describe, expect, test } from 'vitest';
import { lineDeadlineMs, linesWanted, neededLines } from '../../src/batch/pacing.ts';
import type { BatchView, PacingView } from '../../src/batch/pacing.ts';

const HOUR_MS = 3_600_000;
const early: BatchView = { remaining: 1_000, leftMs: 24 * HOUR_MS, lineMs: 2_000 };
const view = (more: Partial<PacingView>): PacingView => ({ batches: [early], room: 100, running: 0, queued: 0, ownInFlight: 0, concurrencyMax: 64, ...more });

describe('lines in flight', () => {
  test.each([
    { when: 'the fleet is idle: half of its room', view: view({}), wanted: [50] },
    { when: 'its own lines are all there is: the same, so that it does not give way to itself', view: view({ running: 50, ownInFlight: 50 }), wanted: [50] },
    { when: 'others use some: what they leave of the half', view: view({ running: 30 }), wanted: [20] },
    { when: 'others use half: one, to know how long lines take', view: view({ running: 50 }), wanted: [1] },
    { when: 'others use all: one', view: view({ running: 100 }), wanted: [1] },
    { when: 'others wait: one', view: view({ running: 20, ownInFlight: 20, queued: 30 }), wanted: [1] },
    { when: 'nobody is up: none', view: view({ room: 0 }), wanted: [0] },
    { when: 'few lines are left: those', view: view({ batches: [{ ...early, remaining: 3 }] }), wanted: [3] },
    { when: 'little may be in flight: no more than that', view: view({ concurrencyMax: 8 }), wanted: [8] },
    { when: 'the end is near and others use all: as many as it takes', view: view({ running: 100, batches: [{ remaining: 300, leftMs: 60_000, lineMs: 2_000 }] }), wanted: [20] },
    { when: 'the end is too near: all that may be', view: view({ running: 100, batches: [{ remaining: 300, leftMs: 1_000, lineMs: 2_000 }] }), wanted: [64] },
    { when: 'the end is too near and the fleet small: its room', view: view({ room: 10, batches: [{ remaining: 300, leftMs: 1_000, lineMs: 2_000 }] }), wanted: [10] },
    { when: 'two batches: the first gets what is idle', view: view({ batches: [{ ...early, remaining: 30 }, early] }), wanted: [30, 20] },
    { when: 'a later one is in a hurry: it gets what it needs first', view: view({ running: 100, batches: [early, { remaining: 300, leftMs: 60_000, lineMs: 2_000 }] }), wanted: [0, 20] },
    { when: 'there is no batch: none', view: view({ batches: [] }), wanted: [] },
  ])('$when', ({ view: given, wanted }) => {
    expect(linesWanted(given)).toEqual(wanted);
  });

  test('are never more than allowed, than there is room, or than are left, and never negative', () => {
    for (const room of [0, 1, 7, 300]) {
      for (const running of [0, 5, 400]) {
        for (const concurrencyMax of [1, 64]) {
          for (const leftMs of [-1, 1, 10_000, HOUR_MS]) {
            const batches = [{ remaining: 5, leftMs, lineMs: null }, { remaining: 100, leftMs: leftMs + 1, lineMs: 50 }, { remaining: 0, leftMs, lineMs: 1 }];
            const wanted = linesWanted({ batches, room, running, queued: running, ownInFlight: 0, concurrencyMax });
            expect(wanted.reduce((sum, lines) => sum + lines, 0)).toBeLessThanOrEqual(Math.min(room, concurrencyMax));
            wanted.forEach((lines, index) => expect(lines >= 0 && lines <= (batches[index]?.remaining ?? 0)).toBe(true));
          }
        }
      }
    }
  });
});

test.each([
  { batch: { remaining: 0, leftMs: 10, lineMs: 1_000 }, needed: 0 },
  { batch: { remaining: 10, leftMs: 0, lineMs: 1_000 }, needed: 10 },
  { batch: { remaining: 10, leftMs: HOUR_MS, lineMs: 1_000 }, needed: 0 },
  { batch: { remaining: 1_800, leftMs: HOUR_MS, lineMs: 1_000 }, needed: 1 },
  { batch: { remaining: 18_000, leftMs: HOUR_MS, lineMs: 1_000 }, needed: 10 },
  { batch: { remaining: 60, leftMs: HOUR_MS, lineMs: null }, needed: 1 },
])('$batch needs $needed in flight', ({ batch, needed }) => {
  expect(neededLines(batch)).toBe(needed);
});

test('a line may take its share of the window, at least twice what lines take, and never more than is left', () => {
  expect(lineDeadlineMs({ remaining: 100, leftMs: HOUR_MS, lineMs: 1_000 }, 10)).toBe(HOUR_MS / 20);
  expect(lineDeadlineMs({ remaining: 100_000, leftMs: HOUR_MS, lineMs: 1_000 }, 1)).toBe(2_000);
  expect(lineDeadlineMs({ remaining: 1, leftMs: HOUR_MS, lineMs: 1_000 }, 8)).toBe(HOUR_MS);
  expect(lineDeadlineMs({ remaining: 5, leftMs: 500, lineMs: 1_000 }, 1)).toBe(500);
});

describe('where it is known what energy costs', () => {
  /** Dear for an hour, cheap for two, middling after that. */
  const prices = [{ fromMs: -1, price: 9 }, { fromMs: HOUR_MS, price: 1 }, { fromMs: 3 * HOUR_MS, price: 3 }];
  const later = (byMs: number) => prices.map(({ fromMs, price }) => ({ fromMs: fromMs - byMs, price }));
  const batch: BatchView = { remaining: 50_000, leftMs: 24 * HOUR_MS, lineMs: 2_000 };

  test.each([
    { when: 'the hour is dear and enough cheaper ones come: none', view: view({ batches: [batch], prices }), wanted: [0] },
    { when: 'the cheap hours are here: what is idle', view: view({ batches: [batch], prices: later(1.5 * HOUR_MS) }), wanted: [50] },
    { when: 'they are here and others use all: as many as it takes to be done in them', view: view({ running: 100, batches: [batch], prices: later(1.5 * HOUR_MS) }), wanted: [38] },
    { when: 'they are over: what is idle, for the rest is as dear', view: view({ batches: [batch], prices: later(5 * HOUR_MS) }), wanted: [50] },
    { when: 'nothing is known yet of how long a line takes: one', view: view({ batches: [{ ...batch, remaining: 500, lineMs: null }], prices }), wanted: [1] },
    { when: 'the cheaper hours do not suffice: what is idle', view: view({ batches: [{ ...batch, leftMs: 1.5 * HOUR_MS }], prices }), wanted: [50] },
    { when: 'they suffice for the first, and not for both', view: view({ batches: [{ ...batch, remaining: 60_000, leftMs: 2.8 * HOUR_MS }, { ...batch, remaining: 90_000, leftMs: 3 * HOUR_MS }], prices }), wanted: [0, 50] },
  ])('$when', ({ view: given, wanted }) => {
    expect(linesWanted(given)).toEqual(wanted);
  });

  test('a batch played hour by hour ends in its window, most of it in the cheap hours', () => {
    let remaining = 90_000;
    const done = { cheap: 0, dear: 0 };
    const stepMs = 60_000;
    for (let nowMs = 0; nowMs < 6 * HOUR_MS && remaining > 0; nowMs += stepMs) {
      const [lines = 0] = linesWanted(view({ batches: [{ remaining, leftMs: 6 * HOUR_MS - nowMs, lineMs: 2_000 }], prices: later(nowMs) }));
      const ended = Math.min(remaining, Math.floor((lines * stepMs) / 2_000));
      remaining -= ended;
      done[nowMs >= HOUR_MS && nowMs < 3 * HOUR_MS ? 'cheap' : 'dear'] += ended;
    }
    expect(remaining).toBe(0);
    expect(done.dear).toBe(0);
  });

  test('a line has no more slack than it takes to be sent in this hour', () => {
    expect(lineDeadlineMs({ remaining: 1, leftMs: HOUR_MS, lineMs: 1_000 }, 8, prices)).toBe(60_000);
    expect(lineDeadlineMs({ remaining: 1, leftMs: HOUR_MS, lineMs: 30_000 }, 8, prices)).toBe(120_000);
    expect(lineDeadlineMs({ remaining: 5, leftMs: 500, lineMs: 1_000 }, 1, prices)).toBe(500);
  });
});
