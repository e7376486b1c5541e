// The sleep mode of an emulated server, over HTTP, as vLLM's.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Emulator, startEmulator } from '../../src/engine/emulator.ts';
import { eventually } from '../fixtures/gateway-under-test.ts';
import { fixtureProfile } from './fixture-profile.ts';

const profile = { ...fixtureProfile(), sleep: { powerW: 30, sleepMs: 40, wakeMs: 120 } };
let deviceDir: string;
const emulators: Emulator[] = [];
beforeEach(() => {
  deviceDir = mkdtempSync(join(tmpdir(), 'paceline-sleep-'));
});
afterEach(async () => {
  await Promise.all(emulators.splice(0).map((emulator) => emulator.close()));
  rmSync(deviceDir, { recursive: true, force: true });
});

async function start(of = profile as Parameters<typeof startEmulator>[0]['profile']): Promise<string> {
  const emulator = await startEmulator({ profile: of, replicas: 1, host: '127.0.0.1', port: 0, deviceDir, seed: 1 });
  emulators.push(emulator);
  return emulator.replicas[0]?.url as string;
}

const call = (url: string): Promise<number> => fetch(url, { method: 'POST' }).then(({ status }) => status);
const powerW = async (url: string): Promise<number> => ((await (await fetch(`${url}/emulator/state`)).json()) as { powerW: number }).powerW;
const isSleeping = async (url: string): Promise<unknown> => (await fetch(`${url}/is_sleeping`)).json();
const chat = (url: string, outputTokens: number): Promise<Response> =>
  fetch(`${url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: profile.model, messages: [{ role: 'user', content: 'hi' }], metadata: { emulate_output_tokens: String(outputTokens) } }) });

test('asleep it draws its sleeping power and parks what comes until it is woken', async () => {
  const url = await start();
  const idleW = await powerW(url);
  expect(await call(`${url}/sleep?level=1`)).toBe(200);
  expect([await isSleeping(url), await powerW(url)]).toEqual([{ is_sleeping: true }, 30]);
  let answered = false;
  const parked = chat(url, 2).then((answer) => {
    answered = true;
    return answer.status;
  });
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(answered).toBe(false);
  expect(await call(`${url}/wake_up`)).toBe(200);
  expect(await parked).toBe(200);
  expect(await isSleeping(url)).toEqual({ is_sleeping: false });
  await eventually(async () => (await powerW(url)) === idleW);
  expect([await call(`${url}/wake_up`), await isSleeping(url)], 'one that is awake stays so').toEqual([200, { is_sleeping: false }]);
});

test('mode=wait lets what runs end first, and without it that is cut off', async () => {
  const url = await start();
  const waited = chat(url, 60).then(({ status }) => status);
  await eventually(async () => ((await (await fetch(`${url}/emulator/state`)).json()) as { running: number }).running === 1);
  expect(await call(`${url}/sleep?mode=wait`)).toBe(200);
  expect(await waited).toBe(200);
  await call(`${url}/wake_up`);
  const cut = chat(url, 5_000).then(({ status }) => status, () => 'cut');
  await eventually(async () => ((await (await fetch(`${url}/emulator/state`)).json()) as { running: number }).running === 1);
  expect(await call(`${url}/sleep`)).toBe(200);
  expect(await cut).toBe('cut');
});

test('a level from which nothing comes back by itself is refused, and a server without the mode has no such routes', async () => {
  expect(await call(`${await start()}/sleep?level=2`)).toBe(400);
  const url = await start(fixtureProfile());
  expect([await call(`${url}/sleep`), await call(`${url}/wake_up`), (await fetch(`${url}/is_sleeping`)).status]).toEqual([404, 404, 404]);
});
