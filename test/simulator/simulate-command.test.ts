import { execFile } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import type { RequestExplanation } from '../../src/simulator/explanation.ts';
import type { RunReport } from '../../src/simulator/run-report.ts';
import { madeProfile } from '../fixtures/profiles.ts';

const PROFILE = 'config/profiles/llama-3.1-70b.h100-tp4.json';
const SMALL = 'config/profiles/mistral-7b.v100.json';
const LOAD = ['--synthetic', 'poisson', '--rate', '3', '--duration', '60', '--slo', 'config/slo/mixed.json', '--replicas', '2'];

async function simulate(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  try {
    return { code: 0, ...(await promisify(execFile)(process.execPath, ['src/main.ts', 'simulate', ...args], { maxBuffer: 1 << 24 })) };
  } catch (error) {
    return error as { code: number; stdout: string; stderr: string };
  }
}

/** A profile of another knob: the gateway could drive it, but there are no emulated devices that have it. */
const POWER_LIMITED = join(mkdtempSync(join(tmpdir(), 'paceline-')), 'power-limited.json');
writeFileSync(POWER_LIMITED, JSON.stringify(madeProfile({ knob: 'powerLimitW', settings: [{ value: 300, speed: 0.6 }, { value: 700, speed: 1 }] })));

describe('paceline simulate', () => {
  test('finds its default profile from wherever it is run', async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [resolve('src/main.ts'), 'simulate', '--synthetic', 'poisson', '--duration', '5', '--policy', 'max-clock', '--json'], { cwd: tmpdir() });
    expect((JSON.parse(stdout) as RunReport[])[0]?.policy).toBe('max-clock');
  });

  test('ends quietly when whoever reads its output has seen enough', async () => {
    const { stderr } = await promisify(execFile)('bash', ['-c', `${process.execPath} src/main.ts simulate --synthetic poisson --duration 5 --policy max-clock --json | true`]);
    expect(stderr).toBe('');
  });

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
    expect(run?.infeasibleAlone).toBe(0);
    expect(run?.infeasibleWhenSent).toBeGreaterThan(0.4 * (run?.requests ?? 0));
    expect(run?.note).toMatch(/^infeasible: [\d.]+ % were missed for the load \([\d.]+ % of all could not be met any more when they were sent\)$/);
  }, 60_000);

  test('limits that nothing could keep are said to be so, under the table and in the JSON', async () => {
    const { stdout } = await simulate(...LOAD, '--policy', 'max-clock', '--slo-scale', '0.2');
    expect(stdout).toMatch(/\n\nmax-clock: infeasible: [\d.]+ % of requests could not be met even with a replica of their own at the fastest clock\n$/);
  });

  test('one option each asks what if: tighter SLOs, another mix, a power cap, noise, a mixed fleet', async () => {
    const ask = async (...args: string[]): Promise<RunReport> => {
      const { stdout, stderr, code } = await simulate(...LOAD.slice(0, -2), '--policy', 'max-clock', '--json', ...args);
      expect(code, stderr).toBe(0);
      return (JSON.parse(stdout) as RunReport[])[0] as RunReport;
    };
    const two = ['--replicas', '2'];
    const [asIs, tighter, mixed, capped, noisy, fleet] = await Promise.all([
      ask(...two),
      ask(...two, '--slo-scale', '0.3'),
      ask(...two, '--mix', 'premium=0.75'),
      ask(...two, '--power-cap', '1500'),
      ask(...two, '--noise', '40', '--switch-outliers', '0.5:400'),
      ask('--fleet', `${PROFILE},${SMALL}`, '--concurrency', '64'),
    ]);
    expect(asIs).toMatchObject({ replicas: 2, attainment: 1, infeasibleAlone: 0, note: null, cachedPromptShare: 0 });
    expect(tighter.attainment).toBeLessThan(0.9);
    expect(Object.keys(mixed.attainmentByClass)).toEqual(['batch', 'chat', 'premium']);
    expect(capped.clockMhzMean).toBeLessThan(asIs.clockMhzMean);
    expect((noisy.tpotMs.p99 ?? 0) - (noisy.tpotMs.p50 ?? 0)).toBeGreaterThan((asIs.tpotMs.p99 ?? 0) - (asIs.tpotMs.p50 ?? 0));
    expect(fleet.replicas).toBe(2);
    expect(fleet.meanPowerW).toBeLessThan(0.8 * asIs.meanPowerW);
    expect(asIs.byProfile).toBeUndefined();
  }, 60_000);

  test('of a fleet of two profiles it is told which of them did how much, and it adds up', async () => {
    const fleet = ['--synthetic', 'poisson', '--rate', '3', '--duration', '30', '--fleet', `2x${PROFILE},${SMALL}`, '--concurrency', '64', '--policy', 'max-clock,paceline'];
    const [text, json] = await Promise.all([simulate(...fleet), simulate(...fleet, '--json')]);
    const runs = JSON.parse(json.stdout) as RunReport[];
    for (const { byProfile = [], ...run } of runs) {
      expect(byProfile.map(({ replicas, profile }) => [replicas, profile])).toEqual([[2, 'llama-3.1-70b.h100-tp4'], [1, 'mistral-7b.v100']]);
      const total = (of: (share: (typeof byProfile)[number]) => number): number => byProfile.reduce((sum, share) => sum + of(share), 0);
      expect(total(({ requestShare }) => requestShare)).toBeCloseTo(1, 9);
      expect(total(({ energyJ }) => energyJ)).toBeCloseTo(run.energyJ, 3);
      expect(total(({ utilisation, replicas }) => utilisation * replicas) / 3).toBeCloseTo(run.utilisation, 9);
      expect(total(({ clockMhzMean, replicas }) => clockMhzMean * replicas) / 3).toBeCloseTo(run.clockMhzMean, 6);
    }
    expect(text.stdout).toMatch(/\n\npolicy +profile +requests +energy +J\/token +clock +busy\nmax-clock +2 x llama-3\.1-70b\.h100-tp4 .*\nmax-clock +1 x mistral-7b\.v100 .*\npaceline +2 x /);
  }, 60_000);

  test('tells of one request what was decided and why, in the same words each time', async () => {
    const [text, again, json] = await Promise.all([simulate(...LOAD, '--explain', '20'), simulate(...LOAD, '--explain', '20'), simulate(...LOAD, '--explain', '20', '--json')]);
    expect(again.stdout).toBe(text.stdout);
    expect(text.stdout).toMatch(/^request 20: arrived at [\d.]+ s, 1000 prompt tokens, 100 output tokens, class \w+ \(/);
    expect(text.stdout).toMatch(/sent to r\d at [\d.]+ s, [\d.]+ ms after its arrival\npredicted \(.*\): TTFT .*\nhappened: TTFT /);
    expect(text.stdout).toMatch(/<- chosen .* (the cheapest left|could wait no longer)\n/);
    expect(text.stdout).toContain('clock decisions for r');
    const explanation = JSON.parse(json.stdout) as RequestExplanation;
    expect(explanation).toMatchObject({ request: 20, rejected: null, sent: { prediction: { feasible: true } }, report: { jobId: '20', outcome: 'finished' } });
    expect(explanation.considered?.replicas.map(({ replicaId }) => replicaId)).toContain(explanation.sent?.replicaId);
    const [from, until] = [explanation.sent?.atMs ?? 0, explanation.atMs + (explanation.report?.e2eMs ?? 0)];
    expect(explanation.clocks.slice(1).every(({ atMs }) => atMs >= from && atMs <= until)).toBe(true);
  }, 60_000);

  test('work that the profile was not measured for is said to be extrapolated, and stdout stays clean', async () => {
    const { stderr, stdout } = await simulate('--synthetic', 'poisson', '--duration', '10', '--prompt-tokens', '60000', '--policy', 'max-clock', '--json', '--truth', SMALL);
    expect(stderr).toBe(
      'warning: mistral-7b.v100: largest measured prompt 12288 tokens at point 750, asked up to 60000: extrapolated\n' +
        'warning: mistral-7b.v100: largest measured context of a decoding sequence 1024 tokens at point 750, asked up to 60100: extrapolated\n',
    );
    expect(JSON.parse(stdout)).toHaveLength(1);
  });

  test('requests that no replica could ever hold are named with their line, or left out if so asked', async () => {
    const trace = join(mkdtempSync(join(tmpdir(), 'paceline-trace-')), 'long.csv');
    writeFileSync(trace, 'TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,100,10\n2023-11-16 18:17:04,200000,500\n2023-11-16 18:17:05,300000,500\n');
    const load = ['--trace', `azure:${trace}`, '--policy', 'max-clock', '--truth', SMALL];
    const [refused, skipped] = await Promise.all([simulate(...load), simulate(...load, '--skip-oversized', '--json')]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toBe('paceline: request 1 (trace line 3): 200000+500 tokens, mistral-7b.v100 holds kvTokens 110944, and 1 more like it; take a profile that holds more, or leave such requests out with --skip-oversized\n');
    expect(skipped.code).toBe(0);
    expect(skipped.stderr).toContain('left out 2 of 3 requests');
    expect(JSON.parse(skipped.stdout)).toMatchObject([{ requests: 1, completed: 1 }]);
  });

  test.each([
    { args: ['--synthetic', 'poisson', '--policy', 'fastest'], says: "--policy: got 'fastest', allowed: max-clock, static:<MHz>, best-static, paceline" },
    { args: ['--synthetic', 'poisson', '--policy', 'static:1'], says: 'has no such point; it has: 780' },
    { args: ['--synthetic', 'poisson', '--truth', 'nowhere.json'], says: '--truth:' },
    { args: ['--synthetic', 'poisson', '--fleet', `2x${PROFILE}`, '--replicas', '2'], says: '--replicas: --fleet says how many replicas there are (2xTRUTH); leave one of the two out' },
    { args: ['--synthetic', 'poisson', '--fleet', `2x${PROFILE}`, '--truth', PROFILE], says: '--truth: --fleet says what the machines follow' },
    { args: ['--synthetic', 'poisson', '--fleet', '2xnowhere.json'], says: '--fleet: nowhere.json' },
    { args: ['--synthetic', 'poisson', '--fleet', `0x${PROFILE}`], says: `--fleet: got '0x${PROFILE}', want [Nx]TRUTH[=BELIEF]` },
    { args: ['--synthetic', 'poisson', '--fleet', `${PROFILE},${SMALL}`, '--policy', 'static:1380'], says: '--policy: static:1380: mistral-7b.v100 has no such point; it has: 750' },
    { args: ['--synthetic', 'poisson', '--fleet', `${PROFILE},${SMALL}`, '--policy', 'greenllm'], says: '--policy: greenllm knows one profile, and the fleet has llama-3.1-70b.h100-tp4 and mistral-7b.v100' },
    { args: ['--synthetic', 'poisson', '--switch-outliers', '2:480'], says: "--switch-outliers: got '2:480', want SHARE:MS such as 0.01:480" },
    { args: ['--synthetic', 'poisson', '--mix', 'a=1'], says: '--mix: changes the shares of an SLO file; name one with --slo' },
    { args: ['--synthetic', 'poisson', '--slo-scale', '0.5'], says: '--slo-scale: without --slo nothing is promised' },
    { args: ['--synthetic', 'poisson', '--slo', 'config/slo/mixed.json', '--mix', 'gold=0.5'], says: '--mix: no class "gold"; there are: premium, chat, batch' },
    { args: ['--synthetic', 'poisson', '--explain', '100000'], says: '--explain: got 100000, the workload has the requests 0 to' },
    { args: ['--synthetic', 'poisson', '--explain', '1', '--policy', 'max-clock'], says: '--explain: tells of the policy paceline, got --policy max-clock; leave it out' },
    { args: ['--synthetic', 'poisson', '--policy', 'max-clock,paceline,typo'], says: "--policy: got 'typo'" },
    { args: ['--synthetic', 'poisson', '--policy', 'clairvoyant', '--concurrency', '1'], says: '--policy: clairvoyant knows nothing of --concurrency' },
    { args: ['--synthetic', 'poisson', '--truth', POWER_LIMITED], says: "the emulated device needs a knob clockMhz in MHz" },
    { args: ['--synthetic', 'poisson', '--belief', POWER_LIMITED], says: "--belief: " },
    { args: [], says: 'want either --trace or --synthetic; see: paceline simulate --help' },
  ])('wrong use is one line with the way out: $says', async ({ args, says }) => {
    const { code, stderr } = await simulate(...args);
    expect(code).toBe(2);
    expect(stderr).toContain(says);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });
});

describe('paceline simulate --prices', () => {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-prices-'));
  const file = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text);
    return join(directory, name);
  };
  const classes = file('classes.json', '{"classes":[{"name":"chat","share":0.5,"ttftMs":2000,"tpotMs":80},{"name":"later","share":0.5,"e2eMs":400000}]}');

  test('gives each run a cost, and plays paceline with and without moving work', async () => {
    const prices = file('prices.csv', 'time,value\n2026-11-26T18:00:00Z,300\n2026-11-26T18:01:00Z,20\n2026-11-26T18:06:00Z,300\n');
    const { code, stdout } = await simulate('--synthetic', 'poisson', '--rate', '7', '--duration', '120', '--replicas', '2', '--slo', classes, '--prices', prices, '--policy', 'max-clock,paceline', '--json');
    expect(code).toBe(0);
    const runs = JSON.parse(stdout) as RunReport[];
    expect(runs.map(({ policy }) => policy)).toEqual(['max-clock', 'paceline, not moved', 'paceline']);
    const [, stayed, moved] = runs as [RunReport, RunReport, RunReport];
    expect(moved.cost).toBeLessThan(stayed.cost as number);
    expect(moved.attainmentByClass['later']).toBe(1);
    // All at one price it would be the kilowatt-hours times that.
    expect(stayed.cost).toBeLessThan((300 * stayed.energyJ) / 3_600_000);
    expect(stayed.cost).toBeGreaterThan((20 * stayed.energyJ) / 3_600_000);
  });

  test('refuses a file that is none, with the place', async () => {
    const { code, stderr } = await simulate(...LOAD, '--prices', file('bad.csv', 'time,value\nsoon,1\n'));
    expect([code, stderr]).toEqual([2, expect.stringContaining('bad.csv: line 2, time: got soon')]);
  });
});
