// What is asked of profiles beyond what they cover: requests that no replica can hold, and work larger than was measured.
import type { Profile } from '../frontier/profile.ts';
import type { Physics } from '../engine/physics.ts';
import { KV_BLOCK_TOKENS } from '../engine/kv-cache.ts';
import type { WorkloadRequest } from '../workload/request.ts';

/** Fits are linear in the work, so that up to this many times the largest measured they are near enough to say nothing. */
const BEYOND_MEASURED = 2;

/** Prompt and output together must fit into the KV memory of a server that holds nothing else. */
export function fitsInto({ serving }: Profile, { promptTokens, outputTokens }: WorkloadRequest): boolean {
  return promptTokens + outputTokens <= Math.floor(serving.kvTokens / KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS;
}

/** For people; `null` where every request fits into some replica. */
export function oversized(requests: readonly WorkloadRequest[], truths: readonly Profile[]): string | null {
  const largest = truths.reduce((best, truth) => (truth.serving.kvTokens > best.serving.kvTokens ? truth : best));
  const index = requests.findIndex((request) => !fitsInto(largest, request));
  const request = requests[index];
  if (request === undefined) return null;
  const more = requests.filter((other) => !fitsInto(largest, other)).length - 1;
  const where = request.line === undefined ? `request ${index}` : `request ${index} (trace line ${request.line})`;
  return `${where}: ${request.promptTokens}+${request.outputTokens} tokens, ${largest.name} holds kvTokens ${largest.serving.kvTokens}${more === 0 ? '' : `, and ${more} more like it`}`;
}

/** One line for each kind of work that is extrapolated, with the clock whose measurements end first. */
export function extrapolations(profile: Profile, requests: readonly WorkloadRequest[], sequencesAsked: number): readonly string[] {
  const { serving } = profile;
  const longestPrompt = requests.reduce((most, { promptTokens }) => Math.max(most, promptTokens), 0);
  const longest = requests.reduce((most, { promptTokens, outputTokens }) => Math.max(most, promptTokens + outputTokens), 0);
  const chunk = Math.min(serving.maxBatchTokens, longestPrompt);
  const asked = [
    { what: 'prefill batch', unit: 'tokens', asked: chunk, sizeAt: (id: string) => largest(profile.prefill.filter(({ point }) => point === id).map(({ tokens }) => tokens)) },
    { what: 'prompt', unit: 'tokens', asked: longestPrompt, sizeAt: (id: string) => largest(profile.prefill.filter(({ point }) => point === id).map(({ tokens, contextTokens }) => tokens + contextTokens)) },
    { what: 'decode batch', unit: 'sequences', asked: Math.min(serving.maxSequences, sequencesAsked, requests.length), sizeAt: (id: string) => largest(profile.decode.filter(({ point }) => point === id).map(({ sequences }) => sequences)) },
    { what: 'context of a decoding sequence', unit: 'tokens', asked: longest, sizeAt: (id: string) => largest(profile.decode.filter(({ point }) => point === id).map(({ sequences, contextTokens }) => contextTokens / sequences)) },
  ];
  return asked.flatMap(({ what, unit, asked: wanted, sizeAt }) => {
    const sizes = profile.points.map(({ id }) => ({ id, size: sizeAt(id) }));
    const least = sizes.reduce((smallest, other) => (other.size < smallest.size ? other : smallest));
    if (wanted <= BEYOND_MEASURED * least.size) return [];
    return [`${profile.name}: largest measured ${what} ${Math.round(least.size)} ${unit} at point ${least.id}, asked up to ${wanted}: extrapolated`];
  });
}

/** A cap that the devices cannot keep; `null` where they can. */
export function uncapped(physics: Physics, powerCapW: number): string | null {
  const { profile, measuredClocksMhz } = physics;
  const lowestMhz = measuredClocksMhz[0] as number;
  const { maxBatchTokens } = profile.serving;
  const leastW = physics.iterationPowerW({ prefill: { tokens: maxBatchTokens, contextTokens: 0 }, decode: { sequences: 0, contextTokens: 0 } }, lowestMhz);
  if (leastW <= powerCapW) return null;
  return `${profile.name}: a prefill of ${maxBatchTokens} tokens draws ${Math.round(leastW)} W even at ${lowestMhz} MHz, the lowest clock measured: a cap of ${powerCapW} W is not kept there`;
}

function largest(sizes: readonly number[]): number {
  return sizes.reduce((most, size) => Math.max(most, size), 0);
}
