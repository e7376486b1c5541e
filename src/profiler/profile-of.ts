// From measurements to a profile. Each row is a measurement: nothing is interpolated, and a clock that was only probed is no point.
import type { DecodeRow, HardwareDetail, OperatingPoint, PrefillRow, Profile, Provenance } from '../frontier/profile.ts';
import type { Measurement } from './measurement.ts';
import type { Serving } from './works.ts';

export interface ProfileFacts {
  readonly name: string;
  readonly model: string;
  readonly engine: Profile['engine'];
  readonly deviceGroup: Profile['deviceGroup'];
  readonly serving: Serving;
  readonly switch: Profile['switch'];
  readonly provenance: Provenance;
}

/**
 * Points are the clocks in `clocksMhz`, or the one that was found (`null`). Launch overhead cannot be told from the rest of an iteration, so it is in
 * the rows and is 0 beside them. `null` where energy was not measured: a profile without it would be no profile.
 */
export function profileOf(done: readonly Measurement[], clocksMhz: readonly (number | null)[], facts: ProfileFacts): Profile | null {
  const points: OperatingPoint[] = [];
  const prefill: PrefillRow[] = [];
  const decode: DecodeRow[] = [];
  for (const clockMhz of clocksMhz) {
    const here = done.filter((one) => one.clockMhz === clockMhz);
    const idle = here.find(({ work }) => work.kind === 'idle');
    const knobMhz = clockMhz ?? foundClockMhz(here);
    if (idle?.powerW == null || knobMhz === null) return null;
    const id = String(knobMhz);
    points.push({ id, knobs: { clockMhz: knobMhz }, idlePowerW: rounded(idle.powerW) });
    for (const { work, timeMs, powerW, tokens, actualClockMhz, throttleReasons } of here) {
      if (work.kind === 'idle') continue;
      if (timeMs === null || powerW === null) return null;
      const hardware = detailOf(actualClockMhz, throttleReasons);
      if (work.kind === 'decode') decode.push({ sequences: work.sequences, contextTokens: Math.round(tokens), point: id, timeMs: rounded(timeMs), energyJ: rounded((timeMs * powerW) / 1000), ...hardware });
      else prefill.push({ ...chunkOf(tokens, timeMs, powerW, facts.serving.maxBatchTokens), point: id, ...hardware });
    }
  }
  return { format: 'paceline-profile/1', name: facts.name, model: facts.model, engine: facts.engine, deviceGroup: facts.deviceGroup, knobs: { clockMhz: { unit: 'MHz', description: 'Locked SM clock.' } }, points, prefill, decode, launchOverheadMs: 0, switch: facts.switch, serving: facts.serving, provenance: facts.provenance };
}

/**
 * A prompt longer than a batch was read in chunks; one of them, with the mean context of all, takes an equal part of its time, for time is linear
 * in the context.
 */
function chunkOf(tokens: number, timeMs: number, powerW: number, maxBatchTokens: number): Omit<PrefillRow, 'point'> {
  const chunks = Math.ceil(tokens / maxBatchTokens);
  const each = timeMs / chunks;
  return { tokens: Math.round(tokens / chunks), contextTokens: Math.round(((chunks - 1) * tokens) / chunks / 2), timeMs: rounded(each), energyJ: rounded((each * powerW) / 1000) };
}

/** The clock that most of its measurements ran at. */
function foundClockMhz(done: readonly Measurement[]): number | null {
  const clocks = done.flatMap(({ actualClockMhz }) => (actualClockMhz === null ? [] : [actualClockMhz])).toSorted((a, b) => a - b);
  return clocks.length === 0 ? null : Math.round(clocks[clocks.length >> 1] as number);
}

function detailOf(actualClockMhz: number | null, throttleReasons: readonly string[]): { readonly hardware?: HardwareDetail } {
  if (actualClockMhz === null && throttleReasons.length === 0) return {};
  return { hardware: { ...(actualClockMhz === null ? {} : { actualClockMhz: Math.round(actualClockMhz) }), ...(throttleReasons.length === 0 ? {} : { throttleReasons }) } };
}

function rounded(value: number): number {
  return Number(value.toPrecision(5));
}
