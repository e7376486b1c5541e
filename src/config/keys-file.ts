// The file of API keys that `paceline keys` keeps and the gateway reads: who has which key, and until when. Of a key only
// its SHA-256 is here; the key itself is shown once, when it is made, and is long enough that its hash tells nothing.
import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, chownSync, closeSync, fsyncSync, openSync, readFileSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { z } from 'zod';

export const KEYS_FORMAT = 'paceline-keys/1';

/** More keys than that belong into a database, which this file is none of. */
export const KEYS_MAX = 100_000;
/** Of that many, each with the longest note. */
const FILE_BYTES_MAX = 128 * 1_048_576;
/** Another writer is done in milliseconds. */
const LOCK_WAIT_MS = 5_000;
const PROBLEMS_SHOWN_MAX = 5;

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
    const { size } = statSync(path);
    if (size > FILE_BYTES_MAX) throw new Error(`it has ${size} bytes, at most ${FILE_BYTES_MAX} are read`);
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new KeysFileError(`${path} cannot be read: ${messageOf(cause)}${isErrno(cause, 'ENOENT') ? '; `paceline keys create` makes one' : ''}`, { cause });
  }
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (cause) {
    throw new KeysFileError(`${path} is not JSON: ${messageOf(cause)}`, { cause });
  }
  const parsed = keysFileSchema.safeParse(content);
  if (!parsed.success) {
    const { issues } = parsed.error;
    const shown = issues.slice(0, PROBLEMS_SHOWN_MAX).map((issue) => `${issue.path.join('.') || 'the whole file'}: ${issue.message}`);
    throw new KeysFileError(`${path}: ${shown.join('; ')}${issues.length > shown.length ? `; and ${issues.length - shown.length} more` : ''}`);
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
 * a second writer waiting, so that no key is lost. A link stays one. Where there is no file yet, `change` is given none. Throws
 * `KeysFileError`.
 */
export function changeKeys(path: string, change: (keys: readonly KeyRecord[]) => readonly KeyRecord[]): void {
  const target = realPath(path);
  const lock = `${target}.lock`;
  const held = locked(path, lock);
  const next = `${target}.new`;
  try {
    const keys = change(existing(path));
    if (keys.length > KEYS_MAX) throw new KeysFileError(`${path}: ${keys.length} keys; at most ${KEYS_MAX} are kept. Revoked and expired ones go with: paceline keys prune`);
    // What a killed writer left there may have another mode.
    rmSync(next, { force: true });
    writeFileSync(next, `${JSON.stringify({ format: KEYS_FORMAT, keys }, null, 2)}\n`, { mode: 0o600, flag: 'wx' });
    keepAccess(target, next);
    synced(next);
    renameSync(next, target);
    synced(dirname(target));
  } catch (cause) {
    if (!(cause instanceof Error && 'syscall' in cause)) throw cause;
    throw new KeysFileError(`${path} cannot be written: ${cause.message}`, { cause });
  } finally {
    closeSync(held);
    rmSync(lock, { force: true });
  }
}

/** Whoever could read it still can: most often root makes a key, and a gateway that is not root reads it. */
function keepAccess(before: string, after: string): void {
  const was = statSync(before, { throwIfNoEntry: false });
  if (was === undefined) return;
  const is = statSync(after);
  if (was.uid !== is.uid || was.gid !== is.gid) chownSync(after, was.uid, was.gid);
  // After the owner, for that takes bits away.
  chmodSync(after, was.mode & 0o777);
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return path;
    throw new KeysFileError(`${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

function locked(path: string, lock: string): number {
  for (const untilMs = Date.now() + LOCK_WAIT_MS; ; ) {
    try {
      return openSync(lock, 'wx', 0o600);
    } catch (cause) {
      if (!isErrno(cause, 'EEXIST')) throw new KeysFileError(`${path} cannot be changed: ${messageOf(cause)}`, { cause });
      if (Date.now() > untilMs) throw new KeysFileError(`${path}: another \`paceline keys\` is changing it; where none is, one was killed: remove ${lock}`, { cause });
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    }
  }
}

/** On the disk, not only in memory: a key that was shown must not be gone after a power cut. */
function synced(path: string): void {
  const file = openSync(path, 'r');
  fsyncSync(file);
  closeSync(file);
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
