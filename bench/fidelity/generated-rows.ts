// Rows for where the measured table is not: what the engine itself gives at settings like the table's, from another seed.
import type { H100Degree } from '../../config/profiles/make/llama-3.1-70b.h100.ts';
import type { Physics } from '../../src/engine/physics.ts';
import type { TestPlan } from './load-test.ts';
import { expectedOutcome } from './load-test.ts';
import type { LoadTestRow } from './load-test-table.ts';

/** Requests per second and GHz that keep the group about as busy as the table's middle rows. */
const RATES_PER_GHZ: readonly (readonly [H100Degree, number])[] = [
  [2, 0.7],
  [4, 2.5],
  [8, 4.5],
];
/** The second and the fourth lie between two points of the profile. */
const CLOCKS_MHZ = [780, 1000, 1380, 1600, 1830];

export function generatedRows(physicsOf: (devices: H100Degree, clockMhz: number) => Physics, plan: TestPlan): LoadTestRow[] {
  return RATES_PER_GHZ.flatMap(([devices, ratePerGhz]) =>
    CLOCKS_MHZ.map((clockMhz): LoadTestRow => {
      const setting = { promptTokens: 1023, outputTokens: 99, clockMhz, requestsPerS: (ratePerGhz * clockMhz) / 1000 };
      const { powerW, ttftP99Ms, tpotP99Ms } = expectedOutcome(physicsOf(devices, clockMhz), setting, plan);
      return { devices, ...setting, powerW, ttftP99Ms, tpotP99Ms };
    }),
  );
}
