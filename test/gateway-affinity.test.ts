// Prompts that begin alike, through a whole gateway: real sockets, model servers that say what they had cached.
import { createHash } from 'node:crypto';
import { afterEach, expect, test } from 'vitest';
import { type GatewayUnderTest, startGateway } from './fixtures/gateway-under-test.ts';
import { type Answer, createStubUpstream, type StubUpstream } from './fixtures/stub-upstream.ts';

const closing: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});

const LONG = 'the quick brown fox jumps over the lazy dog '.repeat(400);

/** Has the longest prompt cached that it was sent and that this one begins with; a token is four characters. */
function cachingServer(): Answer {
  const had: string[] = [];
  return ({ body }, _incoming, outgoing) => {
    const text = (JSON.parse(body) as { messages: { content: string }[] }).messages.map(({ content }) => content).join('\n');
    const cached = Math.max(0, ...had.filter((before) => text.startsWith(before)).map((before) => before.length));
    had.push(text);
    const usage = { prompt_tokens: Math.ceil(text.length / 4), completion_tokens: 3, total_tokens: 3 + Math.ceil(text.length / 4), prompt_tokens_details: { cached_tokens: Math.floor(cached / 4) } };
    outgoing.writeHead(200, { 'content-type': 'application/json' });
    outgoing.end(JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion', created: 1, model: 'm', choices: [{ index: 0, message: { role: 'assistant', content: 'yes' }, finish_reason: 'stop' }], usage }));
  };
}

async function start(more: string): Promise<{ readonly gateway: GatewayUnderTest; readonly upstreams: readonly StubUpstream[] }> {
  const upstreams: StubUpstream[] = [];
  for (let index = 0; index < 3; index++) {
    const upstream = await createStubUpstream(cachingServer());
    closing.push(() => upstream.close());
    upstreams.push(upstream);
  }
  const gateway = await startGateway(upstreams, { more });
  closing.push(() => gateway.close());
  for (const name of ['r0', 'r1', 'r2']) await expect.poll(() => gateway.events.some((event) => event.kind === 'replica-health' && event.replicaId === name && event.state === 'up')).toBe(true);
  return { gateway, upstreams };
}

function keyOf(tenant: string): string {
  return createHash('sha256').update(tenant).digest('hex');
}

async function ask(gateway: GatewayUnderTest, messages: readonly string[], tenant: string): Promise<void> {
  const response = await fetch(`${gateway.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${tenant}` },
    body: JSON.stringify({ model: 'm', max_tokens: 10, messages: messages.map((content) => ({ role: 'user', content })) }),
  });
  expect(response.status).toBe(200);
  await response.arrayBuffer();
}

const TENANTS = ['acme', 'rival'].map((name) => `  - { name: ${name}, apiKeySha256: [${keyOf(name)}] }`).join('\n');

/** Blocks of the prefixes of all jobs, in order. */
function prefixesOf(gateway: GatewayUnderTest): (readonly number[] | undefined)[] {
  return gateway.events.flatMap((event) => (event.kind === 'arrived' ? [event.job.prefix?.blocks] : []));
}

test('each of several conversations stays with the server that has read it', async () => {
  const { gateway, upstreams } = await start('');
  const conversations = Array.from({ length: 4 }, (_, who) => [`${who} ${LONG}`]);
  for (let turn = 0; turn < 6; turn++) {
    for (const messages of conversations) {
      await ask(gateway, messages, 'anybody');
      messages.push(`and then? ${LONG}`);
    }
  }
  for (const [who] of conversations.entries()) {
    const servers = upstreams.filter(({ requests }) => requests.some(({ body }) => body.includes(`"${who} the quick`)));
    expect(servers.length).toBe(1);
  }
});

test('what one tenant sent says nothing of where the same text of another is cached, unless the config lets it', async () => {
  const { gateway } = await start(`tenants:\n${TENANTS}`);
  for (const tenant of ['acme', 'acme', 'rival']) await ask(gateway, [LONG], tenant);
  const [first, second, other] = prefixesOf(gateway);
  expect(second).toEqual(first);
  expect(other?.length).toBe(first?.length);
  expect(other?.some((block) => first?.includes(block))).toBe(false);

  const { gateway: sharing } = await start(`tenants:\n${TENANTS}\nplanner: { prefixAffinity: across-tenants }`);
  for (const tenant of ['acme', 'rival']) await ask(sharing, [LONG], tenant);
  const [mine, theirs] = prefixesOf(sharing);
  expect(theirs).toEqual(mine);
  expect(mine?.length).toBeGreaterThan(10);
});

test.each(['planner: { prefixAffinity: "off" }', 'planner: { policy: max-clock }', 'planner: { routing: least-loaded }'])('no prompt is hashed with %s', async (more) => {
  const { gateway } = await start(more);
  await ask(gateway, [LONG], 'anybody');
  expect(prefixesOf(gateway)).toEqual([undefined]);
});

test('no prompt is hashed where only one replica serves its model', async () => {
  const upstream = await createStubUpstream(cachingServer());
  closing.push(() => upstream.close());
  const gateway = await startGateway([upstream]);
  closing.push(() => gateway.close());
  await ask(gateway, [LONG], 'anybody');
  expect(prefixesOf(gateway)).toEqual([undefined]);
});
