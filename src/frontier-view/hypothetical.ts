// A profile of a device that nobody has measured: a measured one, made faster or thriftier by factors. For what-if questions, and it says so.
import type { OperatingPoint, Profile, Provenance } from '../frontier/profile.ts';

/** What each figure of the measured profile is multiplied by. */
export interface ScaleFactors {
  /** Times of prefill and decode. Below 1: faster. */
  readonly time: number;
  /** Power while busy, so that energies change by `time` times this. */
  readonly power: number;
  /** Power while idle, and that of sleeping and waking. */
  readonly idlePower: number;
}

/** Digits that are kept: more than any measurement has. */
const DIGITS = 6;

/**
 * The profile of the same model on a device that is to `profile`'s as the factors say, at points of the same names. What is not of the device's
 * speed and power stays: launch overhead (it is the host's), the latency of switching, memory and batch limits, times to sleep and wake. What was seen while measuring
 * (`hardware`) is left out, for nothing was. That the result can be right (`profileProblems`) is for the caller to check.
 */
export function scaleProfile(profile: Profile, { time, power, idlePower }: ScaleFactors, name: string): Profile {
  const { sleep, prefill, decode, points, deviceGroup } = profile;
  return {
    ...profile,
    name,
    deviceGroup: { ...deviceGroup, device: `${name} (hypothetical)` },
    points: points.map((point): OperatingPoint => ({ ...point, idlePowerW: rounded(point.idlePowerW * idlePower) })),
    prefill: prefill.map(({ tokens, contextTokens, point, timeMs, energyJ }) => ({ tokens, contextTokens, point, timeMs: rounded(timeMs * time), energyJ: rounded(energyJ * time * power) })),
    decode: decode.map(({ sequences, contextTokens, point, timeMs, energyJ }) => ({ sequences, contextTokens, point, timeMs: rounded(timeMs * time), energyJ: rounded(energyJ * time * power) })),
    ...(sleep === undefined ? {} : { sleep: { ...sleep, powerW: rounded(sleep.powerW * idlePower), ...(sleep.wakeEnergyJ === undefined ? {} : { wakeEnergyJ: rounded(sleep.wakeEnergyJ * idlePower) }) } }),
    provenance: provenanceOf(profile, { time, power, idlePower }),
  };
}

function provenanceOf({ name, provenance }: Profile, { time, power, idlePower }: ScaleFactors): Provenance {
  const factors = `times × ${time}, power × ${power} (energies × ${rounded(time * power)}), idle power × ${idlePower}`;
  return {
    ...provenance,
    measuredBy: 'Nobody: this device is hypothetical.',
    measuredOn: `No device: the profile ${name} with ${factors}.`,
    measuredAt: 'never',
    method: `Every row of ${name} scaled by one factor: ${factors}. A real device would differ by more where its memory, its arithmetic and its links have not become faster alike. Launch overhead, switching, batch limits and KV memory are those of ${name}, whose sources are below.`,
    madeBy: `paceline frontier scale --time ${time} --power ${power} --idle-power ${idlePower}, from ${name}`,
  };
}

function rounded(value: number): number {
  return Number(value.toPrecision(DIGITS));
}
