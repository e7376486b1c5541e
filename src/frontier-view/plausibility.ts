// What a profile says that hardware hardly does, though its shape is right: measurements that went wrong look like this. None of it
// keeps a profile from being used; a person should look.
import type { PerformanceModel } from '../frontier/performance-model.ts';
import type { OperatingPoint, Phase } from '../frontier/profile.ts';

export interface Doubt {
  readonly where: string;
  readonly what: string;
}

/** A fit that is further off than this on the mean of its own rows is no description of them. */
const FIT_ERROR_PCT_MAX = 10;
/** Rows of one phase that are further off than this, each. */
const ROW_ERROR_PCT_MAX = 30;
/** A clock that was not held: the device ran slower than the point says. */
const CLOCK_SHORT_PCT_MAX = 3;
/** Slower points may be noise faster. */
const NOISE = 1.03;
/** A list of a thousand like doubts helps nobody. */
const DOUBTS_MAX = 40;

/** Ascending by place; at most `DOUBTS_MAX`, the last then says how many more there are. */
export function doubtsOf(model: PerformanceModel): Doubt[] {
  const doubts = [...fitDoubts(model), ...rowDoubts(model), ...orderDoubts(model), ...rangeDoubts(model)];
  return doubts.length <= DOUBTS_MAX ? doubts : [...doubts.slice(0, DOUBTS_MAX), { where: '…', what: `and ${doubts.length - DOUBTS_MAX} more` }];
}

function fitDoubts({ fitError }: PerformanceModel): Doubt[] {
  return (['prefill', 'decode'] as const).flatMap((phase) =>
    (['time', 'energy'] as const).flatMap((what) => {
      const pct = fitError[phase][`${what}Pct`];
      return pct <= FIT_ERROR_PCT_MAX ? [] : [{ where: phase, what: `the fit of ${what} is off by ${pct.toFixed(1)} % of its own rows on the mean, want at most ${FIT_ERROR_PCT_MAX} %: measured under other load, or too few works` }];
    }),
  );
}

function rowDoubts(model: PerformanceModel): Doubt[] {
  const place = new Map(model.points.map(({ id }, index) => [id, index]));
  const of = (phase: Phase, index: number, modelled: number, measured: number): Doubt[] => {
    const pct = (100 * Math.abs(modelled - measured)) / measured;
    return pct <= ROW_ERROR_PCT_MAX ? [] : [{ where: `${phase}[${index}]`, what: `took ${measured} ms where the other rows of its point let ${modelled.toPrecision(3)} ms expect` }];
  };
  return [
    ...model.profile.prefill.flatMap((row, index) => of('prefill', index, model.prefillTimeMs(row, place.get(row.point) ?? 0), row.timeMs)),
    ...model.profile.decode.flatMap((row, index) => of('decode', index, model.decodeTimeMs(row, place.get(row.point) ?? 0), row.timeMs)),
  ];
}

/** Of points whose only knob is a number: more of it is not slower, and does not draw less. */
function orderDoubts(model: PerformanceModel): Doubt[] {
  const [knob, ...others] = Object.keys(model.profile.knobs);
  if (knob === undefined || others.length > 0) return [];
  const ordered = model.points.map((point, index) => ({ point, index, value: point.knobs[knob] })).filter((one): one is { point: OperatingPoint; index: number; value: number } => typeof one.value === 'number').toSorted((a, b) => a.value - b.value);
  const { prompt, step } = typical(model);
  return ordered.slice(1).flatMap(({ point, index, value }, before) => {
    const lower = ordered[before] as (typeof ordered)[number];
    const doubts: Doubt[] = [];
    const where = `points "${lower.point.id}" and "${point.id}"`;
    const [promptMs, promptLowerMs] = [model.prefillTimeMs(prompt, index), model.prefillTimeMs(prompt, lower.index)];
    const [stepMs, stepLowerMs] = [model.decodeTimeMs(step, index), model.decodeTimeMs(step, lower.index)];
    if (promptMs > NOISE * promptLowerMs) doubts.push({ where, what: `prefill of ${prompt.tokens} tokens takes ${promptMs.toPrecision(3)} ms at ${knob} ${value} and ${promptLowerMs.toPrecision(3)} ms at ${lower.value}: more should not be slower` });
    if (stepMs > NOISE * stepLowerMs) doubts.push({ where, what: `a decode step takes ${stepMs.toPrecision(3)} ms at ${knob} ${value} and ${stepLowerMs.toPrecision(3)} ms at ${lower.value}: more should not be slower` });
    if (point.idlePowerW * NOISE < lower.point.idlePowerW) doubts.push({ where, what: `idle it draws ${point.idlePowerW} W at ${knob} ${value} and ${lower.point.idlePowerW} W at ${lower.value}: more should not draw less` });
    return doubts;
  });
}

function typical({ profile }: PerformanceModel) {
  return { prompt: { tokens: Math.min(1024, profile.serving.maxBatchTokens), contextTokens: 0 }, step: { sequences: Math.min(16, profile.serving.maxSequences), contextTokens: 16_384 } };
}

/** What the device did by itself while it was measured, a line for each phase and point: no fault of the profile, and good to know of. */
export function notesOf({ profile }: PerformanceModel): Doubt[] {
  const clocks = new Map(profile.points.map(({ id, knobs }) => [id, knobs['clockMhz']]));
  return (['prefill', 'decode'] as const).flatMap((phase) =>
    profile.points.flatMap(({ id }): Doubt[] => {
      const rows = profile[phase].filter((row) => row.point === id);
      const throttled = rows.filter((row) => (row.hardware?.throttleReasons ?? []).length > 0);
      const clockMhz = clocks.get(id);
      const slowestMhz = Math.min(...rows.map((row) => row.hardware?.actualClockMhz ?? Number.POSITIVE_INFINITY));
      const short = typeof clockMhz === 'number' && slowestMhz < clockMhz * (1 - CLOCK_SHORT_PCT_MAX / 100);
      if (throttled.length === 0 && !short) return [];
      const reasons = [...new Set(throttled.flatMap((row) => row.hardware?.throttleReasons ?? []))].join(', ');
      const parts = [throttled.length === 0 ? '' : `${throttled.length} of ${rows.length} rows were throttled (${reasons})`, short ? `it ran at ${slowestMhz} MHz at the slowest` : ''];
      return [{ where: `${phase} at "${id}"`, what: parts.filter((part) => part !== '').join('; ') }];
    }),
  );
}

/** Times are linear, so what lies far outside of the rows is guessed. */
function rangeDoubts({ profile }: PerformanceModel): Doubt[] {
  const { maxBatchTokens, maxSequences } = profile.serving;
  const tokens = Math.max(0, ...profile.prefill.map((row) => row.tokens));
  const sequences = Math.max(0, ...profile.decode.map((row) => row.sequences));
  return [
    ...(tokens * 4 < maxBatchTokens ? [{ where: 'prefill', what: `the longest chunk measured has ${tokens} tokens, and the engine takes ${maxBatchTokens}: what is beyond is guessed` }] : []),
    ...(sequences * 4 < maxSequences ? [{ where: 'decode', what: `the largest batch measured has ${sequences} sequences, and the engine takes ${maxSequences}: what is beyond is guessed` }] : []),
  ];
}
