// What a replica serves within its limits, and the pools and fleets that are made of that.
import { expect, test } from 'vitest';
import { shareLoad } from '../../src/frontier/load-sharing.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { decodeRates, prefillRates } from '../../src/frontier/serving-rates.ts';
import { loadProfile } from '../../src/profile-file.ts';

const model = createPerformanceModel(loadProfile('config/profiles/llama-3.1-8b.h200.json'));
const REQUEST = { promptTokens: 1_500, outputTokens: 250 };

test('a tighter limit leaves fewer rates, a looser one never fewer, and all are within it', () => {
  for (const [tight, loose] of [[prefillRates(model, REQUEST, { ttftMs: 120 }), prefillRates(model, REQUEST, { ttftMs: 500 })], [decodeRates(model, REQUEST, { tpotMs: 12, prefills: false }), decodeRates(model, REQUEST, { tpotMs: 40, prefills: false })]] as const) {
    expect(Math.max(...tight.map(({ ratePerS }) => ratePerS))).toBeLessThan(Math.max(...loose.map(({ ratePerS }) => ratePerS)));
    expect(tight.length).toBeLessThanOrEqual(loose.length);
  }
  for (const { choice } of prefillRates(model, REQUEST, { ttftMs: 120 })) expect(choice.latencyMs).toBeLessThanOrEqual(120 + 1e-6);
  for (const { choice } of decodeRates(model, REQUEST, { tpotMs: 12, prefills: true })) expect(choice.latencyMs).toBeLessThanOrEqual(12);
});

test('a limit that nothing keeps leaves only waiting, at the least that it can draw', () => {
  const [only, ...others] = decodeRates(model, REQUEST, { tpotMs: 0.1, prefills: false });
  expect(others).toEqual([]);
  expect(only).toMatchObject({ ratePerS: 0, powerW: Math.min(...model.points.map(({ idlePowerW }) => idlePowerW)), choice: { point: null } });
  expect(prefillRates(model, REQUEST, { ttftMs: 0.1 })).toHaveLength(1);
});

test('a batch is bounded by what the engine takes and by its KV cache', () => {
  const { maxSequences, kvTokens } = model.profile.serving;
  expect(Math.max(...decodeRates(model, REQUEST, { tpotMs: 1e6, prefills: false }).map(({ choice }) => choice.sequences))).toBe(Math.min(maxSequences, Math.floor(kvTokens / 1_625)));
  const long = { promptTokens: 100_000, outputTokens: 100 };
  expect(Math.max(...decodeRates(model, long, { tpotMs: 1e6, prefills: false }).map(({ choice }) => choice.sequences))).toBe(Math.floor(kvTokens / 100_050));
});

test('who prefills as well serves fewer, and two pools of one each draw what their cheapest points do', () => {
  const mostOf = (prefills: boolean): number => Math.max(...decodeRates(model, REQUEST, { tpotMs: 30, prefills }).map(({ ratePerS }) => ratePerS));
  expect(mostOf(true)).toBeLessThan(mostOf(false));
  const rates = prefillRates(model, REQUEST, { ttftMs: 300 });
  const shared = shareLoad([rates], 3);
  expect(shared.kind === 'meets' ? shared.powerW : null).toBe(Math.min(...rates.filter(({ ratePerS }) => ratePerS >= 3).map(({ powerW }) => powerW)));
});

test('a faster clock than the load needs is never chosen: with less load each pool draws no more', () => {
  let before = Number.POSITIVE_INFINITY;
  const rates = decodeRates(model, REQUEST, { tpotMs: 25, prefills: true });
  for (const ratePerS of [12, 9, 6, 3, 1, 0]) {
    const shared = shareLoad([rates, rates, rates], ratePerS);
    expect(shared.kind === 'meets' ? shared.powerW : null).toBeLessThanOrEqual(before);
    before = shared.kind === 'meets' ? shared.powerW : before;
  }
});
