// What a request is to be answered with, to the letter: the client knows it beforehand, so that a byte that is lost, comes
// twice or from somebody else's answer shows. The stub numbers its tokens; an emulated server's words follow from the prompt.
import type { PromptReader } from '../../src/engine/text.ts';
import { answerText, createPromptReader } from '../../src/engine/text.ts';
import type { PlannedRequest } from './schedule.ts';

const MAX_TOKENS = 1_024;

export function promptOf({ id, promptWords }: Pick<PlannedRequest, 'id' | 'promptWords'>): string {
  return Array.from({ length: promptWords }, (_, word) => `${id}.${word}`).join(' ');
}

export function expectedText(request: Pick<PlannedRequest, 'id' | 'endpoint' | 'promptWords' | 'outputTokens'>, server: 'emulated' | 'stub'): string {
  if (server === 'stub') return Array.from({ length: request.outputTokens }, (_, token) => stubToken(request.id, token)).join('');
  const reader = readPrompt(request);
  return answerText(reader.prefixBlocks().at(-1) ?? reader.tokens(), request.outputTokens);
}

/** As an emulated server counts them. */
export function promptTokensOf(request: Pick<PlannedRequest, 'id' | 'endpoint' | 'promptWords'>): number {
  return readPrompt(request).tokens();
}

function readPrompt(request: Pick<PlannedRequest, 'id' | 'endpoint' | 'promptWords'>): PromptReader {
  const reader = createPromptReader();
  if (request.endpoint === 'chat') reader.startMessage('user');
  reader.addText(promptOf(request));
  return reader;
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
    max_tokens: request.maxTokens ?? MAX_TOKENS,
    metadata: { emulate_output_tokens: String(outputTokens) },
  });
}
