// What a comparison leaves behind: every turn with what was measured in it. All that a report says is computed from this file, so that
// the same file gives the same report, byte for byte, on any machine. Pure.
import { z } from 'zod';

export const COMPARISON_FORMAT = 'paceline-comparison/1';

/** Latencies kept of a turn; of more, so many in even steps of their order. */
export const LATENCIES_MAX = 20_000;
/** Turns of all rounds: a thousand rounds of two arms are a week. */
export const TURNS_MAX = 6_000;

const count = z.int().min(0);
const latencies = z.array(z.number()).max(LATENCIES_MAX);
const name = z.string().min(1).max(80);

const turnSchema = z.strictObject({
  round: count,
  arm: name,
  /** Since the comparison began. */
  startedAtS: z.number(),
  seed: z.number(),
  promptSalt: z.number(),
  /** Cut short: it is told, and counts for nothing. */
  interrupted: z.boolean(),
  requests: count,
  completed: count,
  failed: count,
  rejected: count,
  unfinished: count,
  /** Completed and within every objective of their class. */
  met: count,
  byClass: z.record(z.string(), z.strictObject({ requests: count, met: count })),
  missed: z.strictObject({ ttftMs: count, tpotMs: count, e2eMs: count }),
  failures: z.record(z.string(), count),
  promptTokens: count,
  cachedTokens: count,
  outputTokens: count,
  /** Of completed requests, ascending, to a hundredth. */
  ttftMs: latencies,
  tpotMs: latencies,
  e2eMs: latencies,
  sendLatenessP99Ms: z.number().nullable(),
  /** Until the last answer ended. */
  durationS: z.number(),
  /** Over which energy was measured; the same in all turns. */
  windowS: z.number(),
  /** `null`: there is no meter. */
  energy: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('measured'), energyJ: z.number().min(0), how: z.enum(['counter', 'integrated']) }),
    z.strictObject({ kind: z.literal('unknown'), why: z.string() }),
  ]).nullable(),
  power: z.strictObject({ everyS: z.number().positive(), meanW: z.array(z.number().nullable()).max(10_000), tickS: z.number().min(0) }),
  notes: z.array(z.string()),
});

const comparisonSchema = z.strictObject({
  format: z.literal(COMPARISON_FORMAT),
  startedAt: z.string(),
  command: z.string().nullable(),
  /** The first is what the others are compared to. */
  arms: z.array(z.strictObject({ name, target: z.string(), model: z.string() })).min(2),
  meters: z.array(z.strictObject({ arm: name.nullable(), kind: z.enum(['agent', 'zeusd', 'dcgm']), devices: z.array(z.string()) })),
  load: z.strictObject({
    workload: z.string(),
    seed: z.number(),
    rounds: count,
    /** Of each turn, all seconds. */
    restS: z.number(),
    warmUpS: z.number(),
    loadS: z.number(),
    tailS: z.number(),
    endpoint: z.string(),
    lengths: z.string(),
    classes: z.array(z.strictObject({ name: z.string(), share: z.number(), ttftMs: z.number().optional(), tpotMs: z.number().optional(), e2eMs: z.number().optional() })),
  }),
  /** In the order in which they were. */
  turns: z.array(turnSchema).max(TURNS_MAX),
  end: z.discriminatedUnion('kind', [z.strictObject({ kind: z.literal('complete') }), z.strictObject({ kind: z.literal('interrupted') }), z.strictObject({ kind: z.literal('failed'), why: z.string() })]),
});

export type Comparison = Readonly<z.infer<typeof comparisonSchema>>;
export type Turn = Readonly<z.infer<typeof turnSchema>>;

/** Not a comparison, or of another version; says where. */
export class ComparisonFileError extends Error {
  override name = 'ComparisonFileError';
}

/** Throws `ComparisonFileError`; `file` is for its message. */
export function readComparison(text: string, file: string): Comparison {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ComparisonFileError(`${file}: not JSON (${cause instanceof Error ? cause.message : String(cause)})`, { cause });
  }
  const format = typeof value === 'object' && value !== null && 'format' in value ? value.format : undefined;
  if (format !== COMPARISON_FORMAT) {
    throw new ComparisonFileError(`${file}: format: got ${JSON.stringify(format) ?? 'none'}, want "${COMPARISON_FORMAT}", as paceline bench --compare … --out writes it`);
  }
  const parsed = comparisonSchema.safeParse(value);
  if (parsed.success) {
    const stranger = parsed.data.turns.find(({ arm }) => !parsed.data.arms.some((known) => known.name === arm));
    if (stranger !== undefined) throw new ComparisonFileError(`${file}: turns: got the arm '${stranger.arm}', there are: ${parsed.data.arms.map((arm) => arm.name).join(', ')}`);
    return parsed.data;
  }
  const [issue] = parsed.error.issues;
  throw new ComparisonFileError(`${file}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not a comparison'}`);
}

/** Ascending, to a hundredth of a millisecond; of too many, as many in even steps as are kept. */
export function keptLatencies(values: readonly number[]): number[] {
  const sorted = values.map((value) => Math.round(value * 100) / 100).toSorted((one, other) => one - other);
  if (sorted.length <= LATENCIES_MAX) return sorted;
  return Array.from({ length: LATENCIES_MAX }, (_, index) => sorted[Math.round((index * (sorted.length - 1)) / (LATENCIES_MAX - 1))] as number);
}
