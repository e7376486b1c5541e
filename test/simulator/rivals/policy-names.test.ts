import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import type { RunReport } from '../../../src/simulator/run-report.ts';

const LOAD = ['--synthetic', 'poisson', '--rate', '2', '--duration', '15', '--slo', 'config/slo/chat.json', '--replicas', '1'];

async function simulate(policy: string): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  try {
    return { code: 0, ...(await promisify(execFile)(process.execPath, ['src/main.ts', 'simulate', ...LOAD, '--policy', policy, '--json'])) };
  } catch (error) {
    return error as { code: number; stdout: string; stderr: string };
  }
}

test('paceline simulate plays every rival by its name, and with its margin', async () => {
  const { code, stdout } = await simulate('driver,ondemand,voltanallm,throttllem,dynamollm,greenllm,agft,greenllm@0.5');
  expect(code).toBe(0);
  const runs = JSON.parse(stdout) as RunReport[];
  expect(runs.map(({ policy }) => policy)).toEqual(['driver', 'ondemand', 'voltanallm', 'throttllem', 'dynamollm', 'greenllm', 'agft', 'greenllm@0.5']);
  expect(runs.at(-1)?.clockMhzMean).toBeGreaterThan(runs[5]?.clockMhzMean ?? Infinity);
}, 60_000);

test.each(['greenllm@1', 'greenllm@-0.1', 'max-clock@0.1', 'nobody'])('%s is refused with the names that there are', async (name) => {
  const { code, stderr } = await simulate(name);
  expect(code).toBe(2);
  expect(stderr).toContain(`--policy: got '${name}', allowed: max-clock, static:<MHz>, best-static, paceline, clairvoyant, lower-bound, driver, ondemand,`);
}, 60_000);
