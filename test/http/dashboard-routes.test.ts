// The dashboard on the admin listener: who may see it, what its stream tells, and that neither viewers nor their slowness cost more than they may.
import { createHash } from 'node:crypto';
import type { HttpBindings } from '@hono/node-server';
import { getRequestListener } from '@hono/node-server';
import { Hono } from 'hono';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { addDashboardRoutes, VIEWERS_MAX } from '../../src/http/dashboard-routes.ts';
import { eventually, type GatewayUnderTest, startGateway } from '../fixtures/gateway-under-test.ts';
import { openRawClient } from '../fixtures/raw-client.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

vi.setConfig({ testTimeout: 60_000 });

const PATH = '/paceline/dashboard';
const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
});

async function start(admin = ''): Promise<GatewayUnderTest> {
  const upstream = await createStubUpstream();
  opened.push(upstream);
  const gateway = await startGateway([upstream], { more: `admin: { port: 0${admin === '' ? '' : `, ${admin}`} }` });
  opened.push(gateway);
  return gateway;
}

const basic = (password: string, user = 'me') => ({ authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}` });

/** Reads events until it is ended. */
async function watch(url: string): Promise<{ readonly messages: Record<string, string>[]; readonly ended: Promise<void>; close(): void }> {
  const abort = new AbortController();
  const answer = await fetch(url, { signal: abort.signal });
  expect(answer.status).toBe(200);
  expect(answer.headers.get('content-type')).toContain('text/event-stream');
  const messages: Record<string, string>[] = [];
  let rest = '';
  const ended = (async () => {
    for await (const text of (answer.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream() as never) as unknown as AsyncIterable<string>) {
      const events = (rest + text).split('\n\n');
      rest = events.pop() as string;
      for (const event of events) if (event.startsWith('data: ')) messages.push(JSON.parse(event.slice('data: '.length)) as Record<string, string>);
    }
  })().catch(() => {});
  const watched = { messages, ended, close: () => abort.abort() };
  opened.push(watched);
  return watched;
}

describe('on a gateway', () => {
  test('the page, its script and nothing else run: the policy names the style by its hash and allows no other origin', async () => {
    const gateway = await start();
    const answer = await fetch(`${gateway.adminUrl}/`);
    expect(answer.url).toBe(`${gateway.adminUrl}${PATH}`);
    const html = await answer.text();
    const style = /<style>(.*?)<\/style>/s.exec(html)?.[1] ?? '';
    const policy = answer.headers.get('content-security-policy') ?? '';
    expect(policy).toContain(`style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'`);
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toContain('unsafe');
    expect(html).toContain('aria-label="r0"');
    const script = await fetch(`${gateway.adminUrl}${PATH}/script.js`);
    expect([script.status, script.headers.get('content-type'), script.headers.get('x-content-type-options')]).toEqual([200, 'text/javascript; charset=utf-8', 'nosniff']);
    // It is JavaScript: a template that lost a brace would be seen here and in no other test without a browser.
    const text = await script.text();
    expect(() => new Function(text)).not.toThrow();
  });

  test('a stream begins with everything and goes on with what has changed', async () => {
    const gateway = await start();
    const { messages } = await watch(`${gateway.adminUrl}${PATH}/events`);
    await eventually(() => messages.length >= 1);
    expect(Object.keys(messages[0] ?? {})).toEqual(expect.arrayContaining(['figures', 'fleet', 'frontier', 'requests']));
    const answer = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json', 'x-request-id': 'the-one-seen', 'x-slo-ttft-ms': '60000' }, body: JSON.stringify({ model: 'm', stream: true, messages: [{ role: 'user', content: 'x' }] }) });
    await answer.text();
    await eventually(() => messages.some(({ requests }, index) => index > 0 && requests?.includes('✓ met') === true));
    const later = messages.slice(1);
    expect(later.every((message) => message['problems'] === undefined)).toBe(true);
  });

  test('a gateway that closes waits for no viewer', async () => {
    const gateway = await start();
    const { messages, ended } = await watch(`${gateway.adminUrl}${PATH}/events`);
    await eventually(() => messages.length >= 1);
    await gateway.close();
    await ended;
  });

  test('where there is a key, a browser is asked for it as a password, and the page and its events open by it', async () => {
    const gateway = await start('keyEnv: OPERATOR_KEY');
    for (const path of ['/', PATH, `${PATH}/events`, `${PATH}/script.js`]) {
      const answer = await fetch(`${gateway.adminUrl}${path}`);
      await answer.text();
      expect([path, answer.status, answer.headers.get('www-authenticate')?.split(' ')[0]]).toEqual([path, 401, 'Basic']);
    }
    for (const headers of [basic('sk-operator'), basic('sk-operator', ''), { authorization: 'Bearer sk-operator' }]) expect((await fetch(`${gateway.adminUrl}${PATH}`, { headers })).status).toBe(200);
    for (const headers of [basic('sk-operator2'), basic(''), basic('x', 'sk-operator'), { authorization: `Basic ${Buffer.from('sk-operator').toString('base64')}` }, { authorization: 'Basic' }]) expect((await fetch(`${gateway.adminUrl}${PATH}`, { headers })).status).toBe(401);
  });

  test.each([{ origin: 'https://evil.test' }, { 'sec-fetch-site': 'cross-site' }, { 'sec-fetch-site': 'same-site' }])('a password that a browser has kept is of no use to a page of another site (%o)', async (site) => {
    const gateway = await start('keyEnv: OPERATOR_KEY');
    const client = await openRawClient(gateway.adminUrl);
    const lines = Object.entries({ ...basic('sk-operator'), ...site }).map(([name, value]) => `${name}: ${value}\r\n`).join('');
    for (const request of ['POST /paceline/replicas/r0/drain', `GET ${PATH}`]) {
      client.write(`${request} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n${lines}\r\n`);
      expect((await client.read()).status).toBe(401);
    }
    client.socket.destroy();
  });
});

describe('the stream alone', () => {
  async function serve(fragments: () => Record<string, string>): Promise<{ readonly url: string; readonly close: () => void }> {
    const app = new Hono<{ Bindings: HttpBindings }>();
    addDashboardRoutes(app, { document: () => '', style: '', script: '', fragments }, 5);
    const server = createServer(getRequestListener(app.fetch as never));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const close = (): void => {
      server.close();
      server.closeAllConnections();
    };
    opened.push({ close });
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}${PATH}/events`, close };
  }

  test('nothing is rendered while nobody looks, and once for all who do', async () => {
    let rendered = 0;
    const { url } = await serve(() => ({ count: String(++rendered) }));
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(rendered).toBe(0);
    const [first, second] = [await watch(url), await watch(url)];
    await eventually(() => first.messages.length > 5 && second.messages.length > 5);
    const shared = first.messages.filter((message) => second.messages.some(({ count }) => count === message['count']));
    expect(shared.length).toBeGreaterThan(2);
    first.close();
    second.close();
    await eventually(async () => {
      const before = rendered;
      await new Promise((resolve) => setTimeout(resolve, 60));
      return rendered === before;
    });
  });

  test('what has not changed is not told again', async () => {
    let ticks = 0;
    const { url } = await serve(() => ({ still: 'same', moves: String(++ticks) }));
    const { messages } = await watch(url);
    await eventually(() => messages.length > 4);
    expect(messages.filter(({ still }) => still !== undefined)).toHaveLength(1);
  });

  test('there are so many viewers and no more, until one leaves', async () => {
    const { url } = await serve(() => ({}));
    const viewers = await Promise.all(Array.from({ length: VIEWERS_MAX }, () => watch(url)));
    const refused = await fetch(url);
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '10']);
    expect(await refused.json()).toEqual({ error: `${VIEWERS_MAX} windows have the dashboard open; close one` });
    viewers[0]?.close();
    await eventually(async () => {
      const abort = new AbortController();
      const { status } = await fetch(url, { signal: abort.signal });
      abort.abort();
      return status === 200;
    });
  });

  test('a viewer that reads nothing is let go, and holds up no other', async () => {
    let ticks = 0;
    const { url } = await serve(() => ({ big: `${++ticks}${'x'.repeat(400_000)}` }));
    const slow = await openRawClient(url);
    let closed = false;
    slow.socket.pause();
    slow.socket.once('close', () => {
      closed = true;
    });
    slow.socket.on('error', () => {});
    slow.write(`GET ${PATH}/events HTTP/1.1\r\nhost: localhost\r\n\r\n`);
    const other = await watch(url);
    await eventually(() => other.messages.length > 60, 30_000);
    slow.socket.resume();
    await eventually(() => closed, 30_000);
  });

  test('HEAD is answered and becomes no viewer', async () => {
    const { url } = await serve(() => ({}));
    for (let index = 0; index < VIEWERS_MAX + 2; index++) expect((await fetch(url, { method: 'HEAD' })).status).toBe(200);
  });
});
