// The probes' thread: answers what a supervisor asks without the main thread, whose event loop is what it asks about. A loop
// that is late under load still serves; one that stands still for `stuckMs` does not, and only then /livez says so.
// Started by `probe-listener.ts`. Node's own modules only: it has to be up in no time, and small.
import type { ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import type { ProbeWorkerData, ProbeWorkerMessage } from './probe-listener.ts';

/** Supervisors and a person or two. */
const CONNECTIONS_MAX = 64;
/** Of a probe's request; whoever takes longer is closed. */
const REQUEST_MS_MAX = 2_000;
const HEADER_BYTES_MAX = 4_096;
/** Where the numbers stand that the main thread writes; see `probe-listener.ts`. */
const [BEAT_AT_NS, PHASE] = [0, 1];
const PHASES = ['starting', 'not ready', 'ready', 'draining'] as const;

const { shared, host, port, stuckMs } = workerData as ProbeWorkerData;
const told = new BigInt64Array(shared);

const server = createServer({ maxHeaderSize: HEADER_BYTES_MAX, headersTimeout: REQUEST_MS_MAX, requestTimeout: REQUEST_MS_MAX, connectionsCheckingInterval: REQUEST_MS_MAX / 4, keepAlive: false }, (incoming, outgoing) => {
  incoming.resume();
  const path = (incoming.url ?? '').split('?', 1)[0];
  if (incoming.method !== 'GET' && incoming.method !== 'HEAD') return answer(outgoing, 405, { error: 'probes are asked with GET or HEAD' });
  const phase = PHASES[Number(Atomics.load(told, PHASE))] ?? 'starting';
  const silentMs = Number((process.hrtime.bigint() - Atomics.load(told, BEAT_AT_NS)) / 1_000_000n);
  const stuck = silentMs > stuckMs;
  switch (path) {
    case '/livez':
      return stuck ? answer(outgoing, 503, { status: 'stuck', silentMs, stuckMs }) : answer(outgoing, 200, { status: 'alive', silentMs });
    case '/readyz':
      return answer(outgoing, phase === 'ready' && !stuck ? 200 : 503, { status: stuck ? 'stuck' : phase });
    case '/startupz':
      return answer(outgoing, phase === 'starting' ? 503 : 200, { status: phase === 'starting' ? 'starting' : 'started' });
    default:
      return answer(outgoing, 404, { error: 'no such probe; there are /livez, /readyz, /startupz' });
  }
});
server.maxConnections = CONNECTIONS_MAX;
server.once('error', (error: NodeJS.ErrnoException) => say({ kind: 'failed', code: error.code ?? '', message: error.message }));
server.listen({ host, port }, () => {
  const bound = server.address() as AddressInfo;
  say({ kind: 'listening', url: `http://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}` });
});

function answer(outgoing: ServerResponse, status: number, body: object): void {
  const text = JSON.stringify(body);
  outgoing.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text), 'cache-control': 'no-store', connection: 'close' });
  outgoing.end(text);
}

function say(message: ProbeWorkerMessage): void {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port between threads knows no origins
  parentPort?.postMessage(message);
}
