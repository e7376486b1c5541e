// A profile of an engine by a handful of requests, for tests that need one that is about right: times alone, as there is nothing here
// that could measure energy.
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import type { Engine } from './engine.ts';
import { CONTEXT_TOKENS, PLACES } from './engine.ts';

const PREFILL_TOKENS = [64, 512, 1_500] as const;
const SEQUENCES = [1, 4, PLACES] as const;
const DECODED_TOKENS = 48;
const ROUNDS = 3;
/** The format wants energies: as if it drew the same power whatever it does, so that no choice comes from it. */
const ASSUMED_W = 2;
const energyJ = (timeMs: number): number => (timeMs * ASSUMED_W) / 1_000;

export async function roughProfile(engine: Engine): Promise<object> {
  await ask(engine, 200, 8);
  const prefill = [];
  for (const tokens of PREFILL_TOKENS) {
    const times = [];
    for (let round = 0; round < ROUNDS; round++) times.push((await ask(engine, tokens, 2)).firstMs);
    prefill.push({ tokens, contextTokens: 0, point: 'cpu', timeMs: Math.min(...times), energyJ: energyJ(Math.min(...times)) });
  }
  const decode = [];
  for (const sequences of SEQUENCES) {
    const times = [];
    for (let round = 0; round < ROUNDS; round++) {
      const answers = await Promise.all(Array.from({ length: sequences }, () => ask(engine, 32, DECODED_TOKENS)));
      times.push(...answers.map(({ perTokenMs }) => perTokenMs));
    }
    const timeMs = times.sort((a, b) => a - b)[times.length >> 1] as number;
    decode.push({ sequences, contextTokens: 64, point: 'cpu', timeMs, energyJ: energyJ(timeMs) });
  }
  return {
    format: 'paceline-profile/1',
    name: `tiny-llama.${engine.name}`,
    model: 'tiny-llama',
    engine: { name: engine.name },
    deviceGroup: { device: cpus()[0]?.model ?? 'CPU', devices: 1 },
    knobs: { clock: { unit: 'none', description: 'Cannot be set here.' } },
    points: [{ id: 'cpu', knobs: { clock: 'as found' }, idlePowerW: ASSUMED_W / 2 }],
    prefill,
    decode,
    launchOverheadMs: 0,
    switch: { latencyMs: 1, outlierMs: 1, outlierShare: 0 },
    serving: { maxBatchTokens: 512, maxSequences: PLACES, kvTokens: PLACES * CONTEXT_TOKENS },
    provenance: { measuredBy: 'test/engines/rough-profile.ts', measuredOn: `${cpus().length} × ${cpus()[0]?.model}`, measuredAt: new Date().toISOString(), method: 'the fastest of three first tokens; the median of times per token. Energy: not measured, assumed.', sources: [], licence: 'Apache-2.0', madeBy: 'test/engines/rough-profile.ts' },
  };
}

/** Nobody has sent these words before: what an engine has cached would be no measurement. */
export function prompt(tokens: number): string {
  const words = madeUpWords();
  return Array.from({ length: tokens }, () => words[Math.floor(Math.random() * words.length)]).join('');
}

let made: readonly string[] | null = null;
/** Tokens of the model that are words, so that one is one token. */
function madeUpWords(): readonly string[] {
  if (made !== null) return made;
  const { model } = JSON.parse(readFileSync(new URL('.engines/model/tiny-llama/tokenizer.json', import.meta.url), 'utf8')) as { model: { vocab: Record<string, number> } };
  made = Object.keys(model.vocab)
    .filter((token) => /^\u0120[a-z]{4,}$/.test(token))
    .map((token) => token.replace('\u0120', ' '));
  return made;
}

async function ask(engine: Engine, promptTokens: number, outputTokens: number): Promise<{ readonly firstMs: number; readonly perTokenMs: number }> {
  const askedAtMs = performance.now();
  const answer = await fetch(`${engine.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: engine.model, prompt: prompt(promptTokens), max_tokens: outputTokens, stream: true }),
  });
  if (answer.body === null || answer.status !== 200) throw new Error(`${engine.name} answered ${answer.status} ${await answer.text()}`);
  let firstAtMs = 0;
  for await (const _piece of answer.body) firstAtMs ||= performance.now();
  return { firstMs: firstAtMs - askedAtMs, perTokenMs: (performance.now() - firstAtMs) / (outputTokens - 1) };
}
