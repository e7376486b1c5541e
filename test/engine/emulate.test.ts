// The command as a process of its own.
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fixtureProfile } from './fixture-profile.ts';

let directory: string;
let child: ChildProcess | undefined;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-emulate-'));
});
afterEach(() => {
  child?.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

function emulate(...args: string[]): ChildProcess {
  child = spawn(process.execPath, ['src/main.ts', 'emulate', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  return child;
}

test('prints one line of JSON when ready, serves, and ends with 0 on SIGTERM even with streams open', async () => {
  const profile = fixtureProfile({ deviceGroup: { device: 'H100', devices: 2 } });
  writeFileSync(join(directory, 'profile.json'), JSON.stringify(profile));
  const devices = join(directory, 'devices');
  const running = emulate('--profile', join(directory, 'profile.json'), '--replicas', '2', '--port', '0', '--device-dir', devices, '--time-error', '10', '--model', 'm');
  const lines: string[] = [];
  const reader = createInterface({ input: running.stdout as NodeJS.ReadableStream });
  reader.on('line', (line) => lines.push(line));
  await once(reader, 'line');
  const ready = JSON.parse(lines[0] as string) as { replicas: { url: string; devices: string[]; model: string }[]; deviceDir: string };
  expect(ready).toMatchObject({ replicas: [{ devices: ['sim:0', 'sim:1'], model: 'm' }, { devices: ['sim:2', 'sim:3'], model: 'm' }], deviceDir: devices });
  expect(readdirSync(devices).sort()).toEqual(['0.json', '0.state', '1.json', '1.state', '2.json', '2.state', '3.json', '3.state']);
  const stream = await fetch(`${ready.replicas[1]?.url}/v1/completions`, { method: 'POST', body: JSON.stringify({ model: 'm', prompt: 'hi', max_tokens: 100_000, ignore_eos: true, stream: true }) });
  const body = stream.text().catch(() => 'cut');
  running.kill('SIGTERM');
  expect((await once(running, 'exit'))[0]).toBe(0);
  expect(await body).toBe('cut');
  expect(lines).toHaveLength(1);
});

test('says in one line, with exit code 2, what is wrong with how it was called', async () => {
  const running = emulate('--profile', join(directory, 'none.json'), '--device-dir', directory);
  let errors = '';
  running.stderr?.on('data', (chunk: Buffer) => (errors += chunk.toString()));
  expect((await once(running, 'close'))[0]).toBe(2);
  expect(errors).toMatch(/^paceline: .*none\.json: cannot be read.*\n$/);
});

test('writes down what became of each request, by the id it came with', async () => {
  writeFileSync(join(directory, 'profile.json'), JSON.stringify(fixtureProfile()));
  const log = join(directory, 'requests.jsonl');
  const running = emulate('--profile', join(directory, 'profile.json'), '--port', '0', '--device-dir', join(directory, 'devices'), '--model', 'm', '--request-log', log);
  const [line] = (await once(createInterface({ input: running.stdout as NodeJS.ReadableStream }), 'line')) as [string];
  const { url } = (JSON.parse(line) as { replicas: [{ url: string }] }).replicas[0];
  const ask = (requestId: string, tokens: number, signal?: AbortSignal): Promise<Response> =>
    fetch(`${url}/v1/completions`, { method: 'POST', headers: { 'x-request-id': requestId }, body: JSON.stringify({ model: 'm', prompt: 'hi', max_tokens: tokens, ignore_eos: true, stream: true }), ...(signal === undefined ? {} : { signal }) });
  await (await ask('whole', 3)).text();
  const leaving = new AbortController();
  const reader = (await ask('left', 100_000, leaving.signal)).body?.getReader();
  await reader?.read();
  leaving.abort();
  const events = (): string[] => readFileSync(log, 'utf8').trim().split('\n').map((entry) => JSON.parse(entry) as { request_id: string; event: string; at_ms: number }).map(({ request_id: id, event }) => `${id} ${event}`);
  while (events().length < 6) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(events()).toEqual(['whole accepted', 'whole first-token', 'whole finished', 'left accepted', 'left first-token', 'left cancelled']);
});
