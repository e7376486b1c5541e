// A real gateway process with the SDK that deploy/otel/otel.mjs brings, and a receiver that speaks OTLP: what leaves the process, and
// that without an SDK the client's context goes on as it came.
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { eventually } from '../fixtures/gateway-under-test.ts';
import { startServed } from '../fixtures/served.ts';
import type { Served } from '../fixtures/served.ts';
import type { StubUpstream } from '../fixtures/stub-upstream.ts';
import { createStubUpstream } from '../fixtures/stub-upstream.ts';

const PARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

interface OtlpSpan {
  readonly name: string;
  readonly kind: number;
  readonly traceId: string;
  readonly parentSpanId?: string;
}
interface Received {
  readonly spans: OtlpSpan[];
  readonly metrics: Set<string>;
  readonly services: Set<string>;
}

let directory: string;
let upstream: StubUpstream;
const opened: { close(): Promise<void> }[] = [];
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-otel-'));
  upstream = await createStubUpstream();
  opened.push(upstream);
  const profile = resolve('config/profiles/llama-3.1-8b.h200.json');
  writeFileSync(join(directory, 'paceline.yaml'), `replicas: [{ id: r0, url: '${upstream.url}', models: [m], profile: '${profile}' }]\nlisten: { port: 0 }\nadmin: { port: 0 }\nprobes: { port: 0 }\nhealth: { everyMs: 50 }\ntimeouts: { drainMs: 1000, readinessLagMs: 0 }\nlogging: { requests: true }\n`);
});
afterEach(async () => {
  for (const thing of opened.splice(0).reverse()) await thing.close();
  rmSync(directory, { recursive: true, force: true });
});

async function receiver(): Promise<Received & { readonly url: string }> {
  const received: Received = { spans: [], metrics: new Set(), services: new Set() };
  const server = createServer((incoming, outgoing) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    incoming.on('end', () => {
      const body = JSON.parse(Buffer.concat(chunks).toString()) as {
        resourceSpans?: { resource: { attributes: { key: string; value: { stringValue?: string } }[] }; scopeSpans: { spans: OtlpSpan[] }[] }[];
        resourceMetrics?: { scopeMetrics: { metrics: { name: string }[] }[] }[];
      };
      for (const { resource, scopeSpans } of body.resourceSpans ?? []) {
        received.services.add(resource.attributes.find(({ key }) => key === 'service.name')?.value.stringValue ?? '');
        received.spans.push(...scopeSpans.flatMap(({ spans }) => spans));
      }
      for (const { scopeMetrics } of body.resourceMetrics ?? []) for (const { metrics } of scopeMetrics) for (const { name } of metrics) received.metrics.add(name);
      outgoing.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  opened.push({
    close: async () => {
      server.closeAllConnections();
      server.close();
    },
  });
  return { ...received, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

async function start(environment: NodeJS.ProcessEnv, node: readonly string[] = []): Promise<Served> {
  const gateway = await startServed([...node, 'src/main.ts', 'serve', '--config', join(directory, 'paceline.yaml')], { environment });
  opened.push(gateway);
  expect(gateway.url, gateway.stderr()).not.toBe('');
  await eventually(async () => (await fetch(`${gateway.adminUrl}/readyz`)).status === 200, 20_000);
  return gateway;
}

async function ask(gateway: Served, headers: Record<string, string> = {}): Promise<void> {
  const answer = await fetch(`${gateway.url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify({ model: 'm', stream: true, messages: [{ role: 'user', content: 'hi' }] }) });
  expect(answer.status).toBe(200);
  await answer.text();
}

interface AccessLine {
  readonly msg: string;
  readonly requestId: string;
  readonly traceId?: string;
}
const accessLines = (gateway: Served): AccessLine[] => gateway.stderr().split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as AccessLine).filter(({ msg }) => msg === 'request');

test('what deploy/otel/otel.mjs brings sends spans and metrics where its environment says, the last ones when the gateway ends', { timeout: 60_000 }, async () => {
  const collector = await receiver();
  const gateway = await start(
    { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json', OTEL_TRACES_SAMPLER: 'parentbased_traceidratio', OTEL_TRACES_SAMPLER_ARG: '0', OTEL_METRICS_EXPORTER: 'otlp', OTEL_BSP_SCHEDULE_DELAY: '60000' },
    ['--import', resolve('deploy/otel/otel.mjs')],
  );
  await ask(gateway, { traceparent: PARENT, 'x-request-id': 'traced' });
  // Of those that nobody else samples, the share asked for is none.
  await ask(gateway);
  gateway.signal('SIGTERM');
  expect(await gateway.exited).toBe(0);
  expect(collector.spans.map(({ name, kind, traceId }) => [name, kind, traceId]).sort()).toEqual([
    ['POST', 3, PARENT.slice(3, 35)],
    ['chat m', 2, PARENT.slice(3, 35)],
  ]);
  expect(collector.spans.find(({ kind }) => kind === 2)?.parentSpanId).toBe('b7ad6b7169203331');
  expect([...collector.services]).toEqual(['paceline']);
  for (const name of ['gen_ai.server.request.duration', 'gen_ai.server.time_to_first_token', 'gen_ai.client.token.usage', 'paceline.energy']) expect([...collector.metrics]).toContain(name);
  expect(upstream.requests[0]?.headers['traceparent']).toMatch(/^00-0af7651916cd43dd8448eb211c80319c-(?!b7ad6b7169203331)[0-9a-f]{16}-01$/);
  expect(accessLines(gateway)[0]).toMatchObject({ requestId: 'traced', traceId: PARENT.slice(3, 35) });
});

test("without an SDK the client's context goes on to the model server as it came, and nothing is sent anywhere", { timeout: 60_000 }, async () => {
  const collector = await receiver();
  const gateway = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json', OTEL_METRICS_EXPORTER: 'otlp' });
  await ask(gateway, { traceparent: PARENT, tracestate: 'vendor=1', baggage: 'team=red' });
  expect(upstream.requests[0]?.headers).toMatchObject({ traceparent: PARENT, tracestate: 'vendor=1', baggage: 'team=red' });
  gateway.signal('SIGTERM');
  expect(await gateway.exited).toBe(0);
  expect(collector.spans).toEqual([]);
  expect([...collector.metrics]).toEqual([]);
});
