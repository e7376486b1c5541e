// Tells in an answer, as OpenAI does, which service tier the request was served with: in the object of an answer in JSON, and
// in that of each event of a stream.
import type { AnswerHead } from './answer-head.ts';
import { isReadable } from './answer-head.ts';
import type { Endpoint } from './endpoints.ts';
import { type AnswerWriter, ofDocument, ofEvents } from './answer-writer.ts';

/** Of chat, completions and responses. */
export function createTierWriter(tier: string, { endpoint, streams }: { readonly endpoint: Endpoint; readonly streams: boolean }): AnswerWriter {
  const member = { name: 'service_tier', value: () => JSON.stringify(tier) };
  // Events of `responses` have a response inside where they tell of one, and nothing else has a tier. An error has no choices, and gets none.
  if (endpoint === 'responses') return streams ? ofEvents({ ...member, within: ['response'], beside: null }) : ofDocument({ ...member, within: [], beside: 'output' });
  const beside = { ...member, within: [], beside: 'choices' };
  return streams ? ofEvents(beside) : ofDocument(beside);
}

/** For an answer in JSON, or a stream, that can be read and is no error; `null` where it is another. */
export function tierWriterFor(tier: string, endpoint: Endpoint, { statusCode, headers, streams }: AnswerHead): AnswerWriter | null {
  if (statusCode !== 200 || !isReadable(headers)) return null;
  if (!streams && !/^application\/json\b/i.test(headers['content-type'] ?? '')) return null;
  return createTierWriter(tier, { endpoint, streams });
}
