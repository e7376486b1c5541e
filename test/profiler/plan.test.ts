// The plan of a sweep over a made-up device, whose time and power are formulas: where it looks, and when it stops.
import { describe, expect, test } from 'vitest';
import type { Measurement, Work } from '../../src/profiler/measurement.ts';
import { firstClocks, nextMeasurement, type PlanOptions, wholeClocks } from '../../src/profiler/plan.ts';
import { worksOf } from '../../src/profiler/works.ts';

const SERVING = { maxBatchTokens: 8_192, maxSequences: 256, kvTokens: 800_000 };
const { works, probes } = worksOf(SERVING, 0.03);
const CLOCKS = Array.from({ length: 80 }, (_, index) => 780 + 15 * index);
const options: PlanOptions = { clocksMhz: CLOCKS, works, probes, measurementsMax: 60 };

interface Device {
  readonly timeMs: (work: Work, clockMhz: number) => number;
  readonly powerW: (work: Work, clockMhz: number) => number;
}

const size = (work: Work): number => (work.kind === 'idle' ? 0 : work.kind === 'prefill' ? work.tokens / 40 : 4 + work.sequences / 50);
const smooth: Device = { timeMs: (work, clockMhz) => (size(work) * 1_980) / clockMhz, powerW: (work, clockMhz) => 90 + (work.kind === 'idle' ? 0 : 400) * (clockMhz / 1_980) ** 2.2 };
const straight: Device = { timeMs: smooth.timeMs, powerW: (work, clockMhz) => 90 + (work.kind === 'idle' ? 0 : 0.2 * clockMhz) };

function measured(device: Device, work: Work, clockMhz: number): Measurement {
  return { clockMhz, work, timeMs: work.kind === 'idle' ? null : device.timeMs(work, clockMhz), powerW: device.powerW(work, clockMhz), tokens: 100, windowMs: 1_000, count: 50, actualClockMhz: clockMhz, throttleReasons: [] };
}

function swept(device: Device, over: Partial<PlanOptions> = {}, begun: readonly Measurement[] = []): Measurement[] {
  const done = [...begun];
  for (let next = nextMeasurement(done, { ...options, ...over }); next !== null; next = nextMeasurement(done, { ...options, ...over })) {
    expect(done.some(({ clockMhz, work }) => clockMhz === next.clockMhz && JSON.stringify(work) === JSON.stringify(next.work))).toBe(false);
    done.push(measured(device, next.work, next.clockMhz));
    expect(done.length).toBeLessThanOrEqual(over.measurementsMax ?? options.measurementsMax);
  }
  return done;
}

describe('a sweep', () => {
  test('begins at the fastest clock, then the middle and the slowest, each measured whole', () => {
    expect(firstClocks(CLOCKS)).toEqual([1_965, 1_245, 780]);
    const done = swept(smooth);
    expect([...new Set(done.map(({ clockMhz }) => clockMhz))].slice(0, 3)).toEqual([1_965, 1_245, 780]);
    expect(done.slice(0, works.length).every(({ clockMhz }) => clockMhz === 1_965)).toBe(true);
  });

  test('looks between two clocks only where what is there is not what they let expect', () => {
    const [bent, plain] = [swept(smooth), swept(straight)];
    expect(wholeClocks(plain, works)).toEqual([780, 1_245, 1_965]);
    expect(plain).toHaveLength(3 * works.length + 2 * probes.length);
    expect(wholeClocks(bent, works).length).toBeGreaterThan(3);
  });

  test('leaves alone what is flat: clocks that a device does not reach', () => {
    const capped: Device = { timeMs: (work, clockMhz) => straight.timeMs(work, Math.min(clockMhz, 1_245)), powerW: (work, clockMhz) => (work.kind === 'idle' ? straight.powerW(work, clockMhz) : straight.powerW(work, Math.min(clockMhz, 1_245))) };
    expect(swept(capped).some(({ clockMhz }) => clockMhz !== null && clockMhz > 1_245 && clockMhz < 1_965)).toBe(false);
  });

  test('leaves alone what lies below a clock that a faster one beats on energy', () => {
    // As if clocks below 1,900 MHz took time and saved nothing.
    const stuck: Device = { timeMs: smooth.timeMs, powerW: (work, clockMhz) => (work.kind === 'idle' ? 90 : smooth.powerW(work, Math.max(clockMhz, 1_900))) };
    const below = swept(stuck).filter(({ clockMhz }) => clockMhz !== null && clockMhz > 780 && clockMhz < 1_245);
    expect(below).toEqual([]);
  });

  test.each([5, 20, 29, 35, 36, 45, 200])('of at most %i measurements begins no clock that it could not end', (measurementsMax) => {
    const done = swept(smooth, { measurementsMax });
    const counts = new Map<number | null, number>();
    for (const { clockMhz } of done) counts.set(clockMhz, (counts.get(clockMhz) ?? 0) + 1);
    const cut = [...counts.values()].filter((count) => count !== works.length && count !== probes.length);
    // But for one of the first three, where the bound is below what they take.
    expect(cut.length).toBeLessThanOrEqual(measurementsMax < 3 * works.length ? 1 : 0);
  });

  test('that was stopped goes on where it was', () => {
    const whole = swept(smooth);
    for (const stoppedAfter of [1, 13, 28, 40]) expect(swept(smooth, {}, whole.slice(0, stoppedAfter))).toEqual(whole);
  });

  test('of one clock is of that clock', () => {
    expect(swept(smooth, { clocksMhz: [1_000] }).every(({ clockMhz }) => clockMhz === 1_000)).toBe(true);
    expect(swept(smooth, { clocksMhz: [] })).toEqual([]);
  });
});

describe('works', () => {
  test('let times be told apart: sizes are spread, one of each phase has a long context', () => {
    expect(works.map(({ kind }) => kind)).toEqual(['idle', 'decode', 'decode', 'decode', 'decode', 'prefill', 'prefill', 'prefill', 'prefill']);
    expect(probes.every((probe) => works.some((work) => JSON.stringify(work) === JSON.stringify(probe)))).toBe(true);
  });

  test.each([
    [{ maxBatchTokens: 16, maxSequences: 1, kvTokens: 64 }],
    [{ maxBatchTokens: 512, maxSequences: 4, kvTokens: 4_096 }],
    [{ maxBatchTokens: 2_048, maxSequences: 64, kvTokens: 110_944 }],
  ])('of a small server (%j) fit into its memory, and none is asked for twice', (serving) => {
    const small = worksOf(serving, 0.5).works;
    expect(new Set(small.map((work) => JSON.stringify(work))).size).toBe(small.length);
    for (const work of small) {
      if (work.kind === 'decode') expect(work.sequences * work.promptTokens).toBeLessThanOrEqual(Math.max(serving.kvTokens, 16 * work.sequences));
      if (work.kind === 'prefill') expect(work.tokens).toBeLessThanOrEqual(Math.max(serving.maxBatchTokens, serving.kvTokens));
    }
  });
});
