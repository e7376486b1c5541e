// Twice the capacity, on virtual time, by the gateway's own decisions: what is admitted is met, nobody hangs, shares are kept.
import { expect, test } from 'vitest';
import { capacityPerS, type Fleet, play, type TenantLoad } from '../../bench/overload/scenario.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { loadProfile } from '../../src/profile-file.ts';

const profile = loadProfile('config/profiles/llama-3.1-70b.h100-tp4.json');
const FLEET: Fleet = { profile, model: createPerformanceModel(profile), replicas: 2, truthTime: 1, seed: 3 };
const CHAT = { ttftMs: 1500, tpotMs: 50 };
/** As `capacityPerS` finds it; looking for it takes half a minute. */
const CAPACITY = 12.5;
/** Seconds of one core; on a machine that has other things to do many. */
const LONG_MS = 180_000;
const load = (over: Partial<TenantLoad>): TenantLoad => ({ tenant: 'a', weight: 1, infeasible: 'refuse', slo: CHAT, ratePerS: CAPACITY, fromS: 0, untilS: 60, ...over });

test('at twice the capacity nearly all that is admitted is met, by weight; served best effort hardly anything is', () => {
  const tenants = (infeasible: 'refuse' | 'best-effort') => [
    load({ tenant: 'light', weight: 1, ratePerS: 0.9 * CAPACITY, infeasible }),
    load({ tenant: 'heavy', weight: 2, ratePerS: 1.6 * CAPACITY, infeasible }),
  ];
  const admission = play(FLEET, tenants('refuse'));
  expect(admission.attainment).toBeGreaterThan(0.985);
  // Every request has an end: it was refused, or it was served.
  expect(admission.admitted).toBeGreaterThan(0.5 * admission.offered);
  const [light, heavy] = admission.tenants;
  expect((heavy?.goodputTokensPerS ?? 0) / (light?.goodputTokensPerS ?? 1)).toBeGreaterThan(1.7);
  expect((heavy?.goodputTokensPerS ?? 0) / (light?.goodputTokensPerS ?? 1)).toBeLessThan(2.3);
  const without = play(FLEET, tenants('best-effort'));
  expect(without.admitted).toBe(without.offered);
  expect(without.attainment).toBeLessThan(0.6);
  expect(admission.goodputPerS).toBeGreaterThan(1.5 * without.goodputPerS);
}, LONG_MS);

test('a tenant within its share keeps its deadlines while another one bursts, refused, best effort or without deadlines', () => {
  const steady = load({ tenant: 'steady', ratePerS: 0.3 * CAPACITY });
  const burst = { tenant: 'bursty', ratePerS: 3 * CAPACITY, fromS: 20, untilS: 35 } as const;
  for (const over of [{}, { infeasible: 'best-effort' }, { infeasible: 'best-effort', slo: {} }] as const) {
    const { tenants } = play(FLEET, [steady, load({ ...burst, ...over })]);
    expect(tenants.find(({ tenant }) => tenant === 'steady')?.metOfOffered).toBeGreaterThan(0.94);
  }
}, LONG_MS);

test('the capacity is a rate at which the target is attained, and far above it is not', () => {
  const found = capacityPerS({ ...FLEET, replicas: 1 }, CHAT, { target: 0.9, lengthS: 90 });
  const attained = (ratePerS: number): number => play({ ...FLEET, replicas: 1 }, [load({ ratePerS, infeasible: 'best-effort', untilS: 90 })], 60).attainment;
  expect(attained(found)).toBeGreaterThanOrEqual(0.9);
  // By chance a rate a little above may attain it, too.
  expect(attained(1.5 * found)).toBeLessThan(0.9);
}, LONG_MS);
