import { createHash } from 'node:crypto';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, existsSync, lstatSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseConfig } from '../../src/config.ts';
import { ConfigError } from '../../src/config/config-problems.ts';
import { changeKeys, isGood, keysJsonSchema, KeysFileError, makeKey, readKeys } from '../../src/config/keys-file.ts';
import { command } from '../../src/cli/keys.ts';

let directory = '';
let file = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-keys-'));
  file = join(directory, 'keys.json');
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const made = (tenant = 'acme', expiresAtUnixMs: number | null = null) => makeKey({ tenant, note: null, expiresAtUnixMs, nowUnixMs: Date.now() });
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

test('of a key only its hash is kept, in a file for its owner alone', () => {
  const { apiKey, record } = made();
  changeKeys(file, (keys) => [...keys, record]);
  expect(readFileSync(file, 'utf8')).not.toContain(apiKey);
  expect(record.sha256).toBe(sha256(apiKey));
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(readKeys(file)).toEqual([record]);
});

test('no two keys are alike, and each has 256 bits', () => {
  const keys = new Set(Array.from({ length: 100 }, () => made().apiKey));
  expect(keys.size).toBe(100);
  for (const key of keys) expect(key).toMatch(/^pl-[A-Za-z0-9_-]{43}$/);
});

test('a second writer is refused and told what to do; what was there stays', () => {
  changeKeys(file, () => [made().record]);
  const before = readFileSync(file, 'utf8');
  writeFileSync(`${file}.lock`, '');
  expect(() => changeKeys(file, () => [])).toThrow(/another `paceline keys` is changing it; where none is, one was killed: remove .*keys\.json\.lock/);
  expect(readFileSync(file, 'utf8')).toBe(before);
}, 20_000);

test('a link stays one, and what a killed writer left is replaced', () => {
  const real = join(directory, 'real.json');
  changeKeys(real, () => [made().record]);
  symlinkSync(real, file);
  writeFileSync(`${real}.new`, 'half', { mode: 0o644 });
  changeKeys(file, (keys) => [...keys, made().record]);
  expect(lstatSync(file).isSymbolicLink()).toBe(true);
  expect(readKeys(real)).toHaveLength(2);
  expect(statSync(real).mode & 0o777).toBe(0o600);
});

test('who could read it still can: its owner and its mode stay, whoever changes it', () => {
  changeKeys(file, () => [made().record]);
  // Only root may give a file away, and it is root whose change would take it from others.
  const owner = process.getuid?.() === 0 ? 12_345 : (process.getuid?.() ?? 0);
  chownSync(file, owner, process.getgid?.() ?? 0);
  chmodSync(file, 0o640);
  changeKeys(file, (keys) => [...keys, made().record]);
  const { uid, mode } = statSync(file);
  expect({ uid, mode: mode & 0o777 }).toEqual({ uid: owner, mode: 0o640 });
});

test('many writers at once lose no key', async () => {
  const argv = ['src/main.ts', 'keys', 'create', '--file', file, '--tenant', 'acme'];
  await Promise.all(Array.from({ length: 6 }, () => once(spawn(process.execPath, argv, { stdio: 'ignore' }), 'exit')));
  expect(readKeys(file)).toHaveLength(6);
}, 60_000);

test('a change that fails leaves the file as it was, and no lock', () => {
  changeKeys(file, () => [made().record]);
  const before = readFileSync(file, 'utf8');
  expect(() => changeKeys(file, () => { throw new Error('no'); })).toThrow('no');
  expect(readFileSync(file, 'utf8')).toBe(before);
  expect(existsSync(`${file}.lock`)).toBe(false);
});

test.each([
  ['{', /is not JSON/],
  ['{"format":"paceline-keys/2","keys":[]}', /format/],
  ['{"format":"paceline-keys/1","keys":[{"id":"x"}]}', /keys\.0\.id/],
])('a file that is none is refused with its name: %s', (text, message) => {
  writeFileSync(file, text);
  expect(() => readKeys(file)).toThrow(KeysFileError);
  expect(() => readKeys(file)).toThrow(message);
  expect(() => readKeys(file)).toThrow(file);
});

test('a key that stands twice is refused', () => {
  const { record } = made();
  writeFileSync(file, JSON.stringify({ format: 'paceline-keys/1', keys: [record, record] }));
  expect(() => readKeys(file)).toThrow(/stands twice/);
});

test('revoked and expired keys are good no more', () => {
  const now = Date.now();
  expect(isGood(made('a', now + 1_000).record, now)).toBe(true);
  expect(isGood(made('a', now).record, now)).toBe(false);
  expect(isGood({ ...made().record, revokedAt: new Date(now).toISOString() }, now)).toBe(false);
});

test('the published JSON Schema is current (UPDATE_SCHEMAS=1 npx vitest run test/config writes it)', () => {
  const path = 'config/schemas/keys.schema.json';
  const current = `${JSON.stringify(keysJsonSchema(), null, 2)}\n`;
  if (process.env['UPDATE_SCHEMAS'] !== undefined) writeFileSync(path, current);
  expect(readFileSync(path, 'utf8')).toBe(current);
});

describe('a configuration with a keys file', () => {
  const config = (tenants: string) => parseConfig(`keysFile: keys.json\ntenants: ${tenants}\nreplicas: [{ id: r0, url: 'http://127.0.0.1:1', models: [m], profile: p.json }]\n`, { fileName: 'paceline.yaml', directory, environment: {} });

  test('has the tenants of its good keys', () => {
    const [good, other, revoked] = [made('acme'), made('beta'), made('acme')];
    changeKeys(file, () => [good.record, other.record, { ...revoked.record, revokedAt: new Date().toISOString() }]);
    const { tenantsByKeySha256, anonymous } = config('[{ name: acme, weight: 3 }, { name: beta }]');
    expect(tenantsByKeySha256.get(good.record.sha256)).toMatchObject({ name: 'acme', weight: 3 });
    expect(tenantsByKeySha256.get(other.record.sha256)?.name).toBe('beta');
    expect(tenantsByKeySha256.has(revoked.record.sha256)).toBe(false);
    expect(anonymous).toBeNull();
  });

  test('is closed, and not open to everybody, when all keys are revoked', () => {
    changeKeys(file, () => [{ ...made().record, revokedAt: new Date().toISOString() }]);
    expect(config('[{ name: acme }]')).toMatchObject({ anonymous: null, tenantsByKeySha256: new Map() });
  });

  test.each([
    ['that is not there', null, /keysFile: .*keys\.json cannot be read: ENOENT/],
    ['with the key of a tenant that is not', 'stranger', /keysFile: key-[0-9a-f]{12} is of the tenant 'stranger'; tenants has: acme/],
  ])('is refused with a file %s', (_, tenant, message) => {
    if (tenant !== null) changeKeys(file, () => [made(tenant).record]);
    expect(() => config('[{ name: acme }]')).toThrow(ConfigError);
    expect(() => config('[{ name: acme }]')).toThrow(message);
  });
});

describe('paceline keys', () => {
  async function run(...argv: string[]): Promise<{ stdout: string; stderr: string }> {
    const said = { stdout: '', stderr: '' };
    const originals = { stdout: process.stdout.write, stderr: process.stderr.write };
    process.stdout.write = ((text: string) => ((said.stdout += text), true)) as typeof process.stdout.write;
    process.stderr.write = ((text: string) => ((said.stderr += text), true)) as typeof process.stderr.write;
    try {
      await command.run([...argv, '--file', file]);
    } finally {
      process.stdout.write = originals.stdout;
      process.stderr.write = originals.stderr;
    }
    return said;
  }

  test('create shows the key once and nothing else on standard output; list never shows it; revoke ends it', async () => {
    const { stdout } = await run('create', '--tenant', 'acme', '--note', 'for the tests', '--expires', '90d');
    const apiKey = stdout.trim();
    expect(apiKey).toMatch(/^pl-/);
    const [record] = readKeys(file);
    expect(record).toMatchObject({ tenant: 'acme', sha256: sha256(apiKey), note: 'for the tests' });
    const listed = await run('list');
    expect(listed.stdout).toMatch(/^key-[0-9a-f]{12} {2}acme +good until .*for the tests\n$/);
    for (const shown of [listed.stdout, (await run('list', '--json')).stdout]) expect([shown.includes(apiKey), shown.includes(record?.sha256 ?? '?')]).toEqual([false, false]);
    await run('revoke', '--id', record?.id ?? '');
    expect(isGood(readKeys(file)[0] as never, Date.now())).toBe(false);
    await run('prune');
    expect(readKeys(file)).toEqual([]);
  });

  test.each([
    [['create'], /--tenant: got '', want the name of a tenant/],
    [['create', '--tenant', 'a', '--expires', 'soon'], /--expires: got 'soon', want a length such as 90d/],
    [['revoke', '--id', 'key-none'], /--id: no key 'key-none' in /],
    [['revoke'], /--id ID is missing/],
    [['forge'], /keys: got 'forge', want one of create, list, revoke, prune/],
    [[], /keys: got '', want one of/],
  ])('wrong use is one line with the way out: %o', async (argv, message) => {
    changeKeys(file, (keys) => keys);
    await expect(run(...argv)).rejects.toThrow(message);
  });
});
