// What is predicted of real engines, against what happens: `node test/engines/figures.ts` after `make test-engines`. One JSON line each.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { percentiles } from '../../src/statistics/percentiles.ts';
import { serveEngine } from './behind-gateway.ts';
import { ENGINES, startEngine } from './engine.ts';
import { prompt, roughProfile } from './rough-profile.ts';

const REQUESTS = 40;
const OUTPUT_TOKENS = 32;
const EVERY_MS = 700;

for (const name of ENGINES) {
  const engine = await startEngine(name);
  const profile = (await roughProfile(engine)) as { prefill: { tokens: number; timeMs: number }[]; decode: { sequences: number; timeMs: number }[] };
  const file = join(mkdtempSync(join(tmpdir(), 'paceline-figures-')), 'profile.json');
  writeFileSync(file, JSON.stringify(profile));
  const gateway = await serveEngine(engine, file);
  const asked: Promise<{ predictedTtftMs: number; ttftMs: number; tpotMs: number }>[] = [];
  for (let request = 0; request < REQUESTS; request++) {
    asked.push(one(100 + ((request * 137) % 400)));
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
  const seen = await Promise.all(asked);

  async function one(promptTokens: number): Promise<{ predictedTtftMs: number; ttftMs: number; tpotMs: number }> {
    const askedAtMs = performance.now();
    const answer = await gateway.post({ prompt: prompt(promptTokens), max_tokens: OUTPUT_TOKENS, stream: true }, { path: '/v1/completions' });
    let firstAtMs = 0;
    for await (const _piece of answer.body ?? []) firstAtMs ||= performance.now();
    return { predictedTtftMs: Number(answer.headers.get('x-paceline-predicted-ttft-ms')), ttftMs: firstAtMs - askedAtMs, tpotMs: (performance.now() - firstAtMs) / (OUTPUT_TOKENS - 1) };
  }
  // The first ones are what the gateway learns from.
  const learnt = seen.slice(REQUESTS / 4);
  const round = (value: number | null): number | null => (value === null ? null : Number(value.toFixed(2)));
  const shares = percentiles(learnt.map(({ predictedTtftMs, ttftMs }) => ttftMs / predictedTtftMs));
  console.log(
    JSON.stringify({
      engine: name,
      cpu: cpus()[0]?.model,
      cores: cpus().length,
      loadAverage: loadavg()[0],
      prefillMs: Object.fromEntries(profile.prefill.map(({ tokens, timeMs }) => [tokens, round(timeMs)])),
      stepMs: Object.fromEntries(profile.decode.map(({ sequences, timeMs }) => [sequences, round(timeMs)])),
      requests: learnt.length,
      ttftOverPredicted: { p50: round(shares.p50), p99: round(shares.p99) },
      ttftMsP50: round(percentiles(learnt.map(({ ttftMs }) => ttftMs)).p50),
      tpotMsP50: round(percentiles(learnt.map(({ tpotMs }) => tpotMs)).p50),
      stepTimeResidual: ((await gateway.status()) as unknown as { replicas: { stepTimeResidual: number }[] }).replicas[0]?.stepTimeResidual,
    }),
  );
  await gateway.close();
  await engine.close();
}
