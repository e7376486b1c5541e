// `paceline bench --compare` as people run it: a process of its own, arms and meters on real sockets.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readComparison } from '../../src/compare/comparison-file.ts';
import { startFleet } from '../../src/demo/fleet.ts';
import { startStub, type StubServer, streamTokens } from '../loadgen/stub-server.ts';

let directory = '';
const opened: (() => unknown)[] = [];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-compare-'));
});
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
  rmSync(directory, { recursive: true });
});

async function stub(options: { readonly ttftMs?: number; readonly model?: string } = {}): Promise<StubServer> {
  const server = await startStub((_, response) => streamTokens(response, { tokens: 4, ttftMs: options.ttftMs ?? 5, tpotMs: 2 }));
  opened.push(server.close);
  return server;
}

/** An agent with one device, whose power is what the function says. */
async function agent(powerW: () => number): Promise<string> {
  const socket = join(directory, 'agent.sock');
  let [energyJ, atMs] = [1000, performance.now()];
  const step = (): void => {
    const nowMs = performance.now();
    [energyJ, atMs] = [energyJ + (powerW() * (nowMs - atMs)) / 1000, nowMs];
  };
  const timer = setInterval(step, 10);
  const server = createServer((_, response) => {
    step();
    response.setHeader('content-type', 'application/json').end(JSON.stringify({ at_ns: 1, samples: [{ device: 'sim:0', energy_mj: Math.round(energyJ * 1000), energy_age_ms: 0, power_mw: powerW() * 1000 }] }));
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  opened.push(async () => {
    clearInterval(timer);
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return socket;
}

async function bench(args: readonly string[], { interruptWhen }: { readonly interruptWhen?: () => boolean } = {}) {
  const child = spawn(process.execPath, ['src/main.ts', 'bench', ...args], { env: { ...process.env, NODE_NO_WARNINGS: '1' } });
  opened.push(() => child.kill('SIGKILL'));
  const [out, err]: [string[], string[]] = [[], []];
  child.stdout.on('data', (text) => out.push(String(text)));
  child.stderr.on('data', (text) => err.push(String(text)));
  const poll = setInterval(() => {
    if (interruptWhen?.() !== true) return;
    clearInterval(poll);
    child.kill('SIGINT');
  }, 20);
  const code = await new Promise((resolve) => child.on('close', resolve));
  clearInterval(poll);
  return { code, stdout: out.join(''), stderr: err.join('') };
}

const LOAD = ['--synthetic', 'poisson', '--rate', '30', '--output-tokens', '4', '--prompt-tokens', '20', '--duration', '0.8'];
const SHORT = ['--rounds', '3', '--rest', '0', '--warm-up', '0.2', '--tail', '0.4'];

test('two arms, the same requests in each round, another wording in every turn, and a report that its JSON gives again to the byte', async () => {
  const [plain, saving] = [await stub(), await stub({ ttftMs: 20 })];
  // Power falls for as long as the saving arm has the last word.
  let last = plain;
  for (const server of [plain, saving]) server.seen.push = ((push) => (...requests) => ((last = server), push.apply(server.seen, requests)))(server.seen.push);
  const socket = await agent(() => (last === saving ? 100 : 1000));
  const [out, report, again] = ['ab.json', 'ab.html', 'again.html'].map((name) => join(directory, name)) as [string, string, string];
  const { code, stdout, stderr } = await bench([...LOAD, ...SHORT, '--compare', `plain=${plain.url}`, '--compare', `saving=${saving.url}`, '--meter', `agent:${socket}`, '--out', out, '--report', report, '--api-key', 'secret']);
  expect(stderr.match(/round \d of 3/g)).toHaveLength(6);
  expect(code).toBe(0);

  const text = readFileSync(out, 'utf8');
  expect(text).not.toContain('secret');
  const comparison = readComparison(text, out);
  expect(comparison.end).toEqual({ kind: 'complete' });
  expect(new Set(comparison.turns.map(({ promptSalt }) => promptSalt)).size).toBe(6);
  for (const round of [0, 1, 2]) {
    const [one, other] = comparison.turns.filter((turn) => turn.round === round);
    expect(one?.requests).toBe(other?.requests);
    expect(one?.arm).not.toBe(other?.arm);
  }
  // Warm-up requests were sent and are counted nowhere.
  const counted = comparison.turns.filter(({ arm }) => arm === 'plain').reduce((sum, { requests }) => sum + requests, 0);
  expect(plain.seen.length).toBeGreaterThan(counted);
  expect(plain.seen.length).toBe(saving.seen.length);
  const prompts = [...plain.seen, ...saving.seen].map(({ body }) => body.messages?.[0]?.content);
  expect(new Set(prompts).size).toBe(prompts.length);

  for (const turn of comparison.turns) {
    expect(turn.energy).toMatchObject({ kind: 'measured', how: 'counter' });
    const energyJ = turn.energy?.kind === 'measured' ? turn.energy.energyJ : Number.NaN;
    expect(energyJ / turn.windowS / (turn.arm === 'saving' ? 100 : 1000)).toBeGreaterThan(0.5);
    expect(energyJ / turn.windowS / (turn.arm === 'saving' ? 100 : 1000)).toBeLessThan(turn.arm === 'saving' ? 6 : 1.5);
  }
  expect(stdout).toMatch(/relative to plain is -\d\d\.\d %|energy at no lower attainment: -\d\d/);
  expect(readFileSync(report, 'utf8')).toContain('Power over time');

  const replayed = await bench(['--report-from', out, '--report', again]);
  expect(replayed).toMatchObject({ code: 0, stderr: '' });
  expect(readFileSync(again, 'utf8')).toBe(readFileSync(report, 'utf8'));
  expect(replayed.stdout).toBe(stdout);
}, 60_000);

test('without a meter it says that energy was not measured', async () => {
  const [a, b] = [await stub(), await stub()];
  const { code, stdout } = await bench([...LOAD, ...SHORT, '--compare', `a=${a.url}`, '--compare', `b=${b.url}`]);
  expect(code).toBe(0);
  expect(stdout).toContain('Energy was not measured: there was no meter (--meter)');
  expect(stdout).toContain('not measured');
}, 60_000);

test('Ctrl-C ends it with a report of the rounds that are whole', async () => {
  const [a, b] = [await stub(), await stub()];
  const [out, report] = [join(directory, 'ab.json'), join(directory, 'ab.html')];
  const inTurns = (): number => {
    try {
      return readComparison(readFileSync(out, 'utf8'), out).turns.length;
    } catch {
      return 0;
    }
  };
  const { code, stdout } = await bench([...LOAD, ...SHORT, '--rounds', '500', '--compare', `a=${a.url}`, '--compare', `b=${b.url}`, '--out', out, '--report', report], { interruptWhen: () => inTurns() >= 3 });
  expect(code).toBe(130);
  expect(stdout).toMatch(/note: interrupted: [1-9]\d* of 500 rounds are whole, and only those count/);
  expect(readComparison(readFileSync(out, 'utf8'), out)).toMatchObject({ end: { kind: 'interrupted' } });
  expect(readFileSync(report, 'utf8')).toContain('Every turn');
}, 60_000);

test('an arm that dies ends it, with what was measured by then', async () => {
  const [a, b] = [await stub(), await stub()];
  const out = join(directory, 'ab.json');
  const dying = (async () => {
    while (b.seen.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    // In its first turn or between its turns: either way it is gone by its second.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await b.close();
  })();
  const { code, stdout, stderr } = await bench([...LOAD, ...SHORT, '--rounds', '50', '--compare', `a=${a.url}`, '--compare', `b=${b.url}`, '--out', out]);
  await dying;
  opened.splice(opened.indexOf(b.close), 1);
  expect(code).toBe(1);
  expect(stderr).toMatch(/ended early: round \d+: b(: .*cannot be reached| completed none)/);
  expect(stdout).toContain('of 50 rounds are whole, and only those count');
  expect(readComparison(readFileSync(out, 'utf8'), out).end.kind).toBe('failed');
}, 60_000);

test('two configurations of one gateway take turns on the same emulated devices', async () => {
  const fleet = await startFleet({ profile: 'config/profiles/llama-3.1-70b.h100-tp4.json', replicas: 1, port: 0, onTrouble: () => {} });
  opened.push(() => fleet.close());
  const config = await fleet.writeConfig();
  const out = join(directory, 'ab.json');
  const { code, stdout } = await bench([
    '--synthetic', 'poisson', '--rate', '2', '--output-tokens', '30', '--prompt-tokens', '300', '--duration', '3', '--slo', 'config/slo/chat.json', '--rounds', '3', '--rest', '0', '--warm-up', '0', '--tail', '3',
    '--compare', `plain=${config}#max-clock`, '--compare', `paced=${config}`, '--agent-socket', fleet.agentSocket, '--out', out,
  ]);
  expect(code).toBe(0);
  const { turns, arms } = readComparison(readFileSync(out, 'utf8'), out);
  expect(arms.map(({ target }) => target)).toEqual([`${config}#max-clock`, config]);
  const energyOf = (arm: string): number => turns.filter((turn) => turn.arm === arm).reduce((sum, { energy }) => sum + (energy?.kind === 'measured' ? energy.energyJ : Number.NaN), 0);
  expect(energyOf('paced')).toBeLessThan(energyOf('plain'));
  expect(stdout).toContain('relative to plain');
}, 120_000);

test.each([
  { args: ['--compare', 'http://127.0.0.1:1'], message: '--compare: got one arm, want two or more' },
  { args: ['--compare', 'http://127.0.0.1:1', '--compare', 'old.json'], message: "--compare: got 'old.json' beside arms" },
  { args: ['--compare', 'a=http://127.0.0.1:1', '--compare', 'b=http://127.0.0.1:2', '--rounds', '2'], message: '--rounds: got 2, want at least 3' },
  { args: ['--compare', 'a=http://127.0.0.1:1', '--compare', 'b=http://127.0.0.1:2', '--window-s', '9'], message: '--window-s: an A/B measures every turn over --duration and --tail' },
  { args: ['--compare', 'a=http://127.0.0.1:1', '--compare', 'b=http://127.0.0.1:2', '--meter', 'x'], message: "--meter: got 'x'" },
  { args: ['--report', 'x.html'], message: '--report: is for an A/B; name its arms with --compare' },
  { args: ['--report-from', 'package.json'], message: '--report-from package.json: format: got none, want "paceline-comparison/1"' },
  { args: ['--report-from', 'none.json'], message: '--report-from none.json: ENOENT' },
])('$args is refused in one line', async ({ args, message }) => {
  const refused = await bench([...LOAD, ...args]);
  expect(refused).toMatchObject({ code: 2, stdout: '' });
  expect(refused.stderr).toContain(message);
  expect(refused.stderr.trim().split('\n')).toHaveLength(1);
});

test('what is wrong with an arm or a meter shows before the first turn, with its name', async () => {
  const [a, b] = [await stub(), createServer((_, response) => void response.setHeader('content-type', 'application/json').end('{"data":[{"id":"another-model"}]}'))];
  await new Promise<void>((resolve) => b.listen(0, '127.0.0.1', resolve));
  opened.push(() => new Promise((resolve) => b.close(resolve)));
  const other = `http://127.0.0.1:${(b.address() as { port: number }).port}`;
  const wrong = join(directory, 'wrong.yaml');
  writeFileSync(wrong, 'replicas: none\n');
  const said = async (...args: string[]): Promise<string> => {
    const { code, stderr, stdout } = await bench([...LOAD, ...SHORT, '--compare', `a=${a.url}`, ...args]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    return stderr;
  };
  expect(await said('--compare', 'b=http://127.0.0.1:9')).toContain('arm b: http://127.0.0.1:9: cannot be reached (ECONNREFUSED)');
  expect(await said('--compare', `b=${other}`)).toContain("arms answer different models: a has 'stub-model', b has 'another-model'; say which one with --model NAME");
  expect(await said('--compare', `b=${wrong}`)).toMatch(/the gateway of b ended with exit code 2 before it was ready[\s\S]*replicas/);
  expect(await said('--compare', `b=${a.url}`, '--meter', 'dcgm:http://127.0.0.1:9')).toContain('http://127.0.0.1:9: cannot be read (ECONNREFUSED); is dcgm-exporter running there?');
  expect(a.seen).toEqual([]);
}, 60_000);
