import { expect, test } from 'vitest';
import { generatedConversations } from '../../bench/affinity/conversations.ts';
import { ALL_MECHANISMS } from '../../src/core/mechanisms.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { simulate, type SimulatedRun } from '../../src/simulator/simulate.ts';

const profile = loadProfile('config/profiles/llama-3.1-8b.h200.json');
/** Busy enough that one replica is not enough for all, where nothing would have to be known. */
const requests = generatedConversations(1).slice(0, 600).map((request) => ({ ...request, atMs: request.atMs / 4 }));
const classes = requests.map(() => ({ name: 'chat', slo: { ttftMs: 5000, tpotMs: 40 } }));

function run(prefixAffinity: boolean, played = requests): SimulatedRun {
  return simulate({ requests: played, classes, replicas: 4, truth: profile, belief: profile, policy: { kind: 'paceline' }, mechanisms: { ...ALL_MECHANISMS, prefixAffinity }, seed: 1, untilMs: 180_000 });
}

test('conversations that stay where they were read are read less, for less energy and no fewer deadlines', () => {
  const [without, withIt] = [run(false), run(true)];
  const met = ({ reports }: SimulatedRun): number => reports.filter((report) => report.met === true).length;
  expect(withIt.cachedPromptTokens as number).toBeGreaterThan(1.15 * (without.cachedPromptTokens as number));
  expect(withIt.energyJ).toBeLessThan(without.energyJ);
  expect(met(withIt)).toBeGreaterThanOrEqual(met(without) - 3);
});

test('without hashes of prompts nothing depends on the mechanism', () => {
  const unknown = requests.slice(0, 200).map(({ atMs, promptTokens, outputTokens }) => ({ atMs, promptTokens, outputTokens }));
  expect(run(true, unknown)).toEqual(run(false, unknown));
});
