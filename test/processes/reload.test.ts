// A `paceline serve` whose files change: taken over on change and on SIGHUP, by whatever way the change comes about.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { eventually, PROFILE } from '../fixtures/gateway-under-test.ts';
import { startServed } from '../fixtures/served.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

function keys(...argv: readonly string[]): string {
  return execFileSync(process.execPath, ['src/main.ts', 'keys', ...argv], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
}

test('keys that are made and revoked, a file that is swapped under a link, and SIGHUP are taken over by a running gateway', async () => {
  const upstream = await createStubUpstream();
  const directory = mkdtempSync(join(tmpdir(), 'paceline-reload-'));
  opened.push({ close: async () => rmSync(directory, { recursive: true, force: true }) }, upstream);
  const yaml = (tenants: string): string => `listen: { port: 0 }\nadmin: { port: 0 }\nkeysFile: ${join(directory, 'keys.json')}\ntenants: ${tenants}\nreplicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${resolve(PROFILE)} }]\n`;
  // As Kubernetes mounts a ConfigMap: the file is a link into a directory that is a link.
  const version = (name: string, text: string): void => {
    mkdirSync(join(directory, name));
    writeFileSync(join(directory, name, 'paceline.yaml'), text);
    symlinkSync(name, join(directory, '..data.new'));
    renameSync(join(directory, '..data.new'), join(directory, '..data'));
  };
  version('v1', yaml('[{ name: acme }]'));
  symlinkSync(join('..data', 'paceline.yaml'), join(directory, 'paceline.yaml'));
  const file = join(directory, 'keys.json');
  const first = keys('create', '--file', file, '--tenant', 'acme');
  const served = await startServed(['src/main.ts', 'serve', '--config', join(directory, 'paceline.yaml'), '--policy', 'max-clock']);
  opened.push(served);
  const statusOf = async (key: string): Promise<number> => {
    const answer = await fetch(`${served.url}/v1/chat/completions`, { method: 'POST', body: '{"model":"m"}', headers: { authorization: `Bearer ${key}` } });
    await answer.arrayBuffer();
    return answer.status;
  };
  await eventually(async () => (await statusOf(first)) === 200);

  const second = keys('create', '--file', file, '--tenant', 'acme');
  await eventually(async () => (await statusOf(second)) === 200, 10_000);
  keys('revoke', '--file', file, '--id', (JSON.parse(keys('list', '--file', file, '--json')) as { id: string }[])[0]?.id ?? '');
  await eventually(async () => (await statusOf(first)) === 401, 10_000);
  expect(await statusOf(second)).toBe(200);

  // Refused, and said with its line; what was asked on the command line is no change.
  version('v2', yaml('[{ name: acme, wieght: 1 }]'));
  await eventually(() => /paceline\.yaml:4: tenants\[0\]\.wieght: unknown key/.test(served.stdout() + served.stderr()), 10_000);
  expect(await statusOf(second)).toBe(200);
  version('v3', yaml('[{ name: acme }, { name: beta }]'));
  const third = keys('create', '--file', file, '--tenant', 'beta');
  served.signal('SIGHUP');
  await eventually(async () => (await statusOf(third)) === 200, 10_000);
}, 60_000);
