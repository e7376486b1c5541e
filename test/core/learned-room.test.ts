import { expect, test } from 'vitest';
import { createLearnedRoom } from '../../src/core/learned-room.ts';

/** A server that runs `serverMax` at once, with `foreign` of others, sent all that there is room for and wanted. */
function settled(serverMax: number, { configured = 256, foreign = 0, wanted = 1_000, readings = 60 } = {}): { readonly room: number; readonly atServer: number } {
  const learned = createLearnedRoom(configured);
  let ours = 0;
  for (let reading = 0; reading < readings; reading++) {
    ours = Math.min(wanted, configured, learned.room());
    const running = Math.min(serverMax, ours + foreign);
    learned.observe({ running, waiting: ours + foreign - running, kvUsage: 0.5 }, ours);
  }
  return { room: learned.room(), atServer: ours };
}

test('a server that takes fewer than its profile says is sent little more than it runs', () => {
  const { atServer } = settled(40);
  expect(atServer).toBeGreaterThanOrEqual(40);
  expect(atServer).toBeLessThanOrEqual(44);
});

test('what others have there is not ours to use', () => {
  const { atServer } = settled(40, { foreign: 15 });
  expect(atServer).toBeGreaterThanOrEqual(25);
  expect(atServer).toBeLessThanOrEqual(30);
});

test('a server that runs all it is sent is sent as many as configured', () => {
  expect(settled(256)).toEqual({ room: Infinity, atServer: 256 });
});

test('one reading with prompts on their way in says nothing, nor do more while ever more of them run', () => {
  const learned = createLearnedRoom(256);
  learned.observe({ running: 10, waiting: 8, kvUsage: 0.2 }, 18);
  expect(learned.room()).toBe(Infinity);
  for (let running = 14; running < 60; running += 4) learned.observe({ running, waiting: 8, kvUsage: 0.2 }, running + 8);
  expect(learned.room()).toBe(Infinity);
});

test('a full cache counts although the number of requests still moves', () => {
  const learned = createLearnedRoom(256);
  for (const running of [10, 20, 30]) learned.observe({ running, waiting: 5, kvUsage: 0.99 }, running + 5);
  expect(learned.room()).toBe(32);
});

test('a server that is given more grows back to what is configured, in about as many readings as it takes to see it', () => {
  const learned = createLearnedRoom(256);
  for (let reading = 0; reading < 10; reading++) learned.observe({ running: 20, waiting: 30, kvUsage: 0.5 }, 50);
  expect(learned.room()).toBe(22);
  let readings = 0;
  for (; learned.room() < 256 && readings < 100; readings++) learned.observe({ running: learned.room(), waiting: 0, kvUsage: 0.5 }, learned.room());
  expect(learned.room()).toBe(Infinity);
  expect(readings).toBeLessThan(60);
});

test('never less than one', () => {
  const learned = createLearnedRoom(4);
  for (let reading = 0; reading < 5; reading++) learned.observe({ running: 8, waiting: 90, kvUsage: 1 }, 1);
  expect(learned.room()).toBe(1);
});
