// The bodies of answers: whole, and as server-sent events. A token's event is put together from prepared text, because a
// busy replica writes ten thousand of them a second.
import type { Endpoint } from './openai-request.ts';

export interface AnswerUsage {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
}

export interface AnswerHead {
  readonly endpoint: Endpoint;
  readonly id: string;
  readonly model: string;
  /** Unix time. */
  readonly createdAtS: number;
  readonly includeUsage: boolean;
}

export type FinishReason = 'stop' | 'length';

/** Each gives the text to write next. */
export interface AnswerStream {
  /** Before the first token. */
  begin(): string;
  token(text: string): string;
  end(text: string, finishReason: FinishReason, usage: AnswerUsage): string;
}

export function answerStream(head: AnswerHead): AnswerStream {
  return head.endpoint === 'response' ? responseStream(head) : choiceStream(head);
}

/** The body of an answer that is not streamed. */
export function wholeAnswer(head: AnswerHead, text: string, finishReason: FinishReason, usage: AnswerUsage): string {
  const { endpoint, id, model, createdAtS } = head;
  if (endpoint === 'response') return JSON.stringify(responseObject(head, { text, finishReason, usage }));
  const choice = endpoint === 'chat' ? { message: { role: 'assistant', content: text, refusal: null } } : { text };
  return JSON.stringify({
    id,
    object: endpoint === 'chat' ? 'chat.completion' : 'text_completion',
    created: createdAtS,
    model,
    choices: [{ index: 0, ...choice, logprobs: null, finish_reason: finishReason }],
    usage: usageObject(usage),
  });
}

function usageObject({ promptTokens, cachedTokens, outputTokens }: AnswerUsage): object {
  return { prompt_tokens: promptTokens, completion_tokens: outputTokens, total_tokens: promptTokens + outputTokens, prompt_tokens_details: { cached_tokens: cachedTokens } };
}

/** Chat and text completions: chunks with one choice, then `[DONE]`. */
function choiceStream({ endpoint, id, model, createdAtS, includeUsage }: AnswerHead): AnswerStream {
  const chat = endpoint === 'chat';
  const start = `data: {"id":${JSON.stringify(id)},"object":"${chat ? 'chat.completion.chunk' : 'text_completion'}","created":${createdAtS},"model":${JSON.stringify(model)},"choices":[`;
  const usageNull = includeUsage ? ',"usage":null' : '';
  // The emulator's words need no escaping.
  const beforeToken = chat ? `${start}{"index":0,"delta":{"content":"` : `${start}{"index":0,"text":"`;
  const afterToken = `${chat ? '"}' : '"'},"logprobs":null,"finish_reason":null}]${usageNull}}\n\n`;
  return {
    begin: () => (chat ? `${start}{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]${usageNull}}\n\n` : ''),
    token: (text) => `${beforeToken}${text}${afterToken}`,
    end: (_text, finishReason, usage) => {
      const last = `${start}{"index":0,${chat ? '"delta":{}' : '"text":""'},"logprobs":null,"finish_reason":"${finishReason}"}]${usageNull}}\n\n`;
      const usageChunk = includeUsage ? `${start}],"usage":${JSON.stringify(usageObject(usage))}}\n\n` : '';
      return `${last}${usageChunk}data: [DONE]\n\n`;
    },
  };
}

interface ResponseOutcome {
  readonly text: string;
  readonly finishReason: FinishReason;
  readonly usage: AnswerUsage;
}

function responseObject({ id, model, createdAtS }: AnswerHead, outcome: ResponseOutcome | null): object {
  const cut = outcome?.finishReason === 'length';
  return {
    id,
    object: 'response',
    created_at: createdAtS,
    status: outcome === null ? 'in_progress' : cut ? 'incomplete' : 'completed',
    error: null,
    incomplete_details: cut ? { reason: 'max_output_tokens' } : null,
    instructions: null,
    metadata: {},
    model,
    output: outcome === null ? [] : [messageItem(id, outcome.text, cut ? 'incomplete' : 'completed')],
    parallel_tool_calls: true,
    temperature: 1,
    tool_choice: 'auto',
    tools: [],
    top_p: 1,
    usage:
      outcome === null
        ? null
        : {
            input_tokens: outcome.usage.promptTokens,
            input_tokens_details: { cached_tokens: outcome.usage.cachedTokens },
            output_tokens: outcome.usage.outputTokens,
            output_tokens_details: { reasoning_tokens: 0 },
            total_tokens: outcome.usage.promptTokens + outcome.usage.outputTokens,
          },
  };
}

function messageItem(responseId: string, text: string | null, status: string): object {
  return { id: `msg_${responseId}`, type: 'message', role: 'assistant', status, content: text === null ? [] : [{ type: 'output_text', text, annotations: [] }] };
}

/** The Responses API: typed and numbered events, no `[DONE]`. */
function responseStream(head: AnswerHead): AnswerStream {
  let sequenceNumber = 0;
  const event = (type: string, fields: object): string => `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: sequenceNumber++, ...fields })}\n\n`;
  const place = { item_id: `msg_${head.id}`, output_index: 0, content_index: 0 };
  return {
    begin: () =>
      event('response.created', { response: responseObject(head, null) }) +
      event('response.in_progress', { response: responseObject(head, null) }) +
      event('response.output_item.added', { output_index: 0, item: messageItem(head.id, null, 'in_progress') }) +
      event('response.content_part.added', { ...place, part: { type: 'output_text', text: '', annotations: [] } }),
    token: (text) => event('response.output_text.delta', { ...place, delta: text, logprobs: [] }),
    end: (text, finishReason, usage) => {
      const status = finishReason === 'length' ? 'incomplete' : 'completed';
      return (
        event('response.output_text.done', { ...place, text, logprobs: [] }) +
        event('response.content_part.done', { ...place, part: { type: 'output_text', text, annotations: [] } }) +
        event('response.output_item.done', { output_index: 0, item: messageItem(head.id, text, status) }) +
        event(`response.${status}`, { response: responseObject(head, { text, finishReason, usage }) })
      );
    },
  };
}

/** OpenAI's error body; all four fields are always there. */
export function errorBody(message: string, status: number, param: string | null, code: string | null): string {
  return JSON.stringify({ error: { message, type: status >= 500 ? 'server_error' : 'invalid_request_error', param, code } });
}
