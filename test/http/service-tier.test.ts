// OpenAI's `service_tier` in the answers of a whole gateway: what was used is told where a tier was asked for that means
// something here, and nothing else is touched.
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, test } from 'vitest';
import { leavingBody } from '../fixtures/leaving.ts';
import { ENDPOINT_PATHS, EVENT } from '../fixtures/leaving.ts';
import { headerOf, openRawClient, rawPost } from '../fixtures/raw-client.ts';
import type { RawResponse } from '../fixtures/raw-client.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { eventually, PROFILE, startConfigured, testConfig } from '../fixtures/gateway-under-test.ts';
import type { Answer, StubUpstream } from '../fixtures/stub-upstream.ts';
import { completion, createStubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

const KEY_HASH = createHash('sha256').update('sk-acme').digest('hex');
const TIERS = 'auto: standard, default: standard, flex: batch, priority: urgent, fast: urgent, scale: urgent';

async function start(answer: Answer, { tiers = TIERS, tenant = '' }: { readonly tiers?: string; readonly tenant?: string } = {}): Promise<{ gateway: GatewayUnderTest; upstream: StubUpstream }> {
  const upstream = await createStubUpstream(answer);
  opened.push(upstream);
  const slo = `slo: { classes: { standard: { ttftMs: 5000 }, batch: { e2eMs: 600000 }, urgent: { ttftMs: 500 }, slow: {} }, default: standard, tiers: { ${tiers} } }\n`;
  const tenants = tenant === '' ? '' : `tenants:\n  - { name: acme, apiKeySha256: [${KEY_HASH}], ${tenant} }\n`;
  const gateway = await startConfigured(testConfig(`replicas:\n  - { id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE} }\ntimeouts: { drainMs: 0 }\nplanner: { policy: max-clock }\n${slo}${tenants}`));
  opened.push(gateway);
  return { gateway, upstream };
}

async function ask({ gateway }: { readonly gateway: GatewayUnderTest }, { path = ENDPOINT_PATHS.chat as string, stream = false, tier = 'flex' as string | null, version = '1.1' }): Promise<RawResponse> {
  const raw = await openRawClient(gateway.url);
  opened.push({ close: async () => void raw.socket.destroy() });
  raw.write(rawPost(path, JSON.stringify({ ...(JSON.parse(leavingBody(stream)) as object), ...(tier === null ? {} : { service_tier: tier }) }), ['authorization: Bearer sk-acme'], version));
  return raw.read();
}

const says = (body: string | Buffer, headers: Record<string, string> = {}, status = 200): Answer => (_request, _incoming, outgoing) => void outgoing.writeHead(status, { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)), ...headers }).end(body);

/** With a number and an order that parsing and printing would not keep. */
const CHAT = '{"2":1.50, "1":12345678901234567890,\n "choices":[{"index":0,"message":{"content":"service_tier"}}] ,"service_tier":null }\n';
const TEXT = '{"object":"text_completion","choices":[{"text":"a"}]}';
const RESPONSE = '{"id":"resp_1","object":"response","output":[],"service_tier":"auto","usage":null}';
const told = (text: string, tier: string): string => text.replace(/"service_tier":(null|"auto")/, `"service_tier":"${tier}"`);

describe('an answer', () => {
  test.each([
    { tier: 'default', said: 'default' },
    { tier: 'auto', said: 'default' },
    { tier: 'flex', said: 'flex' },
    { tier: 'scale', said: 'scale' },
    { tier: 'priority', said: 'priority' },
    { tier: 'fast', said: 'priority' },
  ])('to $tier says $said, in place of what its server says, and nothing else is touched', async ({ tier, said }) => {
    const answer = await ask(await start(says(CHAT)), { tier });
    expect([answer.status, answer.framing, answer.whole, answer.body.toString()]).toEqual([200, 'chunked', true, told(CHAT, said)]);
  });

  test.each([
    { path: ENDPOINT_PATHS.completions, body: TEXT, wanted: '{"object":"text_completion","choices":[{"text":"a"}],"service_tier":"flex"}' },
    { path: ENDPOINT_PATHS.responses, body: RESPONSE, wanted: told(RESPONSE, 'flex') },
  ])('of $path says it too', async ({ path, body, wanted }) => {
    expect((await ask(await start(says(body)), { path })).body.toString()).toBe(wanted);
  });

  test('is told so by the tier of its tenant alone, too', async () => {
    expect((await ask(await start(says(CHAT), { tiers: '', tenant: 'tiers: { flex: batch }' }), {})).body.toString()).toBe(told(CHAT, 'flex'));
  });

  test.each<{ readonly what: string; readonly answer?: Answer; readonly sent?: string | Buffer; readonly tier?: string | null; readonly path?: string; readonly tiers?: string }>([
    { what: 'to a request that names no tier', tier: null },
    { what: 'to a tier that no class is configured for', tier: 'ultrafast' },
    { what: 'where no tiers are configured', tiers: '' },
    { what: 'of an endpoint that has no tiers', path: ENDPOINT_PATHS.embeddings },
    { what: "of Anthropic's endpoint, whose tiers are other ones", path: ENDPOINT_PATHS.messages, tier: 'standard_only' },
    { what: 'that is an error', sent: CHAT, answer: says(CHAT, {}, 400) },
    { what: 'that is compressed', sent: gzipSync(CHAT), answer: says(gzipSync(CHAT), { 'content-encoding': 'gzip' }) },
    { what: 'that is no JSON', sent: CHAT, answer: says(CHAT, { 'content-type': 'text/plain' }) },
  ])('$what comes as it is, with its length', async ({ answer = says(CHAT), sent = CHAT, tiers = TIERS, ...request }) => {
    const came = await ask(await start(answer, { tiers }), request);
    expect(came.body).toEqual(Buffer.from(sent));
    expect(headerOf(came, 'content-length')).toBe(String(Buffer.byteLength(sent)));
  });

  test('of many megabytes says it, without being kept', async () => {
    const body = `{"choices":[{"message":{"content":"${'x'.repeat(20_000_000)}"}}]}`;
    const answer = await ask(await start(says(body)), {});
    expect(answer.body.length).toBe(body.length + ',"service_tier":"flex"'.length);
    expect(answer.body.toString('latin1', body.length - 20)).toBe(`${body.slice(-20, -1)},"service_tier":"flex"}`);
  });

  test('that breaks off is not whole, whichever version of HTTP its client speaks', async () => {
    const fleet = await start((_request, _incoming, outgoing) => void outgoing.writeHead(200, { 'content-type': 'application/json', 'content-length': '1000' }).write('{"choices":[', () => outgoing.destroy()));
    expect((await ask(fleet, {})).whole).toBe(false);
    expect((await ask(fleet, { version: '1.0' })).whole).toBe(false);
  });
});

describe('a stream', () => {
  const stream = (text: string): Answer => (_request, _incoming, outgoing) => void outgoing.writeHead(200, { 'content-type': 'text/event-stream' }).end(text);
  const usage = 'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}\n\n';

  test('says it in every chunk, is read as before, and the usage that its client did not ask for stays hidden', async () => {
    const fleet = await start(stream(`: hi\n\n${EVENT}${EVENT}${usage}data: [DONE]\n\n`));
    const event = EVENT.replace('}\n\n', ',"service_tier":"priority"}\n\n');
    expect((await ask(fleet, { stream: true, tier: 'fast' })).body.toString()).toBe(`: hi\n\n${event}${event}data: [DONE]\n\n`);
    expect(await fleet.gateway.event('ended')).toMatchObject({ outcome: 'finished', usage: { promptTokens: 9, outputTokens: 2 } });
  });

  test('of responses says it in the response that its events tell of, and not beside it', async () => {
    const events = (tier: string): string => `event: response.created\ndata: {"type":"response.created","response":{"id":"r","service_tier":${tier}}}\n\nevent: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\nevent: response.completed\ndata: {"type":"response.completed","response":{"id":"r","output":[{"service_tier":"x"}],"service_tier":${tier}}}\n\n`;
    expect((await ask(await start(stream(events('"auto"'))), { path: ENDPOINT_PATHS.responses, stream: true })).body.toString()).toBe(events('"flex"'));
  });

  test('that breaks off in the middle of an event ends with the error, which has no tier', async () => {
    const fleet = await start((_request, _incoming, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
      outgoing.write(EVENT + EVENT.slice(0, 30), () => outgoing.destroy());
    });
    const text = (await ask(fleet, { stream: true })).body.toString();
    expect(text).toMatch(/^data: \{"id":"e".*"service_tier":"flex"\}\n\ndata: \{"error":\{[^}]*"code":"upstream_broken"\}\}\n\n$/);
  });

  test('to a request that names no tier comes as it is', async () => {
    expect((await ask(await start(stream(`${EVENT}data: [DONE]\n\n`)), { stream: true, tier: null })).body.toString()).toBe(`${EVENT}data: [DONE]\n\n`);
  });
});

describe('a tenant whose energy is spent', () => {
  test.each([
    { sloClass: 'batch', tier: 'priority', said: 'flex' },
    { sloClass: 'slow', tier: 'priority', said: 'default' },
    { sloClass: 'batch', tier: null, said: undefined },
  ])('and whose requests get $sloClass is told $said for $tier', async ({ sloClass, tier, said }) => {
    const fleet = await start(completion, { tenant: `energyBudget: { joulesPerDay: 0.001, atEnd: { class: ${sloClass} } }` });
    const tierOf = async (): Promise<unknown> => (JSON.parse((await ask(fleet, { tier })).body.toString()) as { service_tier?: string }).service_tier;
    expect(await tierOf()).toBe(tier ?? undefined);
    await eventually(() => fleet.gateway.events.some(({ kind }) => kind === 'ended'));
    await eventually(async () => (await tierOf()) === said && fleet.gateway.events.some((event) => event.kind === 'arrived' && event.job.sloClass === sloClass));
    expect(await tierOf()).toBe(said);
  });
});
