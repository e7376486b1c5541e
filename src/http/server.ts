// A listening HTTP server around an app, and its orderly end.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import type { App, ShortCut } from './app.ts';

export interface Listener {
  readonly url: string;
  /** Accepts nothing more and resolves when every connection is closed; after `drainMs` those left are cut. */
  close(drainMs: number): Promise<void>;
}

export interface ListenOptions {
  readonly host: string;
  readonly port: number;
  readonly headerBytesMax: number;
}

/** Longer than load balancers keep idle connections (60 s), so that they close first and never send into a closing one. */
const KEEP_ALIVE_MS = 75_000;
const IDLE_CHECK_MS = 20;

export async function listen(app: App, options: ListenOptions, shortCut: ShortCut | null = null): Promise<Listener> {
  const listener = getRequestListener(app.fetch as Parameters<typeof getRequestListener>[0], { overrideGlobalObjects: false, hostname: options.host });
  // Node's own limits stay: a minute for a request's headers, five for the whole of it. They do not bound answers.
  const server = createServer({ maxHeaderSize: options.headerBytesMax, keepAliveTimeout: KEEP_ALIVE_MS }, (incoming, outgoing) => {
    if (shortCut === null || !shortCut(incoming, outgoing)) void listener(incoming, outgoing);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const { address, family, port } = server.address() as AddressInfo;

  async function close(drainMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    // Connections become idle one by one as their answers end.
    const idle = setInterval(() => server.closeIdleConnections(), IDLE_CHECK_MS);
    const cut = setTimeout(() => server.closeAllConnections(), drainMs);
    await closed;
    clearInterval(idle);
    clearTimeout(cut);
  }

  return { url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`, close };
}
