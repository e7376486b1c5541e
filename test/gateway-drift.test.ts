import { afterEach, expect, test } from 'vitest';
import type { ReplicaId } from '../src/core/job.ts';
import { createDriftWatch, type DriftWatch } from '../src/gateway-drift.ts';
import type { FleetSnapshot } from '../src/scheduler/scheduler.ts';
import { eventually } from './fixtures/gateway-under-test.ts';

type Drift = FleetSnapshot['replicas'][number]['drift'];
let watch: DriftWatch | null = null;
afterEach(() => watch?.close());

function watching(): { lines: string[]; looks: () => number; set: (drift: Drift | 'gone') => void } {
  let drift: Drift | 'gone' = undefined;
  let looks = 0;
  const lines: string[] = [];
  const snapshot = (): Pick<FleetSnapshot, 'replicas'> => {
    looks += 1;
    if (drift === 'gone') return { replicas: [] };
    return { replicas: [{ replicaId: 'r0' as ReplicaId, state: 'up', breaker: 'closed', room: 1, controlled: true, pointId: null, why: { binding: 'idle' }, waitingPrompts: 0, runningStreams: 0, stepTimeResidual: 1, ...(drift === undefined ? {} : { drift }) }] };
  };
  watch = createDriftWatch({ snapshot, warn: (line) => lines.push(`warn ${line}`), inform: (line) => lines.push(`info ${line}`), everyMs: 5, unixMs: () => 3_600_000 });
  return { lines, looks: () => looks, set: (next) => (drift = next) };
}

async function looked({ looks }: { looks: () => number }): Promise<void> {
  const before = looks();
  await eventually(() => looks() > before + 6);
}

test('a replica that leaves its profile is told of once, with what to do, and once when it is back', async () => {
  const seen = watching();
  await looked(seen);
  expect(seen.lines).toEqual([]);
  seen.set({ decode: { ratio: 1.234, forMs: 60_000 } });
  await looked(seen);
  seen.set({ decode: { ratio: 1.3, forMs: 90_000 } });
  await looked(seen);
  expect(seen.lines).toEqual(['warn replica r0 decodes 23 % slower than its profile since 1970-01-01T00:59:00.000Z: plans are corrected, but its profile should be measured anew: run paceline profile']);
  seen.set(undefined);
  await looked(seen);
  expect(seen.lines.slice(1)).toEqual(['info replica r0 is back at its profile: decode']);
});

test('one that has been taken out is not said to be back', async () => {
  const seen = watching();
  seen.set({ prefill: { ratio: 0.7, forMs: 0 } });
  await looked(seen);
  seen.set('gone');
  await looked(seen);
  expect(seen.lines).toEqual([expect.stringMatching(/^warn replica r0 prefills 30 % faster than its profile/)]);
});
