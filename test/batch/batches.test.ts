// Files and batches through a whole gateway: what OpenAI's API says of them, and whose they are.
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { BatchClient } from '../fixtures/batch-client.ts';
import { batchClient, chatLine, chatLines } from '../fixtures/batch-client.ts';
import type { GatewayUnderTest } from '../fixtures/gateway-under-test.ts';
import { eventually, PROFILE, startConfigured, startGateway, testConfig } from '../fixtures/gateway-under-test.ts';
import type { Answer, StubUpstream } from '../fixtures/stub-upstream.ts';
import { completion, createStubUpstream } from '../fixtures/stub-upstream.ts';

let directory: string;
const opened: { close(): Promise<void> }[] = [];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'batches-'));
});
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
  rmSync(directory, { recursive: true, force: true });
});

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

async function start(answer: Answer = completion, options: { readonly batch?: string; readonly more?: string } = {}): Promise<{ gateway: GatewayUnderTest; upstream: StubUpstream; client: BatchClient }> {
  const upstream = await createStubUpstream(answer);
  opened.push(upstream);
  const gateway = await startGateway([upstream], { more: `timeouts: { drainMs: 100 }\nbatch: { store: { sqlite: '${join(directory, 'b.sqlite')}' }${options.batch ?? ''} }\n${options.more ?? ''}` });
  opened.push(gateway);
  return { gateway, upstream, client: batchClient(gateway.url) };
}

const asJson = async (response: Response): Promise<Record<string, unknown>> => (await response.json()) as Record<string, unknown>;
const errorOf = async (response: Response): Promise<{ status: number; code: string | null; param: string | null; message: string }> => {
  const { error } = (await response.json()) as { error: { code: string | null; param: string | null; message: string } };
  return { status: response.status, code: error.code, param: error.param, message: error.message };
};

/** Answers as the content of the message says: `status 400`, `never`. */
const told: Answer = async (request, incoming, outgoing) => {
  const { messages } = JSON.parse(request.body) as { messages: { content: string }[] };
  const said = messages[0]?.content ?? '';
  const status = Number(/^status (\d+)$/.exec(said)?.[1] ?? 200);
  if (said === 'never') return;
  if (status === 200) return completion(request, incoming, outgoing);
  outgoing.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ error: { message: 'no', type: 't', param: null, code: 'c' } }));
};

test('a batch goes from its file to its output: each line once, by its custom_id', async () => {
  const { client, upstream } = await start();
  const created = await client.create(chatLines(25), { metadata: { job: 'nightly' } });
  expect(created).toMatchObject({ object: 'batch', status: 'validating', endpoint: '/v1/chat/completions', completion_window: '24h', metadata: { job: 'nightly' }, errors: null, output_file_id: null, error_file_id: null, request_counts: { total: 0, completed: 0, failed: 0 } });
  const batch = await client.until(created.id, ['completed']);
  expect(batch).toMatchObject({ request_counts: { total: 25, completed: 25, failed: 0 }, error_file_id: null });
  const lines = await client.lines(batch.output_file_id);
  expect(lines.map((line) => line.custom_id)).toEqual(Array.from({ length: 25 }, (_, index) => `line-${index + 1}`));
  expect(lines[0]).toMatchObject({ id: expect.stringMatching(/^batch_req_/), error: null, response: { status_code: 200, request_id: expect.stringMatching(/./), body: { object: 'chat.completion' } } });
  expect(new Set(lines.map((line) => line.id)).size).toBe(25);
  expect(upstream.requests).toHaveLength(25);
  expect(Number(upstream.requests[0]?.headers['x-request-deadline-ms'])).toBeGreaterThan(10_000);
});

test('a line that is refused is in the error file with its status, and counts as failed', async () => {
  const { client } = await start(told);
  const created = await client.create([chatLine('good'), chatLine('bad', 'status 400'), JSON.stringify({ custom_id: 'unknown', method: 'POST', url: '/v1/chat/completions', body: { model: 'other', messages: [] } })].join('\n'));
  const batch = await client.until(created.id, ['completed']);
  expect(batch.request_counts).toEqual({ total: 3, completed: 1, failed: 2 });
  expect((await client.lines(batch.output_file_id)).map((line) => line.custom_id)).toEqual(['good']);
  const errors = await client.lines(batch.error_file_id);
  expect(errors.map((line) => [line.custom_id, line.response?.status_code, line.error])).toEqual([['bad', 400, null], ['unknown', 404, null]]);
  expect(errors[0]?.response?.body).toEqual({ error: { message: 'no', type: 't', param: null, code: 'c' } });
});

test('an overloaded server is asked again until it answers', async () => {
  let refusals = 0;
  const { client } = await start((request, incoming, outgoing) => {
    if (refusals++ < 2) return void outgoing.writeHead(429, { 'retry-after-ms': '10' }).end('{}');
    return completion(request, incoming, outgoing);
  });
  const batch = await client.until((await client.create(chatLines(3))).id, ['completed']);
  expect(batch.request_counts).toEqual({ total: 3, completed: 3, failed: 0 });
  expect(refusals).toBe(5);
});

test('a file with bad lines fails the batch, and each is told by line, parameter and message', async () => {
  const { client, upstream } = await start();
  const text = [chatLine('a'), '{"custom_id":', chatLine('a'), chatLine('b', 'b', { url: '/v1/embeddings' }), chatLine('c', 'c', { method: 'GET' }), '', chatLine('d', 'd', { body: { model: 'm', stream: true } })].join('\n');
  const batch = await client.until((await client.create(text)).id, ['failed']);
  expect(batch.errors?.data.map(({ line, code, param }) => [line, code, param])).toEqual([
    [2, 'invalid_json_line', null],
    [3, 'duplicate_custom_id', 'custom_id'],
    [4, 'invalid_url', 'url'],
    [5, 'invalid_method', 'method'],
    [7, 'invalid_body', 'body.stream'],
  ]);
  expect(batch.errors?.data[2]?.message).toContain("got '/v1/embeddings', want '/v1/chat/completions'");
  expect(upstream.requests).toHaveLength(0);
});

test('a batch that is asked for with something nested too deeply is refused, and not a fault of ours', async () => {
  const { client } = await start();
  const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`;
  const refused = await client.ask('/v1/batches', { method: 'POST', body: `{"input_file_id":${deep}}` });
  expect(await errorOf(refused)).toMatchObject({ status: 400, param: 'input_file_id' });
});

test('as many requests as allowed are a batch, and one more fails it', async () => {
  const { client } = await start(completion, { batch: ', requestsMax: 3' });
  expect((await client.until((await client.create(chatLines(3))).id, ['completed', 'failed'])).status).toBe('completed');
  const failed = await client.until((await client.create(chatLines(4))).id, ['completed', 'failed']);
  expect(failed).toMatchObject({ status: 'failed', errors: { data: [{ line: 4, code: 'too_many_requests' }] } });
});

test('a cancelled batch keeps what was finished, and what was not is in the error file', async () => {
  const { client, upstream } = await start(told, { batch: ', concurrencyMax: 2' });
  const created = await client.create([chatLine('done'), ...Array.from({ length: 5 }, (_, index) => chatLine(`open-${index}`, 'never'))].join('\n'));
  while ((await client.batch(created.id)).request_counts.completed < 1 || upstream.requests.length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
  const cancelling = await asJson(await client.ask(`/v1/batches/${created.id}/cancel`, { method: 'POST' }));
  expect(cancelling).toMatchObject({ status: 'cancelling', cancelling_at: expect.any(Number) });
  const batch = await client.until(created.id, ['cancelled']);
  expect((await client.lines(batch.output_file_id)).map((line) => line.custom_id)).toEqual(['done']);
  const errors = await client.lines(batch.error_file_id);
  expect(errors.map((line) => line.custom_id)).toEqual(['open-0', 'open-1', 'open-2', 'open-3', 'open-4']);
  expect(new Set(errors.map((line) => line.error?.code))).toEqual(new Set(['batch_cancelled']));
  // What was in flight was let go at its server too.
  await upstream.requests[1]?.aborted;
  expect(await errorOf(await client.ask(`/v1/batches/${created.id}/cancel`, { method: 'POST' }))).toMatchObject({ status: 409, message: "Cannot cancel a batch with status 'cancelled'." });
});

describe('files', () => {
  test('are listed, shown, read and deleted', async () => {
    const { client } = await start();
    const text = chatLines(2);
    const file = await asJson(await client.upload(text));
    expect(file).toMatchObject({ object: 'file', bytes: Buffer.byteLength(text), filename: 'input.jsonl', purpose: 'batch', status: 'processed', created_at: expect.any(Number) });
    const id = String(file['id']);
    expect(await (await client.ask(`/v1/files/${id}/content`)).text()).toBe(text);
    expect(await asJson(await client.ask(`/v1/files/${id}`))).toEqual(file);
    const more = await asJson(await client.upload('x', { purpose: 'user_data' }));
    expect(await asJson(await client.ask('/v1/files'))).toMatchObject({ object: 'list', data: [{ id: more['id'] }, { id }], has_more: false });
    expect(await asJson(await client.ask('/v1/files?purpose=batch'))).toMatchObject({ data: [{ id }] });
    expect(await asJson(await client.ask('/v1/files?limit=1&order=asc'))).toMatchObject({ data: [{ id }], has_more: true });
    expect(await asJson(await client.ask(`/v1/files?limit=1&order=asc&after=${id}`))).toMatchObject({ data: [{ id: more['id'] }], has_more: false });
    expect(await asJson(await client.ask(`/v1/files/${id}`, { method: 'DELETE' }))).toEqual({ id, object: 'file', deleted: true });
    for (const path of [`/v1/files/${id}`, `/v1/files/${id}/content`]) expect(await errorOf(await client.ask(path))).toMatchObject({ status: 404, message: `No such File object: ${id}` });
  });

  test('that are deleted while they are read end in a broken connection, and not in one that waits for the rest', async () => {
    const { client } = await start();
    const file = await asJson(await client.upload('x'.repeat(6_000_000)));
    const reading = (await client.ask(`/v1/files/${file['id'] as string}/content`)).body?.getReader();
    await reading?.read();
    expect((await client.ask(`/v1/files/${file['id'] as string}`, { method: 'DELETE' })).status).toBe(200);
    const rest = async (): Promise<void> => {
      while ((await reading?.read())?.done === false);
    };
    await expect(rest()).rejects.toThrow('terminated');
  });

  test('have as many bytes as allowed and not one more, alone and together', async () => {
    const { client } = await start(completion, { batch: ', fileBytesMax: 2000, filesBytesMax: 3000' });
    expect((await client.upload('x'.repeat(2_001))).status).toBe(413);
    expect((await client.upload('x'.repeat(2_000))).status).toBe(200);
    expect(await errorOf(await client.upload('x'.repeat(1_001)))).toMatchObject({ status: 429, code: 'batch_limit_exceeded' });
    expect((await client.upload('x'.repeat(1_000))).status).toBe(200);
  });

  test('are as many as allowed and not one more', async () => {
    const { client } = await start(completion, { batch: ', filesMax: 2' });
    for (const status of [200, 200, 429]) expect((await client.upload('x')).status).toBe(status);
  });

  test.each([
    { what: 'a purpose that means nothing here', fields: { purpose: 'fine-tune' }, param: 'purpose' },
    { what: 'no purpose', fields: {}, param: 'purpose' },
    { what: 'a life of a minute', fields: { purpose: 'batch', 'expires_after[anchor]': 'created_at', 'expires_after[seconds]': '60' }, param: 'expires_after' },
  ])('with $what are refused, and leave nothing behind', async ({ fields, param }) => {
    const { client } = await start(completion, { batch: ', filesBytesMax: 1500' });
    for (let round = 0; round < 3; round++) expect(await errorOf(await client.upload('x'.repeat(1_000), fields as never))).toMatchObject({ status: 400, param });
    expect((await client.upload('x'.repeat(1_000))).status).toBe(200);
  });

  test('whose upload breaks off leave nothing behind', async () => {
    const { client, gateway } = await start(completion, { batch: ', filesBytesMax: 1000000' });
    const { hostname, port } = new URL(gateway.url);
    const socket = connect(Number(port), hostname);
    const head = `--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n`;
    socket.write(`POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 2000000\r\n\r\n${head}${'x'.repeat(900_000)}`);
    const store = new DatabaseSync(join(directory, 'b.sqlite'), { readOnly: true });
    const count = (): unknown => store.prepare('SELECT count(*) AS files, coalesce(sum(bytes), 0) AS bytes FROM files').get();
    await eventually(() => (count() as { bytes: number }).bytes > 600_000);
    expect((await client.upload('x'.repeat(600_000))).status).toBe(429);
    socket.destroy();
    await eventually(() => (count() as { files: number }).files === 0);
    store.close();
    expect((await client.upload('x'.repeat(600_000))).status).toBe(200);
  });

  test('that are no form, or a form without a file, are refused', async () => {
    const { client } = await start();
    expect((await client.ask('/v1/files', { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } })).status).toBe(400);
    const form = new FormData();
    form.set('purpose', 'batch');
    expect(await errorOf(await client.ask('/v1/files', { method: 'POST', body: form }))).toMatchObject({ status: 400, param: 'file' });
  });
});

describe('a batch is refused', () => {
  test.each([
    { more: { input_file_id: 'file-x' }, param: 'input_file_id' },
    { more: { input_file_id: 7 }, param: 'input_file_id' },
    { more: { endpoint: '/v1/images/generations' }, param: 'endpoint' },
    { more: { completion_window: '24' }, param: 'completion_window' },
    { more: { completion_window: '169h' }, param: 'completion_window' },
    { more: { metadata: { key: 7 } }, param: 'metadata' },
    { more: { metadata: Object.fromEntries(Array.from({ length: 17 }, (_, index) => [`k${index}`, 'v'])) }, param: 'metadata' },
    { more: { output_expires_after: { anchor: 'created_at', seconds: 3_599 } }, param: 'output_expires_after' },
  ])('for $more', async ({ more, param }) => {
    const { client } = await start();
    await expect(client.create(chatLine('a'), more)).rejects.toThrow(`"param":"${param}"`);
  });

  test('beyond those in progress that a tenant may have', async () => {
    const { client } = await start(told, { batch: ', batchesMax: 1' });
    const first = await client.create(chatLine('a', 'never'));
    await expect(client.create(chatLine('b'))).rejects.toThrow('429');
    await client.ask(`/v1/batches/${first.id}/cancel`, { method: 'POST' });
    await client.until(first.id, ['cancelled']);
    await client.create(chatLine('b'));
  });
});

test('what is one tenant’s is not there for another, and its lines come as its own', async () => {
  const tenants = `tenants:\n  - { name: ours, apiKeySha256: ['${sha256('sk-ours')}'], bounds: { e2eMs: { max: 60000 } } }\n  - { name: theirs, apiKeySha256: ['${sha256('sk-theirs')}'] }\n`;
  const { gateway, upstream } = await start(completion, { more: tenants });
  const [ours, theirs] = [batchClient(gateway.url, 'sk-ours'), batchClient(gateway.url, 'sk-theirs')];
  const batch = await ours.until((await ours.create(chatLines(2))).id, ['completed']);
  expect(batch.request_counts.completed).toBe(2);
  expect(gateway.events.flatMap((event) => (event.kind === 'arrived' ? [event.job.tenant] : []))).toEqual(['ours', 'ours']);
  expect(upstream.requests[0]?.headers.authorization).toBeUndefined();
  for (const path of [`/v1/batches/${batch.id}`, `/v1/files/${batch.output_file_id}`, `/v1/files/${batch.output_file_id}/content`]) {
    expect((await ours.ask(path)).status).toBe(200);
    expect((await theirs.ask(path)).status).toBe(404);
  }
  expect((await theirs.ask(`/v1/batches/${batch.id}/cancel`, { method: 'POST' })).status).toBe(404);
  expect((await theirs.ask(`/v1/files/${batch.output_file_id}`, { method: 'DELETE' })).status).toBe(404);
  expect(await asJson(await theirs.ask('/v1/batches'))).toMatchObject({ data: [] });
  expect((await batchClient(gateway.url, 'sk-nobody').ask('/v1/files')).status).toBe(401);
});

test('lines of a tenant whose only key is replaced wait for the new one, and are not refused meanwhile', async () => {
  const upstream = await createStubUpstream(async (request, incoming, outgoing) => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    return completion(request, incoming, outgoing);
  });
  opened.push(upstream);
  const config = (keys: readonly string[]) => {
    const tenants = ['theirs', ...keys].map((key) => `{ name: ${key.replace(/-.*/, '')}, apiKeySha256: ['${sha256(`sk-${key}`)}'] }`);
    return testConfig(`replicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: ${PROFILE} }]\ntimeouts: { drainMs: 100 }\nbatch: { store: { sqlite: '${join(directory, 'b.sqlite')}' }, concurrencyMax: 2 }\ntenants: [${tenants.join(', ')}]\n`);
  };
  const gateway = await startConfigured(config(['ours-old']));
  opened.push(gateway);
  const created = await batchClient(gateway.url, 'sk-ours-old').create(chatLines(30));
  await eventually(() => upstream.requests.length > 2);
  expect(gateway.reload(() => config([]))).toBe(true);
  // What has begun ends; nothing else begins.
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect(gateway.reload(() => config(['ours-new']))).toBe(true);
  const batch = await batchClient(gateway.url, 'sk-ours-new').until(created.id, ['completed']);
  expect(batch.request_counts).toEqual({ total: 30, completed: 30, failed: 0 });
});

test('a line that takes more than its tenant may ever have fails at once, and not at the end of the window', async () => {
  const { gateway } = await start(completion, { more: `tenants:\n  - { name: ours, apiKeySha256: ['${sha256('sk-ours')}'], limits: { tokensPerMinute: 100 } }\n` });
  const client = batchClient(gateway.url, 'sk-ours');
  const created = await client.create(chatLine('a', 'a', { body: { model: 'm', messages: [], max_tokens: 101 } }));
  const batch = await client.until(created.id, ['completed'], 5_000);
  expect(batch.request_counts).toEqual({ total: 1, completed: 0, failed: 1 });
  expect((await client.lines(batch.error_file_id))[0]?.response?.status_code).toBe(429);
});

test('a store that somebody else holds for long holds up nothing but itself', async () => {
  const { gateway, client } = await start();
  const other = new DatabaseSync(join(directory, 'b.sqlite'));
  opened.push({ close: async () => other.close() });
  other.exec('BEGIN IMMEDIATE');
  const listing = client.ask('/v1/files');
  let latestMs = 0;
  for (let turn = 0; turn < 20; turn++) {
    const askedAtMs = performance.now();
    await (await fetch(`${gateway.url}/v1/models`)).text();
    latestMs = Math.max(latestMs, performance.now() - askedAtMs);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  expect(latestMs).toBeLessThan(500);
  other.exec('ROLLBACK');
  expect((await listing).status).toBe(200);
});

test('batches are listed page by page, the newest first', async () => {
  const { client } = await start();
  const ids: string[] = [];
  for (let index = 0; index < 3; index++) ids.unshift((await client.create(chatLine('a'))).id);
  expect(await asJson(await client.ask('/v1/batches?limit=2'))).toMatchObject({ object: 'list', data: [{ id: ids[0] }, { id: ids[1] }], first_id: ids[0], last_id: ids[1], has_more: true });
  expect(await asJson(await client.ask(`/v1/batches?limit=2&after=${ids[1]}`))).toMatchObject({ data: [{ id: ids[2] }], has_more: false });
  expect(await errorOf(await client.ask('/v1/batches?limit=101'))).toMatchObject({ status: 400, param: 'limit' });
  expect(await errorOf(await client.ask('/v1/batches?after=batch_x'))).toMatchObject({ status: 400, param: 'after' });
});

test('without batches in the config there are no such routes', async () => {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const gateway = await startGateway([upstream]);
  opened.push(gateway);
  for (const path of ['/v1/files', '/v1/batches']) expect((await fetch(`${gateway.url}${path}`)).status).toBe(404);
});

test('a method that a route does not take is told those that it does', async () => {
  const { client } = await start();
  for (const [path, allowed] of [['/v1/files', 'GET, HEAD, POST, OPTIONS'], ['/v1/batches/batch_1', 'GET, HEAD, OPTIONS'], ['/v1/batches/batch_1/cancel', 'POST, OPTIONS']] as const) {
    const response = await client.ask(path, { method: 'PUT' });
    expect([response.status, response.headers.get('allow')]).toEqual([405, allowed]);
  }
});
