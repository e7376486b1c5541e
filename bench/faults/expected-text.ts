// What a request is to be answered with, to the letter: the client knows it beforehand, so that a byte that is lost, comes
// twice or from somebody else's answer shows. The stub numbers its tokens; an emulated server's words follow from the prompt.
import { answerText } from '../../src/engine/text.ts';
import { createPromptReader } from '../../src/engine/text.ts';
import type { PlannedRequest } from './schedule.ts';

export function promptOf({ id, promptWords }: Pick<PlannedRequest, 'id' | 'promptWords'>): string {
  return Array.from({ length: promptWords }, (_, word) => `${id}.${word}`).join(' ');
}

export function expectedText(request: Pick<PlannedRequest, 'id' | 'endpoint' | 'promptWords' | 'outputTokens'>, server: 'emulated' | 'stub'): string {
  if (server === 'stub') return Array.from({ length: request.outputTokens }, (_, token) => stubToken(request.id, token)).join('');
  const reader = createPromptReader();
  if (request.endpoint === 'chat') reader.startMessage('user');
  reader.addText(promptOf(request));
  return answerText(reader.prefixBlocks().at(-1) ?? reader.tokens(), request.outputTokens);
}

/** `id:7 `; beyond the last comes none. */
export function stubToken(id: string, token: number): string {
  return `${id}:${token} `;
}

export function requestBody(request: PlannedRequest, model: string): string {
  const { endpoint, stream, asksUsage, outputTokens } = request;
  const prompt = promptOf(request);
  return JSON.stringify({
    model,
    ...(endpoint === 'chat' ? { messages: [{ role: 'user', content: prompt }] } : { prompt }),
    ...(stream ? { stream: true } : {}),
    ...(stream && asksUsage ? { stream_options: { include_usage: true } } : {}),
    max_tokens: 1_024,
    metadata: { emulate_output_tokens: String(outputTokens) },
  });
}
