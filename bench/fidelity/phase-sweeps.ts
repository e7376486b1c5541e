// Mistral-7B on a V100: the curves that fitted a public sweep of the clock phase by phase, and what the shipped profile says
// at the same clocks. The curves are facts collected from that sweep; each holds within the error beside it.
import { createPhysics } from '../../src/engine/physics.ts';
import { NO_DECODE, NO_PREFILL } from '../../src/frontier/performance-model.ts';
import type { Profile } from '../../src/frontier/profile.ts';

export interface SweepCheck {
  readonly curve: string;
  /** Mean absolute percentage error of the curve against its sweep, as published with it; `null` where it is not known. */
  readonly curveErrorPct: number | null;
  readonly meanErrorPct: number;
  readonly largestErrorPct: number;
  readonly largestAtMhz: number;
}

/** Every 10 MHz of the sweep's range: most of these clocks lie between two points of the profile. */
const CLOCKS_MHZ = Array.from({ length: 56 }, (_, index) => 750 + 10 * index);
/** The sweep's batch is not stated; 4096 tokens are what the profile takes it for. */
const PREFILL = { prefill: { tokens: 4096, contextTokens: 0 }, decode: NO_DECODE };
const ONE_SEQUENCE = { prefill: NO_PREFILL, decode: { sequences: 1, contextTokens: 128 } };
const MANY_SEQUENCES = { prefill: NO_PREFILL, decode: { sequences: 64, contextTokens: 64 * 128 } };

export function checkSweeps(profile: Profile): SweepCheck[] {
  const { iterationTimeMs, iterationPowerW } = createPhysics(profile);
  const manyAtTopMs = iterationTimeMs(MANY_SEQUENCES, 1300);
  return [
    check('prefill time', 0.4, CLOCKS_MHZ, (f) => iterationTimeMs(PREFILL, f), (f) => 31.6 + 1_993_000 / f),
    check('prefill power', 0.8, CLOCKS_MHZ, (f) => iterationPowerW(PREFILL, f), (f) => 83 + 117 * (f / 1300) ** 3.9),
    // The sweep gives the band 25.5 to 26.5 ms above 850 MHz; its middle stands for it.
    check('decode time, 1 sequence, flat', null, CLOCKS_MHZ.filter((f) => f > 850), (f) => iterationTimeMs(ONE_SEQUENCE, f), () => 26),
    check('decode time, 1 sequence, knee', null, [750, 800], (f) => iterationTimeMs(ONE_SEQUENCE, f), (f) => (f === 750 ? 34.2 : 28.9)),
    check('decode power, 1 sequence', 2, CLOCKS_MHZ, (f) => iterationPowerW(ONE_SEQUENCE, f), (f) => 57 + 63 * (f / 1300) ** 1.5),
    check('decode time, 64 sequences, relative', null, CLOCKS_MHZ, (f) => iterationTimeMs(MANY_SEQUENCES, f) / manyAtTopMs, (f) => (f / 1300) ** -0.98),
    check('decode power, 64 sequences', 0.4, CLOCKS_MHZ, (f) => iterationPowerW(MANY_SEQUENCES, f), (f) => 71 + 84 * (f / 1200) ** 3.5),
  ];
}

function check(curve: string, curveErrorPct: number | null, clocksMhz: readonly number[], ours: (clockMhz: number) => number, theirs: (clockMhz: number) => number): SweepCheck {
  const errorsPct = clocksMhz.map((clockMhz) => 100 * Math.abs(ours(clockMhz) / theirs(clockMhz) - 1));
  const largestErrorPct = Math.max(...errorsPct);
  return {
    curve,
    curveErrorPct,
    meanErrorPct: errorsPct.reduce((sum, error) => sum + error, 0) / errorsPct.length,
    largestErrorPct,
    largestAtMhz: clocksMhz[errorsPct.indexOf(largestErrorPct)] as number,
  };
}
