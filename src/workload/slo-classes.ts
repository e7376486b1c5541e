// SLO classes of a run: which objectives its requests carry, and which share of them. Who gets which is drawn from the seed.
import { z } from 'zod';
import type { Slo } from '../core/job.ts';
import { SLO_CLASSES_MAX } from './limits.ts';
import { createRandom } from '../random/random.ts';
import { WorkloadError, quoted } from './workload-error.ts';

export interface SloClass {
  readonly name: string;
  /** Of all requests; the shares of a file sum to 1. */
  readonly share: number;
  readonly slo: Slo;
  /** What meeting them counts for, relative to other classes; default 1. */
  readonly worth?: number;
}

/** What a run without an SLO file uses: nothing is promised, so every completed request meets. */
export const BEST_EFFORT: readonly [SloClass] = [{ name: 'best-effort', share: 1, slo: {} }];

const SHARE_SUM_TOLERANCE = 1e-6;

const ms = z.number().positive().max(86_400_000);
const File = z.strictObject({
  classes: z
    .array(
      z.strictObject({
        name: z.string().regex(/^[A-Za-z0-9._-]{1,64}$/, 'want 1 to 64 of A-Z a-z 0-9 . _ -'),
        share: z.number().positive().max(1),
        ttftMs: ms.optional(),
        tpotMs: ms.optional(),
        e2eMs: ms.optional(),
        worth: z.number().min(0.01).max(1_000).optional(),
      }),
    )
    .min(1)
    .max(SLO_CLASSES_MAX),
});

/** From the JSON text of an SLO file, `{"classes":[{"name":"chat","share":1,"ttftMs":1000,"tpotMs":60}]}`; `file` is for messages. */
export function readSloClasses(text: string, file: string): readonly SloClass[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new WorkloadError(`${file}: not JSON (${cause instanceof Error ? cause.message : String(cause)})`, { cause });
  }
  const parsed = File.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new WorkloadError(`${file} ${pathName(issue?.path ?? [])}: ${issue?.message ?? 'not an SLO file'}; got ${quoted(JSON.stringify(valueAt(value, issue?.path ?? [])) ?? 'nothing')}`);
  }
  const classes = parsed.data.classes.map(({ name, share, ttftMs, tpotMs, e2eMs, worth }) => ({
    name,
    share,
    ...(worth === undefined ? {} : { worth }),
    slo: { ...(ttftMs === undefined ? {} : { ttftMs }), ...(tpotMs === undefined ? {} : { tpotMs }), ...(e2eMs === undefined ? {} : { e2eMs }) },
  }));
  const twice = classes.find(({ name }, index) => classes.findIndex((other) => other.name === name) !== index);
  if (twice !== undefined) throw new WorkloadError(`${file}: class '${twice.name}' stands twice; names must differ`);
  const sum = classes.reduce((total, { share }) => total + share, 0);
  if (Math.abs(sum - 1) > SHARE_SUM_TOLERANCE) {
    throw new WorkloadError(`${file}: shares sum to ${Number(sum.toFixed(6))} (${classes.map(({ name, share }) => `${name} ${share}`).join(', ')}), want 1`);
  }
  return classes;
}

/** The class of each of `count` requests. Depends on the seed and the position alone, never on arrivals or sizes. */
export function drawClasses(classes: readonly SloClass[], count: number, seed: number): readonly SloClass[] {
  const random = createRandom(seed, 'slo-class');
  return Array.from({ length: count }, () => {
    let left = random();
    const drawn = classes.find(({ share }) => (left -= share) < 0) ?? classes.at(-1);
    if (drawn === undefined) throw new WorkloadError('no SLO classes; want at least one');
    return drawn;
  });
}

/** All limits times `factor`: below 1 is tighter. */
export function scaleSlos(classes: readonly SloClass[], factor: number): readonly SloClass[] {
  return classes.map(({ slo, ...known }) => ({ ...known, slo: Object.fromEntries(Object.entries(slo).map(([limit, limitMs]) => [limit, limitMs * factor])) }));
}

/**
 * Other shares, from `premium=0.5,chat=0.5`. Classes that are not named have what is left, in the proportions they had. A
 * class with the share 0 is gone. `name` is what messages call it.
 */
export function mixClasses(classes: readonly SloClass[], text: string, name: string): readonly SloClass[] {
  const shares = new Map<string, number>();
  for (const part of text.split(',')) {
    const [, className = '', shareText = ''] = /^\s*([^=]+?)\s*=\s*([0-9.]+)\s*$/.exec(part) ?? [];
    const share = shareText === '' ? Number.NaN : Number(shareText);
    if (!(share >= 0 && share <= 1)) throw new WorkloadError(`${name}: got ${quoted(part)}, want CLASS=SHARE with a share from 0 to 1`);
    if (!classes.some((known) => known.name === className)) throw new WorkloadError(`${name}: no class ${quoted(className)}; there are: ${classes.map((known) => known.name).join(', ')}`);
    if (shares.has(className)) throw new WorkloadError(`${name}: class ${quoted(className)} stands twice`);
    shares.set(className, share);
  }
  const named = [...shares.values()].reduce((sum, share) => sum + share, 0);
  const unnamed = classes.reduce((sum, known) => sum + (shares.has(known.name) ? 0 : known.share), 0);
  const wanted = unnamed > 0 ? 'at most 1' : '1, since they are all classes';
  if (named > 1 + SHARE_SUM_TOLERANCE || (unnamed === 0 && named < 1 - SHARE_SUM_TOLERANCE)) throw new WorkloadError(`${name}: shares sum to ${Number(named.toFixed(6))}, want ${wanted}`);
  return classes.map((known) => ({ ...known, share: shares.get(known.name) ?? (known.share / unnamed) * Math.max(0, 1 - named) })).filter(({ share }) => share > 0);
}

function pathName(path: readonly PropertyKey[]): string {
  return path.reduce<string>((name, part) => (typeof part === 'number' ? `${name}[${part}]` : name === '' ? String(part) : `${name}.${String(part)}`), '') || 'file';
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((inner, part) => (typeof inner === 'object' && inner !== null ? (inner as Record<PropertyKey, unknown>)[part] : undefined), value);
}
