// Prompts that begin alike: Mooncake's recorded conversations where they are, generated ones of like sizes elsewhere.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { PerformanceModel } from '../../src/frontier/performance-model.ts';
import { exponential, logNormal } from '../../src/random/distributions.ts';
import { createRandom } from '../../src/random/random.ts';
import { loadWorkload } from '../../src/workload/load-workload.ts';
import { PREFIX_BLOCK_TOKENS } from '../../src/workload/prefix-block.ts';
import type { WorkloadRequest } from '../../src/workload/request.ts';
import { type Source, sourceFrom } from '../energy/workloads.ts';

const TRACE = resolve(import.meta.dirname, '../../../shared/data/mooncake-fast25/conversation_trace.jsonl');
const LENGTH_S = 3500;

/** Of the stand-in: a few products with long instructions each, people who come back to their conversation. */
const GENERATED = { conversationsPerS: 1.2, instructions: 12, instructionsTokens: 2560, turnsMean: 3, thinkingMeanS: 60, messageTokens: { mean: 1800, cv: 1.2 }, answerTokens: { mean: 340, cv: 0.8 } };

/** `generated`: even where the trace is. */
export async function conversations(model: PerformanceModel, seed: number, generated: boolean): Promise<Source> {
  const recorded = !generated && existsSync(TRACE);
  const requests = recorded ? (await loadWorkload({ kind: 'mooncake', file: TRACE }, { fromS: 0, durationS: LENGTH_S }, seed)).requests : generatedConversations(seed);
  return sourceFrom('mooncake', model, requests, { recorded, lengthS: LENGTH_S });
}

/** Each turn's prompt is the one before it with its answer and a new message; conversations of one product begin alike. */
export function generatedConversations(seed: number): readonly WorkloadRequest[] {
  const random = createRandom(seed, 'conversations');
  const { conversationsPerS, instructions, instructionsTokens, turnsMean, thinkingMeanS, messageTokens, answerTokens } = GENERATED;
  const requests: WorkloadRequest[] = [];
  let nextBlock = instructions * (instructionsTokens / PREFIX_BLOCK_TOKENS);
  for (let startS = exponential(random, 1 / conversationsPerS); startS < LENGTH_S; startS += exponential(random, 1 / conversationsPerS)) {
    // The first products are the ones most people use.
    const product = Math.min(instructions - 1, Math.floor(exponential(random, instructions / 4)));
    const blocks = Array.from({ length: instructionsTokens / PREFIX_BLOCK_TOKENS }, (_, index) => product * (instructionsTokens / PREFIX_BLOCK_TOKENS) + index);
    let tokens = instructionsTokens;
    let atMs = startS * 1000;
    do {
      tokens += Math.max(1, Math.round(logNormal(random, messageTokens.mean, messageTokens.cv)));
      while (blocks.length < Math.floor(tokens / PREFIX_BLOCK_TOKENS)) blocks.push(nextBlock++);
      const outputTokens = Math.max(1, Math.round(logNormal(random, answerTokens.mean, answerTokens.cv)));
      requests.push({ atMs, promptTokens: tokens, outputTokens, prefixBlocks: blocks.slice() });
      tokens += outputTokens;
      atMs += exponential(random, thinkingMeanS * 1000);
    } while (random() < 1 - 1 / turnsMean);
  }
  return requests.filter(({ atMs }) => atMs < LENGTH_S * 1000).sort((a, b) => a.atMs - b.atMs);
}
