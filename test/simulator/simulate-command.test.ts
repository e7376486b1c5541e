import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import type { RunReport } from '../../src/simulator/run-report.ts';

const LOAD = ['--synthetic', 'poisson', '--rate', '3', '--duration', '60', '--slo', 'config/slo/mixed.json', '--replicas', '2'];

async function simulate(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  try {
    return { code: 0, ...(await promisify(execFile)(process.execPath, ['src/main.ts', 'simulate', ...args], { maxBuffer: 1 << 24 })) };
  } catch (error) {
    return error as { code: number; stdout: string; stderr: string };
  }
}

describe('paceline simulate', () => {
  test('prints a list of runs with the same bytes for the same seed', async () => {
    const [once, again] = await Promise.all([simulate(...LOAD, '--policy', 'max-clock,static:1380,paceline', '--json'), simulate(...LOAD, '--policy', 'max-clock,static:1380,paceline', '--json')]);
    expect(again.stdout).toBe(once.stdout);
    const runs = JSON.parse(once.stdout) as RunReport[];
    expect(runs.map(({ policy }) => policy)).toEqual(['max-clock', 'static:1380', 'paceline']);
    for (const run of runs) {
      expect(run).toMatchObject({ replicas: 2, seed: 1, rejected: 0 });
      expect(run.requests).toBe(run.completed);
      expect(Object.keys(run.attainmentByClass)).toEqual(['batch', 'chat', 'premium']);
      expect(run.utilisation).toBeGreaterThan(0.3);
      expect(run.utilisation).toBeLessThanOrEqual(1);
      expect(run.energyJ / run.durationS).toBeCloseTo(run.meanPowerW, 6);
    }
    const [maximum, fixed, paced] = runs as [RunReport, RunReport, RunReport];
    expect(maximum.clockMhzMean).toBeCloseTo(1830, 0);
    expect(fixed.clockMhzMean).toBeLessThan(1400);
    expect(paced.energyJ).toBeLessThan(fixed.energyJ);
    expect(new Set(runs.map(({ durationS }) => Math.round(durationS))).size, 'one window for all').toBe(1);
  }, 60_000);

  test('an infeasible load ends and says so', async () => {
    const { code, stdout } = await simulate('--synthetic', 'poisson', '--rate', '30', '--duration', '20', '--replicas', '1', '--slo', 'config/slo/chat.json', '--policy', 'paceline', '--json');
    expect(code).toBe(0);
    const [run] = JSON.parse(stdout) as RunReport[];
    expect(run?.completed).toBe(run?.requests);
    expect(run?.attainment).toBeLessThan(0.6);
  }, 60_000);

  test.each([
    { args: ['--synthetic', 'poisson', '--policy', 'fastest'], says: "--policy: got 'fastest', allowed: max-clock, static:<MHz>, best-static, paceline" },
    { args: ['--synthetic', 'poisson', '--policy', 'static:1'], says: 'has no such point; it has: 780' },
    { args: ['--synthetic', 'poisson', '--truth', 'nowhere.json'], says: '--truth:' },
    { args: [], says: 'want either --trace or --synthetic; see: paceline simulate --help' },
  ])('wrong use is one line with the way out: $says', async ({ args, says }) => {
    const { code, stderr } = await simulate(...args);
    expect(code).toBe(2);
    expect(stderr).toContain(says);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });
});
