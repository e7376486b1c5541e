// What the stand-in is asked and what it says "no" with: bodies checked field by field, refusals as problem+json
// (RFC 9457) of the same types as the native agent's.
import { z } from 'zod';

export interface Answer {
  readonly status: number;
  readonly contentType: string;
  /** `null`: no body. */
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

const PROBLEMS = {
  'bad-request': { status: 400, title: 'The request is not well formed' },
  'body-too-large': { status: 413, title: 'The body is too large' },
  'unknown-device': { status: 404, title: 'There is no such device' },
  'unknown-lease': { status: 404, title: 'There is no such lease, or it has ended' },
  'unknown-path': { status: 404, title: 'There is no such path' },
  'wrong-method': { status: 405, title: 'The path does not know this method' },
  'stale-epoch': { status: 412, title: "The epoch is not this lease's" },
  'stale-seq': { status: 412, title: 'A later request was here first' },
  'too-many-leases': { status: 429, title: 'There are too many leases' },
  'shutting-down': { status: 503, title: 'The agent is shutting down' },
} as const;

/** Longer values are not said back. */
const GIVEN_CHARACTERS_MAX = 200;

export function json(body: unknown): Answer {
  return { status: 200, contentType: 'application/json', body };
}

export function problem(kind: keyof typeof PROBLEMS, detail: string, at: { readonly field?: string; readonly given?: unknown; readonly allowed?: unknown } = {}): Answer {
  const { status, title } = PROBLEMS[kind];
  const given = (JSON.stringify(at.given) ?? '').length > GIVEN_CHARACTERS_MAX ? undefined : at.given;
  return { status, contentType: 'application/problem+json', body: { type: `urn:paceline:problem:${kind}`, title, status, detail, ...at, given } };
}

/** The native agent's bounds. */
const LEASE_DEVICES_MAX = 64;
const CLOCK_MHZ_MAX = 100_000;
const HOLD_MS_MAX = 60_000;
const TTL_MS = { min: 100, max: 60_000, default: 3_000 };

const count = z.int().min(0);
const deviceIds = z.array(z.string()).min(1).max(LEASE_DEVICES_MAX);
const eachOnce = (devices: readonly string[]): boolean => new Set(devices).size === devices.length;

export const leaseRequest = z.strictObject({
  holder: z.string().regex(/^[A-Za-z0-9._:-]{1,64}$/, 'wanted 1 to 64 of A-Z a-z 0-9 . _ : -'),
  devices: deviceIds.refine(eachOnce, 'wanted every device once'),
  // Power limits are the native agent's.
  controls: z.array(z.literal('clock')).min(1).max(1).optional(),
  ttl_ms: z.int().min(TTL_MS.min).max(TTL_MS.max).default(TTL_MS.default),
});

const target = z
  .strictObject({
    devices: deviceIds,
    // It must be said: a forgotten clock is not a wish for default clocks.
    clock_mhz: z.int().min(1).max(CLOCK_MHZ_MAX).nullable(),
    hold_ms: z.int().min(1).max(HOLD_MS_MAX).optional(),
  })
  .refine(({ clock_mhz: clockMhz, hold_ms: holdMs }) => clockMhz === null || holdMs !== undefined, { path: ['hold_ms'], message: `wanted 1 to ${HOLD_MS_MAX}, because every slow-down must lapse by itself` });

export const targetsRequest = z.strictObject({
  epoch: count,
  seq: count,
  targets: z
    .array(target)
    .max(LEASE_DEVICES_MAX)
    .refine((targets) => eachOnce(targets.flatMap(({ devices }) => devices)), 'wanted every device once'),
});

/** The body as the shape says, or the refusal that names the field. */
export function readShape<Shape extends z.ZodType>(shape: Shape, text: string): { readonly kind: 'read'; readonly value: z.output<Shape> } | { readonly kind: 'refused'; readonly answer: Answer } {
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch (error) {
    return { kind: 'refused', answer: problem('bad-request', `the body is not JSON: ${(error as Error).message}`) };
  }
  const parsed = shape.safeParse(given, { reportInput: true });
  if (parsed.success) return { kind: 'read', value: parsed.data };
  const [issue] = parsed.error.issues;
  const field = (issue?.path ?? []).reduce<string>((path, step) => (typeof step === 'number' ? `${path}[${step}]` : path === '' ? String(step) : `${path}.${String(step)}`), '');
  const detail = `${field === '' ? 'the body' : field}: ${issue?.message ?? 'not understood'}`;
  return { kind: 'refused', answer: problem('bad-request', detail, { ...(field === '' ? {} : { field }), ...(issue?.input === undefined ? {} : { given: issue.input }) }) };
}
