// A tenant that may use some models only asks for no other by a body in which its server finds another model than we do.
import { createHash } from 'node:crypto';
import { afterEach, expect, test } from 'vitest';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { PROFILE, startConfigured, testConfig } from '../fixtures/gateway-under-test.ts';
import type { StubUpstream } from '../fixtures/stub-upstream.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function start(): Promise<{ gateway: GatewayUnderTest; upstream: StubUpstream }> {
  const upstream = await createStubUpstream((_request, _incoming, outgoing) => void outgoing.writeHead(200, { 'content-type': 'application/json' }).end('{}'));
  opened.push(upstream);
  const hash = createHash('sha256').update('sk-a').digest('hex');
  const gateway = await startConfigured(testConfig(`replicas: [{ id: r0, url: '${upstream.url}', models: [mine, theirs], profile: ${PROFILE} }]\ntimeouts: { drainMs: 100 }\ntenants: [{ name: a, apiKeySha256: [${hash}], models: [mine] }]\n`));
  opened.push(gateway);
  return { gateway, upstream };
}

function post(gateway: GatewayUnderTest, body: string | Buffer | FormData, contentType: string | null, query = ''): Promise<Response> {
  return fetch(`${gateway.url}/v1/audio/speech${query}`, { method: 'POST', body: body as string, headers: { authorization: 'Bearer sk-a', ...(contentType === null ? {} : { 'content-type': contentType }) } });
}

const FORM = 'multipart/form-data; boundary=a';
const form = (...parts: readonly string[]): string => `${parts.map((part) => `--a\r\n${part}\r\n`).join('')}--a--\r\n`;
const MINE = 'content-disposition: form-data; name="model"\r\n\r\nmine';

test.each([
  { what: 'another type of JSON', contentType: 'application/x+json', body: '{"model":"theirs"}' },
  { what: 'another type of JSON, and one of ours in the query', contentType: 'application/x+json', body: '{"model":"theirs"}', query: '?model=mine' },
  { what: 'UTF-16', contentType: 'application/json', body: Buffer.from('{"model":"theirs"}', 'utf16le') },
  { what: 'a mark before it', contentType: 'application/json', body: '\ufeff{"model":"theirs"}' },
  { what: 'a form of the other kind', contentType: 'application/x-www-form-urlencoded', body: 'model=theirs' },
  { what: 'two boundaries', contentType: `${FORM}; boundary=b`, body: `${form(MINE)}--b\r\ncontent-disposition: form-data; name="model"\r\n\r\ntheirs\r\n--b--\r\n` },
  { what: 'a name in another grammar', contentType: FORM, body: form(MINE, "content-disposition: form-data; name*=utf-8''model\r\n\r\ntheirs") },
  { what: 'a name with a quoted pair', contentType: FORM, body: form(MINE, 'content-disposition: form-data; name="mod\\el"\r\n\r\ntheirs') },
  { what: 'a name with blanks around it', contentType: FORM, body: form(MINE, 'content-disposition: form-data; name = "model"\r\n\r\ntheirs') },
  { what: 'a folded line', contentType: FORM, body: form(MINE, 'content-disposition: form-data;\r\n name="model"\r\n\r\ntheirs') },
  { what: 'two dispositions', contentType: FORM, body: form(MINE, 'content-disposition: form-data; name="x"\r\ncontent-disposition: form-data; name="model"\r\n\r\ntheirs') },
  { what: 'more parts than are looked at', contentType: FORM, body: form(MINE, ...Array.from({ length: 256 }, () => 'content-disposition: form-data; name="x"\r\n\r\nx'), 'content-disposition: form-data; name="model"\r\n\r\ntheirs') },
])('is refused where it is said in $what', async ({ contentType, body, query }) => {
  const { gateway, upstream } = await start();
  expect((await post(gateway, body, contentType, query)).status).toBe(400);
  expect(upstream.requests).toEqual([]);
});

test('what SDKs send reaches the server', async () => {
  const { gateway, upstream } = await start();
  const upload = new FormData();
  upload.set('file', new Blob(['sound']), 'ä "x".wav');
  upload.set('model', 'mine');
  expect((await post(gateway, upload, null)).status).toBe(200);
  expect((await post(gateway, '{"model":"mine"}', 'application/json; charset=utf-8')).status).toBe(200);
  expect((await post(gateway, form('Content-Disposition: form-data; name="file"; filename="x"; filename*=UTF-8\'\'x\r\nContent-Type: audio/wav\r\n\r\nsound', MINE), FORM)).status).toBe(200);
  expect((await post(gateway, '', null, '?model=mine')).status).toBe(200);
  expect(upstream.requests).toHaveLength(4);
});
