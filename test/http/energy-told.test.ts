// What a request is told of the energy that it took: only where it asks, in a header or in the usage, and nothing else is touched.
import { afterEach, describe, expect, test } from 'vitest';
import type { JobEnergy } from '../../src/core/energy-ledger.ts';
import { energyWriterFor, readEnergyAsked } from '../../src/http/energy-told.ts';
import { HELD_BYTES_MAX } from '../../src/http/held-answer.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { startGateway } from '../fixtures/gateway-under-test.ts';
import type { Answer, StubUpstream } from '../fixtures/stub-upstream.ts';
import { completion, createStubUpstream, streamEvents, USAGE } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function start(answer: Answer = completion): Promise<{ readonly gateway: GatewayUnderTest; readonly upstream: StubUpstream }> {
  const upstream = await createStubUpstream(answer);
  opened.push(upstream);
  const gateway = await startGateway([upstream]);
  opened.push(gateway);
  return { gateway, upstream };
}

function post(gateway: GatewayUnderTest, body: object, headers: Record<string, string> = { 'x-paceline-energy': '1' }): Promise<Response> {
  return fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', body: JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hi' }], ...body }), headers: { 'content-type': 'application/json', ...headers } });
}

/** Data of events, as a client reads them. */
function dataOf(text: string): Record<string, unknown>[] {
  return text.split('\n\n').filter((event) => event.startsWith('data: {')).map((event) => JSON.parse(event.slice(6)) as Record<string, unknown>);
}
const ENERGY = { mj: expect.any(Number), metered_mj: 0, source: 'modelled' };

describe('a whole answer', () => {
  test('has the energy in headers, said to be modelled where there is no meter, and its bytes as they came', async () => {
    const { gateway } = await start();
    const [asked, plain] = [await post(gateway, {}), await post(gateway, {}, {})];
    expect(Number(asked.headers.get('x-paceline-energy-mj'))).toBeGreaterThan(0);
    expect(asked.headers.get('x-paceline-energy-source')).toBe('modelled');
    expect([...plain.headers.keys()].filter((name) => name.startsWith('x-paceline-energy'))).toEqual([]);
    const [first, second] = [await asked.text(), await plain.text()];
    expect(first).toBe(second);
    expect(asked.headers.get('content-length')).toBe(plain.headers.get('content-length'));
  });

  test('is charged by the usage that it tells', async () => {
    const answer = (usage: object): Answer => (_request, _incoming, outgoing) => void outgoing.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ choices: [], usage }));
    const { gateway, upstream } = await start(answer({ ...USAGE, completion_tokens: 10 }));
    const energyOf = async (): Promise<number> => Number((await post(gateway, {})).headers.get('x-paceline-energy-mj'));
    const few = await energyOf();
    upstream.answer = answer({ ...USAGE, completion_tokens: 1_000 });
    expect(await energyOf()).toBeGreaterThan(20 * few);
  });

  test('that is longer than what is held goes on before its end, with what is known by then', async () => {
    const { gateway } = await start(async (_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'application/json' });
      for (let sent = 0; sent < 3; sent++) {
        outgoing.write('x'.repeat(HELD_BYTES_MAX / 2 + 1));
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      outgoing.end();
    });
    const answer = await post(gateway, {});
    expect(answer.headers.get('x-paceline-energy-source')).toBe('modelled');
    expect((await answer.text()).length).toBe(3 * (HELD_BYTES_MAX / 2 + 1));
  });

  test('that breaks off before anything has gone out is an error with a status', async () => {
    const { gateway } = await start((_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' });
      outgoing.write('{"choi', () => outgoing.destroy());
    });
    const answer = await post(gateway, {});
    expect(answer.status).toBe(502);
    expect(await answer.json()).toHaveProperty('error');
  });

  test('that is an error tells no energy', async () => {
    const { gateway } = await start((_request, _incoming, outgoing) => void outgoing.writeHead(400, { 'content-type': 'application/json' }).end('{"error":{"message":"no"}}'));
    const answer = await post(gateway, {});
    expect(answer.status).toBe(400);
    expect(answer.headers.has('x-paceline-energy-mj')).toBe(false);
    expect(await answer.text()).toBe('{"error":{"message":"no"}}');
  });
});

describe('a stream', () => {
  test('has the energy in its usage, which it need not have asked for, and every other event as it came', async () => {
    const { gateway } = await start();
    const text = await (await post(gateway, { stream: true })).text();
    const wanted = streamEvents({ id: 'chatcmpl-1', created: 1, model: 'm' });
    const events = text.split(/(?<=\n\n)/);
    expect(events).toHaveLength(wanted.length);
    expect(events.filter((event, index) => event !== wanted[index])).toHaveLength(1);
    expect(dataOf(text).at(-1)).toEqual({ ...dataOf(wanted.join('')).at(-1), usage: { ...USAGE, energy: ENERGY } });
    expect((dataOf(text).at(-1) as { readonly usage: { readonly energy: { readonly mj: number } } }).usage.energy.mj).toBeGreaterThan(0);
  });

  test('has nothing of it where it did not ask', async () => {
    const { gateway } = await start();
    const text = await (await post(gateway, { stream: true, stream_options: { include_usage: true } }, { 'x-paceline-energy': '0' })).text();
    expect(text).toBe(streamEvents({ id: 'chatcmpl-1', created: 1, model: 'm' }).join(''));
  });

  test('of another API has it where that API tells its usage', () => {
    const energy: JobEnergy = { meteredJ: 1.5, modelledJ: 0.25, maximumClockJ: 2 };
    const written = (endpoint: 'responses' | 'messages', event: object): unknown => {
      const head = { statusCode: 200, headers: { 'content-type': 'text/event-stream' }, streams: true } as Parameters<typeof energyWriterFor>[1];
      const writer = energyWriterFor(endpoint, head, () => energy);
      return dataOf((writer?.push(Buffer.from(`data: ${JSON.stringify(event)}\n\n`)) ?? '').toString())[0];
    };
    const told = { mj: 1_750, metered_mj: 1_500, source: 'partly-metered' };
    expect(written('responses', { type: 'response.completed', response: { id: 'r', usage: { input_tokens: 1 } } })).toEqual({ type: 'response.completed', response: { id: 'r', usage: { input_tokens: 1, energy: told } } });
    expect(written('responses', { type: 'response.created', response: { id: 'r', usage: null } })).toEqual({ type: 'response.created', response: { id: 'r', usage: null } });
    expect(written('messages', { type: 'message_delta', delta: {}, usage: { output_tokens: 3 } })).toEqual({ type: 'message_delta', delta: {}, usage: { output_tokens: 3, energy: told } });
  });
});

test.each([['1', true], ['true', true], ['0', false], ['false', false]])('x-paceline-energy: %s is read as %s', (value, asked) => {
  expect(readEnergyAsked({ 'x-paceline-energy': value })).toEqual({ kind: 'ok', asked });
});

test('anything else in x-paceline-energy is refused, with what is allowed', async () => {
  const { gateway, upstream } = await start();
  const answer = await post(gateway, {}, { 'x-paceline-energy': 'yes please' });
  expect(answer.status).toBe(400);
  expect(((await answer.json()) as { readonly error: { readonly message: string; readonly param: string } }).error).toMatchObject({ param: 'x-paceline-energy', message: "x-paceline-energy: got 'yes please', allowed: 1, true, 0, false" });
  expect(upstream.requests).toHaveLength(0);
});
