// The file of API keys that `paceline keys` keeps and the gateway reads: who has which key, and until when. Of a key only
// its SHA-256 is here; the key itself is shown once, when it is made, and is long enough that its hash tells nothing.
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { z } from 'zod';

export const KEYS_FORMAT = 'paceline-keys/1';

/** More keys than that belong into a database, which this file is none of. */
export const KEYS_MAX = 100_000;

const instant = z.iso.datetime();
const keysFileSchema = z.strictObject({
  format: z.literal(KEYS_FORMAT),
  keys: z
    .array(
      z.strictObject({
        id: z.string().regex(/^key-[0-9a-f]{12}$/),
        tenant: z.string().min(1).max(64),
        sha256: z.string().regex(/^[0-9a-f]{64}$/, 'want the 64 lower-case hex digits of a SHA-256'),
        createdAt: instant,
        expiresAt: instant.optional().describe('from then on the key is refused'),
        revokedAt: instant.optional().describe('since then the key is refused'),
        note: z.string().max(200).optional(),
      }),
    )
    .max(KEYS_MAX),
});

export type KeyRecord = z.output<typeof keysFileSchema>['keys'][number];

/** Cannot be read, written, or is not what it should be; the message names the file. */
export class KeysFileError extends Error {
  override name = 'KeysFileError';
}

/** The JSON Schema that `config/schemas/keys.schema.json` holds. */
export function keysJsonSchema(): Record<string, unknown> {
  return { title: 'Paceline API keys', ...z.toJSONSchema(keysFileSchema, { io: 'input' }) };
}

/** Throws `KeysFileError`. */
export function readKeys(path: string): readonly KeyRecord[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new KeysFileError(`${path} cannot be read: ${messageOf(cause)}`, { cause });
  }
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (cause) {
    throw new KeysFileError(`${path} is not JSON: ${messageOf(cause)}`, { cause });
  }
  const parsed = keysFileSchema.safeParse(content);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw new KeysFileError(`${path}: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not a keys file'}`);
  }
  const { keys } = parsed.data;
  for (const name of ['id', 'sha256'] as const) {
    const seen = new Set<string>();
    for (const key of keys) {
      if (seen.has(key[name])) throw new KeysFileError(`${path}: ${name} ${key[name]} stands twice`);
      seen.add(key[name]);
    }
  }
  return keys;
}

/** Whether a key lets anybody in at an instant. */
export function isGood({ expiresAt, revokedAt }: KeyRecord, atUnixMs: number): boolean {
  return revokedAt === undefined && (expiresAt === undefined || Date.parse(expiresAt) > atUnixMs);
}

/** A new key and its record. 256 random bits; the beginning makes it easy to find where it should not be. */
export function makeKey({ tenant, note, expiresAtUnixMs, nowUnixMs }: { readonly tenant: string; readonly note: string | null; readonly expiresAtUnixMs: number | null; readonly nowUnixMs: number }): { readonly apiKey: string; readonly record: KeyRecord } {
  const apiKey = `pl-${randomBytes(32).toString('base64url')}`;
  return {
    apiKey,
    record: {
      id: `key-${randomBytes(6).toString('hex')}`,
      tenant,
      sha256: createHash('sha256').update(apiKey).digest('hex'),
      createdAt: new Date(nowUnixMs).toISOString(),
      ...(expiresAtUnixMs === null ? {} : { expiresAt: new Date(expiresAtUnixMs).toISOString() }),
      ...(note === null ? {} : { note }),
    },
  };
}

/**
 * Changes the file as a whole: who reads it sees either what was or what is, whatever happens in between. A lock file keeps
 * a second writer out, so that no key is lost. Where there is no file yet, `change` is given none. Throws `KeysFileError`.
 */
export function changeKeys(path: string, change: (keys: readonly KeyRecord[]) => readonly KeyRecord[]): void {
  const lock = `${path}.lock`;
  let held: number;
  try {
    held = openSync(lock, 'wx', 0o600);
  } catch (cause) {
    const why = isErrno(cause, 'EEXIST') ? `another \`paceline keys\` is changing it; where none is, one was killed: remove ${lock}` : `cannot be changed: ${messageOf(cause)}`;
    throw new KeysFileError(`${path}: ${why}`, { cause });
  }
  try {
    const keys = change(existing(path));
    if (keys.length > KEYS_MAX) throw new KeysFileError(`${path}: ${keys.length} keys; at most ${KEYS_MAX} are kept. Revoked and expired ones go with: paceline keys prune`);
    const next = `${path}.new`;
    writeFileSync(next, `${JSON.stringify({ format: KEYS_FORMAT, keys }, null, 2)}\n`, { mode: 0o600 });
    const written = openSync(next, 'r');
    fsyncSync(written);
    closeSync(written);
    renameSync(next, path);
  } catch (cause) {
    if (cause instanceof KeysFileError) throw cause;
    throw new KeysFileError(`${path} cannot be written: ${messageOf(cause)}`, { cause });
  } finally {
    closeSync(held);
    rmSync(lock, { force: true });
  }
}

function existing(path: string): readonly KeyRecord[] {
  try {
    return readKeys(path);
  } catch (error) {
    if (error instanceof KeysFileError && isErrno(error.cause, 'ENOENT')) return [];
    throw error;
  }
}

function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
