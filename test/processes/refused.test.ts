// A configuration that is refused late, when parts of the gateway stand already: the process says why and ends.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

const PROFILE = resolve(import.meta.dirname, '../../config/profiles/llama-3.1-8b.h200.json');

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-refused-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

test.each([
  { what: 'a store of batches below a file', keys: 'batch: { store: { sqlite: /dev/null/batches.sqlite } }', says: 'batch.store: /dev/null/batches.sqlite' },
  { what: 'a store for nothing that Redis is asked for', keys: 'batch: { store: redis }', says: '`store`' },
])('$what: the reason is printed, and nothing keeps the process alive', ({ keys, says }) => {
  const config = join(directory, 'paceline.yaml');
  writeFileSync(config, `listen: { port: 0 }\nadmin: { port: 0 }\nreplicas: [{ id: a, url: 'http://127.0.0.1:1', models: [m], profile: '${PROFILE}' }]\n${keys}\n`);
  const { status, stderr } = spawnSync('node', [resolve(import.meta.dirname, '../../src/main.ts'), 'serve', '--config', config], { encoding: 'utf8', timeout: 60_000, killSignal: 'SIGKILL' });
  expect(stderr).toContain(says);
  expect(status).toBe(2);
}, 90_000);
