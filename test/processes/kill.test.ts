// The real processes: emulated engines, the native agent, the gateway. Whatever is killed, the clocks go back.
import { execFileSync } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { startFleet, type Fleet } from '../../src/demo/fleet.ts';
import { openDeviceStateFile } from '../../src/engine/device-file.ts';

const PROFILE = 'config/profiles/llama-3.1-70b.h100-tp4.json';
const DEVICES = 4;

let fleet: Fleet;
let troubles: string[];

async function start(driver: 'sim' | 'fake-nvml' = 'sim'): Promise<void> {
  troubles = [];
  fleet = await startFleet({ profile: PROFILE, replicas: 1, port: 0, driver, onTrouble: (message) => troubles.push(message) });
  expect(fleet.agent, 'make agent builds the agent these tests need').toBe('native');
}

afterEach(async () => {
  await fleet.close();
});

/** Highest clock each device is locked to, straight from the emulated hardware; 0 = not locked. */
function locks(): number[] {
  return Array.from({ length: DEVICES }, (_, device) => {
    const file = openDeviceStateFile(fleet.deviceDir, device);
    try {
      return file.readCommand()?.lockMaxMhz ?? -1;
    } finally {
      file.close();
    }
  });
}

async function until(what: string, holds: () => boolean | Promise<boolean>, withinMs: number): Promise<number> {
  const startedAtMs = performance.now();
  while (!(await holds())) {
    if (performance.now() - startedAtMs > withinMs) throw new Error(`not within ${withinMs} ms: ${what}`);
    await delay(1);
  }
  return performance.now() - startedAtMs;
}

async function status(adminUrl: string): Promise<{ clockControl: unknown }> {
  return (await (await fetch(`${adminUrl}/paceline/status`)).json()) as { clockControl: unknown };
}

/** A stream that goes on for a while; resolves with its first bytes. */
async function startStream(url: string): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-slo-ttft-ms': '3000', 'x-slo-tpot-ms': '100' },
    body: JSON.stringify({ model: fleet.model, stream: true, max_tokens: 400, metadata: { emulate_output_tokens: '400' }, messages: [{ role: 'user', content: 'count' }] }),
  });
}

describe('kill -9 in mid-load', () => {
  test.each(['sim', 'fake-nvml'] as const)('of the gateway: every device is back at its default clock in under 200 ms (%s driver)', async (driver) => {
    await start(driver);
    const { url } = await fleet.gateway('paceline');
    const stream = await startStream(url);
    await until('the devices are slowed down', () => locks().every((mhz) => mhz > 0), 5000);
    process.kill(fleet.pids().gateway as number, 'SIGKILL');
    const tookMs = await until('the devices are at default clocks', () => locks().every((mhz) => mhz === 0), 1000);
    await stream.text().catch(() => 'cut off, as it must be');
    expect(tookMs).toBeLessThan(200);
  });

  test('of the agent: the devices are at default, the gateway goes on serving and says that it no longer controls clocks', async () => {
    await start();
    const { url, adminUrl } = await fleet.gateway('paceline');
    const stream = await startStream(url);
    await until('the devices are slowed down', () => locks().every((mhz) => mhz > 0), 5000);
    process.kill(fleet.pids().agent as number, 'SIGKILL');
    await until('the devices are at default clocks', () => locks().every((mhz) => mhz === 0), 1000);
    await until('the status says so', async () => (await status(adminUrl)).clockControl === 'lost', 3000);
    expect(await stream.text()).toMatch(/data: \[DONE\]\s*$/);
    expect((await startStream(url)).status).toBe(200);
  });

  test('of the agent’s worker: its sentinel puts the devices back, and control returns', async () => {
    await start();
    const { adminUrl } = await fleet.gateway('paceline');
    await until('the devices are slowed down', () => locks().every((mhz) => mhz > 0), 5000);
    const worker = Number(execFileSync('pgrep', ['-P', String(fleet.pids().agent)], { encoding: 'utf8' }).trim().split('\n')[0]);
    process.kill(worker, 'SIGKILL');
    const tookMs = await until('the devices are at default clocks', () => locks().every((mhz) => mhz === 0), 2000);
    expect(tookMs).toBeLessThan(500);
    await until('control is back', async () => (await status(adminUrl)).clockControl === 'held', 10_000);
  });
});

test('SIGTERM of the gateway leaves the devices at default and says nothing is wrong', async () => {
  await start();
  await fleet.gateway('paceline');
  await until('the devices are slowed down', () => locks().every((mhz) => mhz > 0), 5000);
  expect(await fleet.close()).toEqual([]);
  expect(troubles).toEqual([]);
});
