import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Arbitration, LeaseId } from '../../src/agent-stand-in/arbitration.ts';
import { LEASES_MAX, createArbitration, fit } from '../../src/agent-stand-in/arbitration.ts';

const CLOCKS_MHZ = [210, 990, 1005, 1980];
const A = 'a' as LeaseId;
const B = 'b' as LeaseId;

test.each([
  { requestedMhz: 990, clockMhz: 990, clamped: null },
  { requestedMhz: 991, clockMhz: 1005, clamped: 'quantized' },
  { requestedMhz: 1, clockMhz: 210, clamped: 'floor' },
  { requestedMhz: 5000, clockMhz: 1980, clamped: 'ceiling' },
])('a request for $requestedMhz MHz is served with $clockMhz MHz', ({ requestedMhz, clockMhz, clamped }) => {
  expect(fit(CLOCKS_MHZ, requestedMhz)).toEqual({ clockMhz, clamped });
});

interface Wish {
  readonly from: LeaseId;
  readonly clockMhz: number | null;
  readonly holdMs?: number;
}

test.each<{ name: string; leases: readonly LeaseId[]; wishes: readonly Wish[]; atMs?: number; targetMhz: number | null }>([
  { name: 'without a lease a device is at default', leases: [], wishes: [], targetMhz: null },
  { name: 'a lease that has said nothing keeps it at default', leases: [A], wishes: [], targetMhz: null },
  { name: 'the one demand is the target', leases: [A], wishes: [{ from: A, clockMhz: 990 }], targetMhz: 990 },
  { name: 'the fastest of two demands wins', leases: [A, B], wishes: [{ from: A, clockMhz: 990 }, { from: B, clockMhz: 1005 }], targetMhz: 1005 },
  { name: 'a holder that has said nothing beats every demand', leases: [A, B], wishes: [{ from: A, clockMhz: 990 }], targetMhz: null },
  { name: 'a holder that asks for default beats every demand', leases: [A, B], wishes: [{ from: A, clockMhz: 990 }, { from: B, clockMhz: null }], targetMhz: null },
  { name: 'the newest demand of a lease replaces its older one', leases: [A], wishes: [{ from: A, clockMhz: 1005 }, { from: A, clockMhz: 210 }], targetMhz: 210 },
  { name: 'a demand stands until its hold has passed', leases: [A], wishes: [{ from: A, clockMhz: 990, holdMs: 500 }], atMs: 499, targetMhz: 990 },
  { name: 'a demand whose hold has passed is one for default', leases: [A], wishes: [{ from: A, clockMhz: 990, holdMs: 500 }], atMs: 500, targetMhz: null },
  { name: 'a demand ends with its lease', leases: [A], wishes: [{ from: A, clockMhz: 990, holdMs: 60_000 }], atMs: 3000, targetMhz: null },
  { name: 'the fastest clock is default', leases: [A], wishes: [{ from: A, clockMhz: 1980 }], targetMhz: null },
])('$name', ({ leases, wishes, atMs = 1, targetMhz }) => {
  const arbitration = createArbitration([CLOCKS_MHZ]);
  for (const leaseId of leases) arbitration.grant({ leaseId, epoch: 1, holder: 'h', ttlMs: 3000, devices: [0] }, 0);
  wishes.forEach(({ from, clockMhz, holdMs = 1000 }, seq) => arbitration.putTargets({ leaseId: from, epoch: 1, seq, targets: [{ devices: [0], clockMhz, holdMs }] }, 0));
  expect(arbitration.target(0, atMs)).toBe(targetMhz);
});

describe('a refused PUT renews nothing and changes nothing', () => {
  const lower = (seq: number, overrides = {}) => ({ leaseId: A, epoch: 5, seq, targets: [{ devices: [0], clockMhz: 990, holdMs: 60_000 }], ...overrides });

  test.each([
    { name: 'the same seq again', request: lower(7), outcome: { kind: 'stale-seq', lastSeq: 7 } },
    { name: 'an older seq', request: lower(6), outcome: { kind: 'stale-seq', lastSeq: 7 } },
    { name: 'another epoch', request: lower(8, { epoch: 4 }), outcome: { kind: 'other-epoch', epoch: 5 } },
    { name: 'another lease', request: lower(8, { leaseId: B }), outcome: { kind: 'unknown-lease' } },
    { name: 'a device of nobody, after one of ours', request: lower(8, { targets: [{ devices: [0], clockMhz: 990, holdMs: 1000 }, { devices: [0, 1], clockMhz: 990, holdMs: 1000 }] }), outcome: { kind: 'not-held', target: 1, position: 1 } },
  ])('$name', ({ request, outcome }) => {
    const arbitration = createArbitration([CLOCKS_MHZ, CLOCKS_MHZ]);
    arbitration.grant({ leaseId: A, epoch: 5, holder: 'h', ttlMs: 3000, devices: [0] }, 0);
    arbitration.putTargets({ ...lower(7), targets: [{ devices: [0], clockMhz: 1005, holdMs: 60_000 }] }, 0);
    expect(arbitration.putTargets(request, 2000)).toEqual(outcome);
    expect(arbitration.target(0, 2000)).toBe(1005);
    expect(arbitration.expire(3000)).toEqual([A]);
  });
});

test('an empty list of targets renews the lease', () => {
  const arbitration = createArbitration([CLOCKS_MHZ]);
  arbitration.grant({ leaseId: A, epoch: 1, holder: 'h', ttlMs: 3000, devices: [0] }, 0);
  expect(arbitration.putTargets({ leaseId: A, epoch: 1, seq: 0, targets: [] }, 2999)).toEqual({ kind: 'accepted', ttlMs: 3000, accepted: [] });
  expect(arbitration.expire(5998)).toEqual([]);
  expect(arbitration.expire(5999)).toEqual([A]);
});

test('leases are bounded', () => {
  const arbitration = createArbitration([CLOCKS_MHZ]);
  const grant = (number: number) => arbitration.grant({ leaseId: `l${number}` as LeaseId, epoch: number, holder: 'h', ttlMs: 3000, devices: [0] }, 0);
  for (let number = 0; number < LEASES_MAX; number++) expect(grant(number)).toBe('granted');
  expect(grant(LEASES_MAX)).toBe('too-many-leases');
});

type Step =
  | { readonly kind: 'grant'; readonly lease: number; readonly ttlMs: number; readonly devices: readonly number[] }
  | { readonly kind: 'put'; readonly lease: number; readonly devices: readonly number[]; readonly clockMhz: number | null; readonly holdMs: number }
  | { readonly kind: 'end'; readonly lease: number }
  | { readonly kind: 'wait'; readonly forMs: number };

const lease = fc.nat(3);
const devices = fc.uniqueArray(fc.nat(2), { minLength: 1 });
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('grant' as const), lease, ttlMs: fc.integer({ min: 100, max: 2000 }), devices }),
  fc.record({ kind: fc.constant('put' as const), lease, devices, clockMhz: fc.option(fc.integer({ min: 1, max: 2500 })), holdMs: fc.integer({ min: 1, max: 2000 }) }),
  fc.record({ kind: fc.constant('end' as const), lease }),
  fc.record({ kind: fc.constant('wait' as const), forMs: fc.integer({ min: 1, max: 700 }) }),
);

/** Says the same as the arbitration by looking through all that was ever accepted. */
interface Remembered {
  readonly devices: readonly number[];
  endsAtMs: number;
  readonly ttlMs: number;
  readonly puts: { readonly devices: readonly number[]; readonly clockMhz: number | null; readonly untilMs: number }[];
}
function expectedMhz(leases: readonly Remembered[], device: number, nowMs: number): number | null {
  const wants = leases
    .filter((one) => one.endsAtMs > nowMs && one.devices.includes(device))
    .map(({ puts }) => puts.findLast((put) => put.devices.includes(device)))
    .map((put) => (put === undefined || put.clockMhz === null || put.untilMs <= nowMs ? Infinity : fit(CLOCKS_MHZ, put.clockMhz).clockMhz));
  const fastestMhz = Math.max(-Infinity, ...wants);
  return fastestMhz >= 1980 || fastestMhz === -Infinity ? null : fastestMhz;
}

function follow(steps: readonly Step[], check: (arbitration: Arbitration, leases: readonly Remembered[], nowMs: number) => void): void {
  const arbitration = createArbitration([CLOCKS_MHZ, CLOCKS_MHZ, CLOCKS_MHZ]);
  const leases = new Map<LeaseId, Remembered>();
  let nowMs = 0;
  let seq = 0;
  for (const one of steps) {
    const leaseId = 'lease' in one ? (`l${one.lease}` as LeaseId) : A;
    for (const expired of arbitration.expire(nowMs)) leases.delete(expired);
    if (one.kind === 'wait') nowMs += one.forMs;
    else if (one.kind === 'end') {
      arbitration.end(leaseId);
      leases.delete(leaseId);
    } else if (one.kind === 'grant' && !leases.has(leaseId)) {
      arbitration.grant({ leaseId, epoch: 1, holder: 'h', ttlMs: one.ttlMs, devices: one.devices }, nowMs);
      leases.set(leaseId, { devices: one.devices, ttlMs: one.ttlMs, endsAtMs: nowMs + one.ttlMs, puts: [] });
    } else if (one.kind === 'put') {
      const outcome = arbitration.putTargets({ leaseId, epoch: 1, seq: seq++, targets: [one] }, nowMs);
      const remembered = leases.get(leaseId);
      if (outcome.kind === 'accepted' && remembered !== undefined) {
        remembered.endsAtMs = nowMs + remembered.ttlMs;
        remembered.puts.push({ devices: one.devices, clockMhz: one.clockMhz, untilMs: nowMs + one.holdMs });
      }
    }
    check(arbitration, [...leases.values()], nowMs);
  }
}

describe('whatever is granted, put, ended and waited for', () => {
  const steps = fc.array(step, { maxLength: 60 });

  test('every device has the fastest of what its live leases want', () => {
    fc.assert(
      fc.property(steps, (steps) =>
        follow(steps, (arbitration, leases, nowMs) => {
          for (const device of [0, 1, 2]) expect(arbitration.target(device, nowMs)).toBe(expectedMhz(leases, device, nowMs));
        }),
      ),
    );
  });

  test('no target changes before the announced instant, and all are at default once nobody speaks any more', () => {
    const targets = (arbitration: Arbitration, nowMs: number) => [0, 1, 2].map((device) => arbitration.target(device, nowMs));
    fc.assert(
      fc.property(steps, fc.double({ min: 0, max: 1, noNaN: true }), (steps, share) =>
        follow(steps, (arbitration, _, nowMs) => {
          const untilMs = Math.min(arbitration.nextChangeAtMs(nowMs), nowMs + 5000);
          if (untilMs > nowMs) expect(targets(arbitration, nowMs + share * 0.999 * (untilMs - nowMs))).toEqual(targets(arbitration, nowMs));
          expect(targets(arbitration, nowMs + 2000)).toEqual([null, null, null]);
        }),
      ),
    );
  });
});
