// A made-up profile for tests of the engine: like one H100 with an 8B model, exactly of the form the model fits.
import type { DecodeRow, OperatingPoint, PrefillRow, Profile } from '../../src/frontier/profile.ts';

const CLOCKS_MHZ = [795, 1200, 1590, 1980];

export function fixtureProfile(overrides: Partial<Pick<Profile, 'launchOverheadMs' | 'switch' | 'serving' | 'deviceGroup'>> = {}): Profile {
  const devices = overrides.deviceGroup?.devices ?? 1;
  const points: OperatingPoint[] = [];
  const prefill: PrefillRow[] = [];
  const decode: DecodeRow[] = [];
  for (const clockMhz of CLOCKS_MHZ) {
    const id = `${clockMhz}MHz`;
    const share = clockMhz / 1980;
    points.push({ id, knobs: { clockMhz }, idlePowerW: devices * (90 + 50 * share ** 2) });
    for (const tokens of [128, 512, 2048, 8192]) {
      const timeMs = 2 + (0.02 * tokens + 4e-7 * tokens * tokens) / share;
      prefill.push({ point: id, tokens, contextTokens: 0, timeMs, energyJ: (devices * (140 + 520 * share ** 2.2) * timeMs) / 1000 });
    }
    for (const sequences of [1, 8, 64, 256]) {
      for (const context of [256, 2048]) {
        const contextTokens = sequences * context;
        const timeMs = 3.5 + 1.5 / share + 0.02 * sequences + 3e-5 * contextTokens;
        const powerW = devices * (130 + (180 + 20 * Math.log2(sequences)) * share ** 1.5);
        decode.push({ point: id, sequences, contextTokens, timeMs, energyJ: (powerW * timeMs) / 1000 });
      }
    }
  }
  return {
    format: 'paceline-profile/1',
    name: 'fixture-8b',
    model: 'fixture-8b',
    engine: { name: 'emulated' },
    deviceGroup: { device: 'Emulated H100', devices: 1 },
    knobs: { clockMhz: { unit: 'MHz' } },
    points,
    prefill,
    decode,
    launchOverheadMs: 0.5,
    switch: { latencyMs: 15 },
    serving: { maxBatchTokens: 2048, maxSequences: 256, kvTokens: 400_000 },
    provenance: { measuredBy: 'nobody', measuredOn: 'nothing', measuredAt: '2026-01-01', method: 'made up for tests', sources: [], licence: 'CC0-1.0', madeBy: 'test/engine/fixture-profile.ts' },
    ...overrides,
  };
}
