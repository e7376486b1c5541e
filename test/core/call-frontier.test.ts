// What a call takes at each operating point, and what that costs.
import { expect, test } from 'vitest';
import { callFrontier } from '../../src/core/call-frontier.ts';
import { lowerHull } from '../../src/core/slack-allotment.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { loadProfile } from '../../src/profile-file.ts';

const model = createPerformanceModel(loadProfile('config/profiles/llama-3.1-70b.h100-tp4.json'));
const call = { promptTokens: 1_000, outputTokens: 200, company: 8 };

test('a call alone takes its prefill and its steps, and its energy is what the devices draw less what they would have idled', () => {
  const points = callFrontier(model, { ...call, company: 1 });
  const { fastest } = model;
  const step = { sequences: 1, contextTokens: 1_100 };
  const timeMs = model.prefillTimeMs({ tokens: 1_000, contextTokens: 0 }, fastest) + 199 * model.decodeTimeMs(step, fastest);
  const parkedW = Math.min(...model.points.map(({ idlePowerW }) => idlePowerW));
  const busyJ = model.prefillEnergyJ({ tokens: 1_000, contextTokens: 0 }, fastest) + 199 * model.decodeEnergyJ(step, fastest);
  expect(points[fastest]?.timeMs).toBeCloseTo(timeMs, 6);
  expect(points[fastest]?.energyJ).toBeCloseTo(busyJ - (parkedW * timeMs) / 1_000, 6);
});

test('there is something to trade: slower points take less energy, company makes steps longer and cheaper', () => {
  expect(lowerHull(callFrontier(model, call)).length).toBeGreaterThan(2);
  const [alone, together] = [callFrontier(model, { ...call, company: 1 })[model.fastest], callFrontier(model, call)[model.fastest]];
  expect(together?.timeMs).toBeGreaterThan(alone?.timeMs ?? 0);
  expect(together?.energyJ).toBeLessThan((alone?.energyJ ?? 0) / 2);
});

test('what others\' prompts take of the steps makes it longer, and no energy of its own', () => {
  const [calm, busy] = [callFrontier(model, call)[0], callFrontier(model, { ...call, interference: 0.5 })[0]];
  expect(busy?.timeMs).toBeGreaterThan((calm?.timeMs ?? 0) * 1.5);
  expect(busy?.energyJ).toBe(calm?.energyJ);
});
