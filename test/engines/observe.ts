// `paceline profile --observe` of the engines of `make test-engines`, without an agent: times alone, no energy, and so no profile. Prints them, and how
// far the form that profiles are fitted by is off them.
//   node test/engines/observe.ts [transformers] [llama.cpp]
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { nonNegativeLeastSquares } from '../../src/frontier/least-squares.ts';
import { type Measurement, workText } from '../../src/profiler/measurement.ts';
import { CONTEXT_TOKENS, type EngineName, ENGINES, PLACES, startEngine } from './engine.ts';

const MAIN = resolve(import.meta.dirname, '../../src/main.ts');
const BATCH_TOKENS = 512;
const names = process.argv.slice(2).length === 0 ? ENGINES : (process.argv.slice(2) as EngineName[]);

process.stdout.write(`${cpus().length} x ${cpus()[0]?.model ?? 'unknown CPU'}, load ${loadavg()[0]?.toFixed(1)} before\n`);
for (const name of names) {
  const directory = mkdtempSync(join(tmpdir(), 'paceline-observe-'));
  const engine = await startEngine(name);
  try {
    const { stdout, stderr } = await promisify(execFile)(
      process.execPath,
      [MAIN, 'profile', '--observe', '--url', engine.url, '--model', engine.model, '--endpoint', name === 'transformers' ? 'chat' : 'completions', '--max-batch-tokens', String(BATCH_TOKENS), '--max-sequences', String(PLACES), '--kv-tokens', String(PLACES * CONTEXT_TOKENS), '--max-output-tokens', '512', '--out', join(directory, 'p.json'), '--json'],
      { timeout: 600_000 },
    );
    const { profile, times } = JSON.parse(stdout) as { profile: unknown; times: readonly Measurement[] };
    process.stdout.write(`${name}: ${profile === null ? 'times only, no profile (no energy)' : 'a profile'}\n`);
    for (const { work, timeMs } of times) process.stdout.write(`  ${workText(work)}: ${timeMs?.toPrecision(4)} ms\n`);
    const [prefill, decode] = (['prefill', 'decode'] as const).map((kind) => times.filter(({ work }) => work.kind === kind));
    process.stdout.write(`  fit off by ${errorPct(prefill ?? [], ({ tokens }) => prompt(tokens)).toFixed(1)} % (prefill), ${errorPct(decode ?? [], ({ work, tokens }) => [1, work.kind === 'decode' ? work.sequences : 0, tokens]).toFixed(1)} % (decode)\n`);
    if (stderr.includes('halves')) process.stdout.write(`${stderr.split('\n').filter((line) => line.includes('halves')).map((line) => `  ${line}\n`).join('')}`);
  } finally {
    await engine.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Of a prompt in chunks: how many, tokens, and what they attend to. */
function prompt(tokens: number): number[] {
  const chunks = Math.ceil(tokens / BATCH_TOKENS);
  return [chunks, tokens, (tokens * tokens) / 2];
}

function errorPct(measured: readonly Measurement[], features: (one: Measurement) => number[]): number {
  const fit = nonNegativeLeastSquares(measured.map((one) => features(one).map((value) => value / (one.timeMs ?? 1))), measured.map(() => 1));
  const errors = measured.map((one) => Math.abs(features(one).reduce((sum, value, index) => sum + value * (fit[index] ?? 0), 0) / (one.timeMs ?? 1) - 1));
  return (100 * errors.reduce((sum, error) => sum + error, 0)) / Math.max(1, errors.length);
}
