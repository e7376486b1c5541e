// What a request may take, read from its headers, its service tier, its tenant, its model and the default, in this
// order. A value that cannot be meant is refused and never read as "no deadline".
import type { IncomingHttpHeaders } from 'node:http';
import type { Objective, SloConfig, TenantConfig } from '../config.ts';
import type { Slo } from '../core/job.ts';
import { classOfTier, KNOWN_TIERS } from './service-tier.ts';

export type SloReading =
  /** `worth`: of the class that it has, or would have but for its headers. */
  | { readonly kind: 'ok'; readonly slo: Slo; readonly sloClass: string; readonly worth: number }
  | { readonly kind: 'bad'; readonly param: string; readonly message: string };

/** A day: longer is a mistake in the unit, and far from where arithmetic on instants loses anything. */
const LIMIT_MS_MAX = 86_400_000;

interface SloHeader {
  readonly name: string;
  readonly objective: Objective;
  readonly form: 'milliseconds' | 'go-duration';
}

/**
 * Two names of one objective must agree; those of `e2eMs` say different things (an objective, what a chain of calls has
 * left, a time to live), and the least of them counts. `x-stainless-*` tell of a client's patience and are not here.
 */
const SLO_HEADERS: readonly SloHeader[] = [
  { name: 'x-slo-ttft-ms', objective: 'ttftMs', form: 'milliseconds' },
  { name: 'x-llm-d-slo-ttft-ms', objective: 'ttftMs', form: 'milliseconds' },
  { name: 'x-slo-tpot-ms', objective: 'tpotMs', form: 'milliseconds' },
  { name: 'x-llm-d-slo-tpot-ms', objective: 'tpotMs', form: 'milliseconds' },
  { name: 'x-slo-e2e-ms', objective: 'e2eMs', form: 'milliseconds' },
  { name: 'x-request-deadline-ms', objective: 'e2eMs', form: 'milliseconds' },
];
/** Only ever shortens what the others, or the class, allow. */
const TTL_HEADER: SloHeader = { name: 'x-llm-d-inference-ttl', objective: 'e2eMs', form: 'go-duration' };

/** `custom` when a header gave any objective, else the name of the class, or `best-effort` where there is none. */
export function readSlo(
  headers: IncomingHttpHeaders,
  request: { readonly model: string; readonly serviceTier: string | null },
  tenant: TenantConfig,
  config: SloConfig,
): SloReading {
  const { serviceTier, model } = request;
  if (serviceTier !== null && !KNOWN_TIERS.has(serviceTier)) {
    return { kind: 'bad', param: 'service_tier', message: `service_tier: got '${shown(serviceTier)}', allowed: ${[...KNOWN_TIERS].join(', ')}` };
  }
  const ofTier = serviceTier === null ? undefined : classOfTier(serviceTier, tenant, config);
  const className = ofTier ?? tenant.sloClass ?? own(config.models, model) ?? config.default;
  const base: Slo = (className === null ? undefined : config.classes[className]) ?? {};
  const worth = worthOf(className, config);

  const given: Partial<Record<Objective, { readonly ms: number; readonly header: string }>> = {};
  for (const header of SLO_HEADERS) {
    const raw = headers[header.name];
    if (raw === undefined) continue;
    const reading = readHeader(header, String(raw), tenant);
    if (reading.kind === 'bad') return reading;
    const before = given[header.objective];
    if (before !== undefined && before.ms !== reading.ms && header.objective !== 'e2eMs') {
      return bad(header.name, String(raw), `${before.header} says ${before.ms}; send one of them, or the same in both`);
    }
    if (before === undefined || reading.ms < before.ms) given[header.objective] = { ms: reading.ms, header: header.name };
  }
  const rawTtl = headers[TTL_HEADER.name];
  if (rawTtl !== undefined) {
    const reading = readHeader(TTL_HEADER, String(rawTtl), tenant);
    if (reading.kind === 'bad') return reading;
    const allowedMs = given.e2eMs?.ms ?? base.e2eMs ?? Infinity;
    if (reading.ms < allowedMs) given.e2eMs = { ms: reading.ms, header: TTL_HEADER.name };
  }

  const { ttftMs, tpotMs, e2eMs } = given;
  if (ttftMs === undefined && tpotMs === undefined && e2eMs === undefined) return { kind: 'ok', slo: base, sloClass: className ?? 'best-effort', worth };
  const slo: Slo = {
    ...base,
    ...(ttftMs === undefined ? {} : { ttftMs: ttftMs.ms }),
    ...(tpotMs === undefined ? {} : { tpotMs: tpotMs.ms }),
    ...(e2eMs === undefined ? {} : { e2eMs: e2eMs.ms }),
  };
  return { kind: 'ok', slo, sloClass: 'custom', worth };
}

/** What meeting the deadlines of the class counts for, relative to others. */
export function worthOf(className: string | null, { worths }: Pick<SloConfig, 'worths'>): number {
  return (className === null ? undefined : worths[className]) ?? 1;
}

type HeaderReading = { readonly kind: 'ok'; readonly ms: number } | Extract<SloReading, { kind: 'bad' }>;

/** Sent twice it arrives as `a, b`: fine when they agree. */
function readHeader(header: SloHeader, raw: string, tenant: TenantConfig): HeaderReading {
  const values = raw.split(',').map((part) => (header.form === 'milliseconds' ? milliseconds(part.trim()) : goDurationMs(part.trim())));
  const ms = values[0] ?? null;
  const wanted = header.form === 'milliseconds' ? `a number of milliseconds above 0, at most ${LIMIT_MS_MAX}` : 'a Go duration such as 1500ms or 2m30s, above 0, at most 24h';
  if (ms === null || values.some((value) => value === null)) return bad(header.name, raw, `want ${wanted}`);
  if (values.some((value) => value !== ms)) return bad(header.name, raw, 'it was sent more than once, with different values');
  const bound = tenant.bounds[header.objective];
  const { min = 0, max = LIMIT_MS_MAX } = bound ?? {};
  if (ms < min || ms > max) return bad(header.name, raw, `tenant '${tenant.name}' may ask for ${min} to ${max} ms`);
  return { kind: 'ok', ms };
}

function milliseconds(text: string): number | null {
  if (!/^\d{1,12}(\.\d{1,20})?$/.test(text)) return null;
  return inRange(Number(text));
}

const GO_UNIT_MS: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, 'µs': 1e-3, 'μs': 1e-3, ms: 1, s: 1e3, m: 6e4, h: 3.6e6 };

/** Go's time.ParseDuration, without signs: they could only make it negative or say nothing. */
function goDurationMs(text: string): number | null {
  if (!/^(\d{1,12}(\.\d{0,9})?(ns|us|µs|μs|ms|s|m|h)){1,8}$/.test(text)) return null;
  let ms = 0;
  for (const [, number, unit] of text.matchAll(/([\d.]+)(ns|us|µs|μs|ms|s|m|h)/g)) ms += Number(number) * (GO_UNIT_MS[unit as string] as number);
  return inRange(ms);
}

function inRange(ms: number): number | null {
  return ms > 0 && ms <= LIMIT_MS_MAX ? ms : null;
}

function bad(name: string, raw: string, why: string): Extract<SloReading, { kind: 'bad' }> {
  return { kind: 'bad', param: name, message: `header ${name}: got '${shown(raw)}'; ${why}` };
}

function shown(text: string): string {
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}

function own(record: Readonly<Record<string, string>>, key: string): string | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}
