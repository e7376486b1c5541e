// A profile on disk: its shape, and every reason to refuse one. Nothing here fits or decides; that is `frontier/`.
import { readFileSync, statSync } from 'node:fs';
import { z } from 'zod';
import type { Phase, Profile } from './frontier/profile.ts';

/** What a file may weigh. The largest sweep thinkable (120 clocks × 200 works × 2 phases) is about 6 MB of JSON. */
export const PROFILE_BYTES_MAX = 16 * 1024 * 1024;
/** An H100 has 118 clocks; the planner looks at every point of a group several times a second. */
export const POINTS_MAX = 512;
/** Per phase. Fitting is linear in rows; this many still load in well under a second. */
export const ROWS_MAX = 100_000;
/** A time fit has three coefficients, so a point needs as many different works in each phase. */
export const WORKS_PER_POINT_MIN = 3;
/** Busy and idle power come from different measurements: this much above the least busy power still passes as noise. */
const IDLE_OVER_BUSY_MAX = 1.25;
/** No accelerator draws this much, so energies were written in another unit (mJ) or times were (s). */
const DEVICE_POWER_W_MAX = 10_000;
/** A list of ten thousand like problems helps nobody; the rest are counted. */
const PROBLEMS_SHOWN_MAX = 25;
/** A value seen is shown up to here. */
const SHOWN_CHARACTERS_MAX = 60;

/** The file or text is no usable profile. The message lists each problem on its own line, with its place. */
export class ProfileFileError extends Error {
  override name = 'ProfileFileError';
  readonly problems: readonly string[];
  constructor(problems: readonly string[], options?: ErrorOptions) {
    const hidden = problems.length - PROBLEMS_SHOWN_MAX;
    super([...problems.slice(0, PROBLEMS_SHOWN_MAX), ...(hidden > 0 ? [`… and ${hidden} more`] : [])].join('\n'), options);
    this.problems = problems;
  }
}

/** Reads and checks one profile. Throws `ProfileFileError`, also when the file cannot be read. */
export function loadProfile(path: string): Profile {
  let text: string;
  try {
    const { size } = statSync(path);
    if (size > PROFILE_BYTES_MAX) throw new ProfileFileError([`${path}: got ${size} bytes, a profile may have ${PROFILE_BYTES_MAX}`]);
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof ProfileFileError) throw error;
    throw new ProfileFileError([`${path}: cannot be read: ${messageOf(error)}`], { cause: error });
  }
  return parseProfile(text, path);
}

/** A profile from JSON text, or from the value it holds; `where` starts every message. Throws `ProfileFileError` and nothing else. */
export function parseProfile(source: unknown, where: string): Profile {
  let value = source;
  if (typeof source === 'string') {
    try {
      value = JSON.parse(source);
    } catch (error) {
      throw new ProfileFileError([`${where}: is not JSON: ${messageOf(error)}`], { cause: error });
    }
  }
  const shaped = profileSchema.safeParse(value);
  const problems = shaped.success ? profileProblems(shaped.data) : shaped.error.issues.map((issue) => shapeProblem(issue, value));
  if (!shaped.success || problems.length > 0) throw new ProfileFileError(problems.map((problem) => `${where}: ${problem}`));
  return shaped.data;
}

/** What is wrong with a profile of the right shape, each with its place; empty when it can be fitted. */
export function profileProblems(profile: Profile): string[] {
  return [...pointProblems(profile), ...rowProblems(profile, 'prefill'), ...rowProblems(profile, 'decode'), ...limitProblems(profile), ...sleepProblems(profile)];
}

// Ids and knob names end up as map keys, metric labels and file names: letters, digits and a little punctuation.
const idSchema = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}$/, 'letters, digits and . _ : + - (at most 64)');
const knobNameSchema = z.string().regex(/^[A-Za-z][A-Za-z0-9]{0,63}$/, 'letters and digits, beginning with a letter (at most 64)');
const textSchema = z.string().min(1).max(4000);
const countSchema = z.int().min(0).max(100_000_000);
const positiveCountSchema = z.int().min(1).max(100_000_000);
const timeMsSchema = z.number().positive().max(86_400_000).describe('Milliseconds.');
const energyJSchema = z.number().positive().max(1e9).describe('Joules of the whole device group.');
const shareSchema = z.number().min(0).max(1);

const hardwareSchema = z
  .strictObject({
    actualClockMhz: z.number().positive().max(100_000).exactOptional(),
    smUtilisation: shareSchema.exactOptional(),
    dramUtilisation: shareSchema.exactOptional(),
    throttleReasons: z.array(textSchema).max(32).exactOptional(),
  })
  .describe('Detail for people to read; no decision uses it.');

const measured = { point: idSchema, timeMs: timeMsSchema, energyJ: energyJSchema, hardware: hardwareSchema.exactOptional() };
const prefillRowSchema = z.strictObject({
  tokens: positiveCountSchema.describe('New tokens of this pass.'),
  contextTokens: countSchema.describe('Tokens already in the KV cache that they attend to.'),
  ...measured,
});
const decodeRowSchema = z.strictObject({
  sequences: positiveCountSchema.describe('Streams that get one token each in this step.'),
  contextTokens: countSchema.describe('Context tokens, summed over all sequences.'),
  ...measured,
});

/** What sleeping costs; also a key of the configuration. */
export const sleepSchema = z.strictObject({
  powerW: z.number().min(0).max(1e6).describe('Watts of the whole group while its server sleeps.'),
  sleepMs: z.number().min(0).max(3_600_000).describe('Milliseconds from the call until it draws that.'),
  wakeMs: z.number().min(0).max(3_600_000).describe('Milliseconds from the call until it serves again.'),
  wakeEnergyJ: z.number().min(0).max(1e9).describe('Joules of the whole group for waking; default: idling at the fastest point meanwhile.').exactOptional(),
});

/** The shape of `paceline-profile/1`; the JSON Schema in `config/schemas/` is made from it. */
export const profileSchema: z.ZodType<Profile> = z.strictObject({
  format: z.literal('paceline-profile/1'),
  name: textSchema,
  model: textSchema,
  engine: z.strictObject({ name: textSchema, version: textSchema.exactOptional() }),
  deviceGroup: z.strictObject({ device: textSchema, devices: z.int().min(1).max(4096), parallelism: textSchema.exactOptional() }),
  knobs: z.record(knobNameSchema, z.strictObject({ unit: textSchema, description: textSchema.exactOptional(), changes: z.enum(['running', 'restart']).describe('While it serves (default), or only by a restart of its server: then points that differ in it are of different servers.').exactOptional() })),
  points: z
    .array(
      z.strictObject({
        id: idSchema,
        knobs: z.record(knobNameSchema, z.union([z.number(), textSchema])),
        idlePowerW: z.number().positive().max(1e7).describe('Watts of the whole group at this point, model loaded, nothing to do.'),
      }),
    )
    .min(1)
    .max(POINTS_MAX),
  prefill: z.array(prefillRowSchema).max(ROWS_MAX),
  decode: z.array(decodeRowSchema).max(ROWS_MAX),
  launchOverheadMs: z.number().min(0).max(1000).describe('Milliseconds added to every iteration, whatever the point is.'),
  switch: z.strictObject({
    latencyMs: z.number().min(0).max(60_000).describe("Milliseconds from the call to the new point's speed."),
    outlierMs: z.number().positive().max(60_000).describe('Latency of a slow switch, milliseconds.').exactOptional(),
    outlierShare: shareSchema.describe('Share of switches that are slow, 0 to 1.').exactOptional(),
  }),
  sleep: sleepSchema.describe('What putting its server to sleep costs and spares; without it nothing is known of that.').exactOptional(),
  serving: z
    .strictObject({ maxBatchTokens: positiveCountSchema, maxSequences: positiveCountSchema, kvTokens: positiveCountSchema })
    .describe('What the engine was started with.'),
  provenance: z.strictObject({
    measuredBy: textSchema,
    measuredOn: textSchema,
    measuredAt: textSchema,
    method: textSchema,
    sources: z.array(z.strictObject({ title: textSchema, url: textSchema, licence: textSchema, used: textSchema })).max(100),
    licence: textSchema,
    madeBy: textSchema,
  }),
});

/** The published JSON Schema. It knows the shape only; `profileProblems` knows the rest. */
export function profileJsonSchema(): Record<string, unknown> {
  return {
    $id: 'https://paceline.dev/schemas/profile.schema.json',
    title: 'Paceline profile',
    ...z.toJSONSchema(profileSchema, { target: 'draft-2020-12' }),
  };
}

function pointProblems({ points, knobs }: Profile): string[] {
  const problems: string[] = [];
  const names = Object.keys(knobs);
  if (names.length === 0) problems.push('knobs: got none, a profile needs at least one');
  const placeOfId = new Map<string, string>();
  const placeOfSetting = new Map<string, string>();
  points.forEach((point, index) => {
    const place = `points[${index}]`;
    const sameId = placeOfId.get(point.id);
    if (sameId !== undefined) problems.push(`${place}.id: got "${point.id}" again, ${sameId} has it already`);
    else placeOfId.set(point.id, place);
    for (const name of Object.keys(point.knobs)) {
      if (!Object.hasOwn(knobs, name)) problems.push(`${place}.knobs.${name}: got a knob that is not declared; knobs are ${listed(names)}`);
    }
    for (const name of names) {
      if (!Object.hasOwn(point.knobs, name)) problems.push(`${place}.knobs: got no ${name}, every point sets every knob`);
    }
    const setting = JSON.stringify(names.map((name) => (Object.hasOwn(point.knobs, name) ? point.knobs[name] : null)));
    const sameSetting = placeOfSetting.get(setting);
    if (sameSetting !== undefined && names.length > 0) problems.push(`${place}.knobs: got the same setting as ${sameSetting}`);
    else placeOfSetting.set(setting, place);
  });
  return problems;
}

function rowProblems(profile: Profile, phase: Phase): string[] {
  const problems: string[] = [];
  const worksOf = new Map(profile.points.map((point) => [point.id, new Set<string>()]));
  const leastBusyW = new Map<string, { powerW: number; place: string }>();
  const powerMaxW = DEVICE_POWER_W_MAX * profile.deviceGroup.devices;
  profile[phase].forEach((row, index) => {
    const place = `${phase}[${index}]`;
    const works = worksOf.get(row.point);
    if (works === undefined) {
      problems.push(`${place}.point: got "${row.point}", there is no such point; points are ${listed([...worksOf.keys()])}`);
      return;
    }
    works.add(`${'tokens' in row ? row.tokens : row.sequences}/${row.contextTokens}`);
    const powerW = (row.energyJ / row.timeMs) * 1000;
    if (powerW > powerMaxW) {
      problems.push(`${place}: got ${row.energyJ} J in ${row.timeMs} ms, which is ${shown(Math.round(powerW))} W; at most ${powerMaxW} W is believable (joules and milliseconds?)`);
    }
    const least = leastBusyW.get(row.point);
    if (least === undefined || powerW < least.powerW) leastBusyW.set(row.point, { powerW, place });
  });
  profile.points.forEach((point, index) => {
    const works = worksOf.get(point.id)?.size ?? 0;
    if (works < WORKS_PER_POINT_MIN) {
      problems.push(`points[${index}]: got ${works} different ${phase} works for "${point.id}", want at least ${WORKS_PER_POINT_MIN}: add rows to ${phase}`);
    }
    const least = leastBusyW.get(point.id);
    if (least !== undefined && point.idlePowerW > least.powerW * IDLE_OVER_BUSY_MAX) {
      problems.push(`points[${index}].idlePowerW: got ${point.idlePowerW}, far above the ${least.powerW.toPrecision(4)} W that ${least.place} draws when busy`);
    }
  });
  return problems;
}

function limitProblems({ serving, switch: change }: Profile): string[] {
  const problems: string[] = [];
  if (serving.maxBatchTokens < serving.maxSequences) {
    problems.push(`serving.maxBatchTokens: got ${serving.maxBatchTokens}, below maxSequences ${serving.maxSequences}: a step could not hold one token of each`);
  }
  if (serving.kvTokens < serving.maxSequences) {
    problems.push(`serving.kvTokens: got ${serving.kvTokens}, below maxSequences ${serving.maxSequences}: not one token of context for each`);
  }
  if ((change.outlierMs === undefined) !== (change.outlierShare === undefined)) problems.push('switch: got one of outlierMs and outlierShare, want both or neither');
  if (change.outlierMs !== undefined && change.outlierMs < change.latencyMs) {
    problems.push(`switch.outlierMs: got ${change.outlierMs}, below latencyMs ${change.latencyMs}`);
  }
  return problems;
}

/** A group that draws more asleep than it idles, or that takes an impossible power to wake, was measured wrong or written in other units. */
export function sleepProblems({ sleep, points, deviceGroup }: Pick<Profile, 'sleep' | 'points' | 'deviceGroup'>): string[] {
  if (sleep === undefined) return [];
  const problems: string[] = [];
  const idleW = Math.min(...points.map(({ idlePowerW }) => idlePowerW));
  if (sleep.powerW > idleW) problems.push(`sleep.powerW: got ${sleep.powerW}, above the ${shown(idleW)} W that the group idles at: nothing is spared by sleeping`);
  const { wakeEnergyJ = 0, wakeMs } = sleep;
  const powerMaxW = DEVICE_POWER_W_MAX * deviceGroup.devices;
  if (wakeEnergyJ * 1000 > powerMaxW * wakeMs) problems.push(`sleep.wakeEnergyJ: got ${wakeEnergyJ} J in ${wakeMs} ms; at most ${powerMaxW} W is believable (joules and milliseconds?)`);
  return problems;
}

/** One zod issue in our words: the place, the value seen, what was wanted. */
function shapeProblem(issue: z.core.$ZodIssue, root: unknown): string {
  const place = issue.path.reduce<string>((path, key) => (typeof key === 'number' ? `${path}[${key}]` : `${path}${path === '' ? '' : '.'}${String(key)}`), '');
  const prefix = place === '' ? '' : `${place}: `;
  if (issue.code === 'unrecognized_keys') return `${prefix}got ${issue.keys.length === 1 ? 'unknown key' : 'unknown keys'} ${listed(issue.keys)}`;
  if (issue.code === 'invalid_key') return `${prefix}got a name that is not allowed: ${issue.issues[0]?.message ?? issue.message}`;
  const seen = issue.path.reduce<unknown>((value, key) => (typeof value === 'object' && value !== null && Object.hasOwn(value, key) ? (value as Record<PropertyKey, unknown>)[key] : undefined), root);
  const wanted = issue.message.replace(/^Invalid (input|option|string): /, '').replace(/, received .*$/, '');
  return `${prefix}got ${seen === undefined ? 'nothing' : shown(seen)}: ${wanted}`;
}

function shown(value: unknown): string {
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? `a list of ${value.length}` : 'an object';
  const text = JSON.stringify(value) ?? String(value);
  return text.length > SHOWN_CHARACTERS_MAX ? `${text.slice(0, SHOWN_CHARACTERS_MAX)}…` : text;
}

function listed(names: readonly string[]): string {
  const few = names.slice(0, 12).map((name) => shown(name));
  return names.length > few.length ? `${few.join(', ')}, …` : few.join(', ') || 'none';
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
