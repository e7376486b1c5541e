// A `paceline serve` whose files change: taken over on change and on SIGHUP, by whatever way the change comes about.
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { watchFiles } from '../../src/config/file-watch.ts';
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

test('a signal and a change that come while the gateway starts end nothing and are taken over', async () => {
  const upstream = await createStubUpstream();
  const directory = mkdtempSync(join(tmpdir(), 'paceline-reload-'));
  // A Redis that takes connections and never answers: the start waits a second for it.
  const silent = createServer(() => {}).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  opened.push({ close: async () => rmSync(directory, { recursive: true, force: true }) }, upstream, { close: async () => void silent.close() });
  const config = join(directory, 'paceline.yaml');
  const hash = (key: string): string => createHash('sha256').update(key).digest('hex');
  const write = (keys: readonly string[]): void =>
    writeFileSync(config, `listen: { port: 0 }\nadmin: { port: 0 }\nstore: { redisUrl: 'redis://127.0.0.1:${(silent.address() as AddressInfo).port}' }\ntenants: [{ name: acme, apiKeySha256: [${keys.map(hash).join(', ')}], limits: { requestsPerMinute: 100 } }]\nreplicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${resolve(PROFILE)} }]\n`);
  write(['one']);
  silent.once('connection', (socket) => {
    socket.on('error', () => {});
    write(['two']);
    process.kill(pid(), 'SIGHUP');
  });
  const child = spawn(process.execPath, ['src/main.ts', 'serve', '--config', config, '--policy', 'max-clock'], { stdio: ['ignore', 'pipe', 'ignore'] });
  const pid = (): number => child.pid as number;
  opened.push({ close: async () => void child.kill('SIGKILL') });
  const served = once(child.stdout, 'data').then(([line]) => JSON.parse(String(line)) as { url: string });
  const exited = once(child, 'exit').then(([, signal]) => ({ signal: signal as string }));
  const first = await Promise.race([served, exited]);
  expect(first).toEqual({ url: expect.stringMatching(/^http/), adminUrl: expect.any(String) });
  const { url } = first as { url: string };
  const statusOf = async (key: string): Promise<number> => (await fetch(`${url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).status;
  await eventually(async () => (await statusOf('two')) === 200);
  expect(await statusOf('one')).toBe(401);
}, 30_000);

test('files that cannot be looked at any more are told of, and end no gateway', () => {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-watch-'));
  opened.push({ close: async () => rmSync(directory, { recursive: true, force: true }) });
  const path = join(directory, 'keys.json');
  writeFileSync(path, '{}');
  const watch = watchFiles(() => [path], { everyMs: 1_000, changed: () => {} });
  opened.push({ close: async () => watch.close() });
  rmSync(path);
  // A link to itself: ELOOP, where no entry would be ENOENT.
  symlinkSync('keys.json', path);
  expect(() => watch.seen()).not.toThrow();
});
