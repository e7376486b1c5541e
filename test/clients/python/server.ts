// A gateway in front of a server that does as the prompt says, for clients that are no JavaScript. Prints its addresses as one
// JSON line and ends with its standard input.
import { startGateway } from '../../fixtures/gateway-under-test.ts';
import type { Answer } from '../../fixtures/stub-upstream.ts';
import { completion, createStubUpstream, streamEvents } from '../../fixtures/stub-upstream.ts';

/** The text of the first message, as JSON; any other text is answered as usual. */
interface Wish {
  /** Refuse so many requests of this name with 429 and these headers. */
  readonly name?: string;
  readonly refuse?: number;
  readonly headers?: Record<string, string>;
  /** Refuse with this status and message for good. */
  readonly status?: number;
  readonly message?: string;
  /** Send the beginning of a stream and no more, or break off behind it. */
  readonly stall?: boolean;
  readonly breakOff?: boolean;
}

const asked = new Map<string, number>();

const answer: Answer = async (request, incoming, outgoing) => {
  if (request.path === '/v1/embeddings') return embeddings(request, incoming, outgoing);
  const { name = '', refuse = 0, headers = {}, status, message, stall = false, breakOff = false } = wishOf(request.body);
  const times = (asked.get(name) ?? 0) + 1;
  asked.set(name, times);
  if (status !== undefined || times <= refuse) {
    outgoing.writeHead(status ?? 429, { 'content-type': 'application/json', ...headers });
    return void outgoing.end(JSON.stringify({ error: { message: message ?? `refused for the ${times}. time`, type: 'x', param: null, code: null } }));
  }
  if (!stall && !breakOff) return completion(request, incoming, outgoing);
  outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
  outgoing.write(streamEvents({ id: 'c', created: 1, model: 'm' }).slice(0, 2).join(''), () => (breakOff ? outgoing.destroy() : undefined));
};

const embeddings: Answer = ({ body }, _incoming, outgoing) => {
  const { encoding_format: encoding } = JSON.parse(body) as { encoding_format?: string };
  const of = (numbers: readonly number[]): unknown => (encoding === 'base64' ? Buffer.from(Float32Array.from(numbers).buffer).toString('base64') : numbers);
  const data = [[1, 2], [3, 4]].map((numbers, index) => ({ object: 'embedding', index, embedding: of(numbers) }));
  outgoing.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ object: 'list', model: 'm', data, usage: { prompt_tokens: 2, total_tokens: 2 } }));
};

function wishOf(body: string): Wish {
  try {
    return JSON.parse((JSON.parse(body) as { messages: { content: string }[] }).messages[0]?.content ?? '') as Wish;
  } catch {
    return {};
  }
}

const upstream = await createStubUpstream(answer);
const gateway = await startGateway([upstream], { more: 'timeouts: { drainMs: 100 }' });
process.stdout.write(`${JSON.stringify({ url: gateway.url, adminUrl: gateway.adminUrl })}\n`);
process.stdin.resume();
process.stdin.once('end', () => {
  void gateway.close().then(() => upstream.close());
});
