import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createSseScanner, KEPT_EVENT_BYTES_MAX, LINE_BYTES_MAX } from '../../src/upstream/sse-scanner.ts';

function scan(...chunks: (string | Buffer)[]) {
  const scanner = createSseScanner();
  const counts = chunks.map((chunk) => scanner.push(Buffer.from(chunk)));
  return { tokens: counts.reduce((sum, count) => sum + count, 0), counts, usage: scanner.usage(), failed: scanner.failed(), atBoundary: scanner.atBoundary() };
}
const chat = (delta: object, usage: object | null = null): string => `data: ${JSON.stringify({ id: 'c', choices: [{ index: 0, delta, finish_reason: null }], usage })}\n\n`;

test.each([
  ['chat text', chat({ content: 'Hi' }), 1],
  ['chat text that is a quote', chat({ content: '"' }), 1],
  ['the role that comes first', chat({ role: 'assistant', content: '' }), 0],
  ['the end', chat({}), 0],
  ['no content', chat({ content: null }), 0],
  ['reasoning', chat({ content: null, reasoning_content: 'hm' }), 1],
  ['a tool call', chat({ tool_calls: [{ index: 0, function: { arguments: '{"a' } }] }), 1],
  ['text that talks of content', chat({ role: '"content":"x"' }), 0],
  ['log probabilities without text', `data: {"choices":[{"delta":{"content":""},"logprobs":{"content":[]}}]}\n\n`, 0],
  ['spaces after colons', 'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n', 1],
  ['no space after data', 'data:{"choices":[{"delta":{"content":"Hi"}}]}\n\n', 1],
  ['a completion', 'data: {"choices":[{"text":" a","index":0}]}\n\n', 1],
  ['an empty completion', 'data: {"choices":[{"text":"","index":0}]}\n\n', 0],
  ['a responses delta', 'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}\n\n', 1],
  ['a responses summary', 'event: response.output_text.done\ndata: {"type":"response.output_text.done","text":"Hi there"}\n\n', 0],
  ['a comment', ': keep-alive\n\n', 0],
  ['a comment inside an event', 'data: {"choices":[{"text":"a"}]}\n: keep-alive\n\n', 1],
  ['the end of the stream', 'data: [DONE]\n\n', 0],
  ['an event that is not over', 'data: {"choices":[{"text":"a"}]}\n', 0],
  ['two events', chat({ content: 'a' }) + chat({ content: 'b' }), 2],
  ['CRLF', chat({ content: 'a' }).replaceAll('\n', '\r\n') + chat({ content: 'b' }).replaceAll('\n', '\r\n'), 2],
  ['lone CR', chat({ content: 'a' }).replaceAll('\n', '\r') + chat({ content: 'b' }).replaceAll('\n', '\r'), 2],
])('counts %s', (_what, text, tokens) => {
  expect(scan(text).tokens).toBe(tokens);
});

test('reads usage, and keeps the last one', () => {
  const usage = { prompt_tokens: 9, completion_tokens: 3, prompt_tokens_details: { cached_tokens: 4 } };
  expect(scan(chat({ content: 'a' }, { prompt_tokens: 9, completion_tokens: 1 }), `data: ${JSON.stringify({ choices: [], usage })}\n\n`).usage).toEqual({ promptTokens: 9, cachedTokens: 4, outputTokens: 3 });
});

test('reads usage in the words of the responses endpoint', () => {
  const event = { type: 'response.completed', response: { output: [{ content: [{ type: 'output_text', text: 'Hi' }] }], usage: { input_tokens: 5, input_tokens_details: { cached_tokens: 2 }, output_tokens: 6 } } };
  const seen = scan(`event: response.completed\ndata: ${JSON.stringify(event)}\n\n`);
  expect(seen).toMatchObject({ tokens: 0, usage: { promptTokens: 5, cachedTokens: 2, outputTokens: 6 } });
});

test.each([['{"usage":null}'], ['{"usage":{"prompt_tokens":-1}}'], ['{"usage":{"prompt_tokens":"9"}}'], ['{"usage":{'], ['{"text":"\\"usage\\":{\\"prompt_tokens\\":1}"}']])('%s is no usage', (json) => {
  expect(scan(`data: ${json}\n\n`).usage).toBeNull();
});

test('sees an error inside the stream, and not in a text that shows one', () => {
  expect(scan('data: {"error":{"message":"engine died"}}\n\n').failed).toBe(true);
  expect(scan(chat({ content: '{"error":{' })).failed).toBe(false);
});

test('knows when an event is half said', () => {
  expect(scan('').atBoundary).toBe(true);
  expect(scan(chat({ content: 'a' })).atBoundary).toBe(true);
  expect(scan('data: {"cho').atBoundary).toBe(false);
  expect(scan('data: {}\n').atBoundary).toBe(false);
  expect(scan(': keep-alive\n').atBoundary).toBe(true);
});

test('a line beyond the bound is judged by its beginning and its end, and does not grow', () => {
  const long = `data: {"choices":[{"text":"${'x'.repeat(3 * LINE_BYTES_MAX)}"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n`;
  const chunks = long.match(/.{1,50000}|\n/g) ?? [];
  expect(scan(...chunks, chat({ content: 'a' }))).toMatchObject({ tokens: 2, usage: { promptTokens: 1, outputTokens: 2 }, atBoundary: true });
});

const event = fc.oneof(
  fc.string({ unit: 'grapheme', minLength: 1 }).map((content) => ({ text: chat({ content }), tokens: 1 })),
  fc.constant({ text: chat({ role: 'assistant', content: '' }), tokens: 0 }),
  fc.string({ unit: 'grapheme' }).map((comment) => ({ text: `:${comment.replaceAll(/[\r\n]/g, '')}\n\n`, tokens: 0 })),
  fc.constant({ text: 'data: [DONE]\n\n', tokens: 0 }),
  fc.nat(1000).map((tokens) => ({ text: `data: {"choices":[],"usage":{"prompt_tokens":${tokens},"completion_tokens":1}}\n\n`, tokens: 0 })),
);

test('however a stream is cut, the same is read from it', () => {
  fc.assert(
    fc.property(fc.array(event), fc.constantFrom('\n', '\r\n', '\r'), fc.array(fc.integer({ min: 1, max: 40 })), (events, lineEnd, sizes) => {
      const bytes = Buffer.from(events.map(({ text }) => text.replaceAll('\n', lineEnd)).join(''));
      const chunks: Buffer[] = [];
      for (let at = 0, index = 0; at < bytes.length; index++) {
        const size = sizes[index % Math.max(1, sizes.length)] ?? bytes.length;
        chunks.push(bytes.subarray(at, at + size));
        at += size;
      }
      const whole = scan(bytes);
      const cut = scan(...chunks);
      expect(cut.tokens).toBe(events.reduce((sum, { tokens }) => sum + tokens, 0));
      expect({ ...cut, counts: [] }).toEqual({ ...whole, counts: [] });
    }),
  );
});

const usageEvent = 'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}\n\n';

test.each([
  ['alone', [usageEvent], ''],
  ['between others', [chat({ content: 'a' }) + usageEvent, 'data: [DONE]\n\n'], `${chat({ content: 'a' })}data: [DONE]\n\n`],
  ['with spaces', ['data: {"choices": [ ], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}\n\ndata: [DONE]\n\n'], 'data: [DONE]\n\n'],
  ['with CRLF cut in half', [usageEvent.replaceAll('\n', '\r\n').slice(0, -1), '\ndata: [DONE]\r\n\r\n'], 'data: [DONE]\r\n\r\n'],
  ['with blanks anywhere', ['data: {"choices" : [\t], "usage" : {"prompt_tokens": 9}}\n\n'], ''],
  ['but not where others have choices', ['data: {"meta":{"choices":[]},"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":9}}\n\n'], 'data: {"meta":{"choices":[]},"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":9}}\n\n'],
  ['but not beside choices', [chat({ content: 'a' }, { prompt_tokens: 9, completion_tokens: 3 })], chat({ content: 'a' }, { prompt_tokens: 9, completion_tokens: 3 })],
  ['but not without usage', ['data: {"choices":[],"prompt_filter_results":[]}\n\n'], 'data: {"choices":[],"prompt_filter_results":[]}\n\n'],
  ['but not half of it, when the stream breaks', ['data: {"choices":[],"us'], 'data: {"choices":[],"us'],
])('the event that tells the usage is taken out %s', (_what, chunks, expected) => {
  expect(filtered(chunks.map((chunk) => Buffer.from(chunk))).toString()).toBe(expected);
});

/** All that goes on to the client. */
function filtered(chunks: readonly Buffer[]): Buffer {
  const scanner = createSseScanner({ hideUsage: true });
  const out = chunks.map((chunk) => {
    scanner.push(chunk);
    return Buffer.from(scanner.passed());
  });
  return Buffer.concat([...out, scanner.rest()]);
}

test.each([[-1], [0], [1]])('an event that tells the usage and is %i bytes over the bound passes or not, however it is cut', (over) => {
  const [head, tail] = ['data: {"choices":[],"x":"', '","usage":{"prompt_tokens":9}}\n\n'];
  const bytes = Buffer.from(head + 'x'.repeat(KEPT_EVENT_BYTES_MAX + over - head.length - tail.length) + tail);
  const expected = over > 0 ? bytes.toString() : '';
  expect(filtered([bytes]).toString()).toBe(expected);
  for (const at of [10, 5_000, bytes.length - 2, bytes.length - 1]) expect(filtered([bytes.subarray(0, at), bytes.subarray(at)]).toString()).toBe(expected);
});

test('a comment outside of events is not held back: a server may keep a connection alive with it', () => {
  const scanner = createSseScanner();
  scanner.push(Buffer.from(': ping\n'));
  expect(scanner.passed().toString()).toBe(': ping\n');
  scanner.push(Buffer.from('\n: pi'));
  expect(scanner.passed().toString()).toBe('\n');
});

test('an unfinished event is held back up to the bound, and a whole one never', () => {
  const scanner = createSseScanner({ hideUsage: true });
  scanner.push(Buffer.from(chat({ content: 'a' })));
  expect(scanner.passed().toString()).toBe(chat({ content: 'a' }));
  scanner.push(Buffer.from(`data: ${'x'.repeat(KEPT_EVENT_BYTES_MAX - 6)}`));
  expect(scanner.passed()).toHaveLength(0);
  scanner.push(Buffer.from('y'));
  expect(scanner.passed()).toHaveLength(KEPT_EVENT_BYTES_MAX + 1);
  scanner.push(Buffer.from('\n\n'));
  expect(scanner.passed().toString()).toBe('\n\n');
});

test('however a stream is cut, the same events are taken out', () => {
  const events = fc.array(fc.oneof(event, fc.constant({ text: usageEvent, tokens: 0 })));
  fc.assert(
    fc.property(events, fc.constantFrom('\n', '\r\n', '\r'), fc.array(fc.integer({ min: 1, max: 40 })), (stream, lineEnd, sizes) => {
      const written = (text: string): string => text.replaceAll('\n', lineEnd);
      const bytes = Buffer.from(stream.map(({ text }) => written(text)).join(''));
      const chunks: Buffer[] = [];
      for (let at = 0, index = 0; at < bytes.length; index++) {
        const size = sizes[index % Math.max(1, sizes.length)] ?? bytes.length;
        chunks.push(bytes.subarray(at, at + size));
        at += size;
      }
      const wanted = stream.filter(({ text }) => !text.startsWith('data: {"choices":[],') && text !== usageEvent);
      expect(filtered(chunks).toString()).toBe(wanted.map(({ text }) => written(text)).join(''));
    }),
  );
});
