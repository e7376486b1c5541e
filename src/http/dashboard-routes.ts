// The dashboard on the operators' listener: the page, its script, and an event stream with the parts of it that have changed.
import { createHash } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import type { App } from './app.ts';

/** What is shown; made elsewhere. */
export interface DashboardPage {
  /** The whole document, as things are now. */
  readonly document: () => string;
  /** Of the document's `style` element. */
  readonly style: string;
  readonly script: string;
  /** The document's parts by name, as things are now. */
  readonly fragments: () => Readonly<Record<string, string>>;
}

/** One person has a few windows; each costs a connection and what it is sent. */
export const VIEWERS_MAX = 32;
export const REFRESH_MS = 1_000;
/** Not read by its browser so far; a viewer that has so much gets nothing more … */
const BACKLOG_BYTES_MAX = 1_048_576;
/** … and is let go after so many refreshes. */
const SKIPPED_MAX = 30;

export const DASHBOARD_PATH = '/paceline/dashboard';

/** Pages that a browser opens by itself, which can give a key only if it is asked for one. */
export function isDashboardPath(path: string): boolean {
  return path === '/' || path === DASHBOARD_PATH || path.startsWith(`${DASHBOARD_PATH}/`);
}

/** What may be asked of a path of theirs; `null`: it is none. */
export function dashboardMethods(path: string): string | null {
  return path === '/' || [DASHBOARD_PATH, `${DASHBOARD_PATH}/script.js`, `${DASHBOARD_PATH}/events`].includes(path) ? 'GET, HEAD, OPTIONS' : null;
}

interface Viewer {
  readonly outgoing: ServerResponse;
  /** What it has by name. */
  readonly has: Map<string, string>;
  skipped: number;
}

/** What is under way ends with its connection, and so with its listener. */
export function addDashboardRoutes(app: App, page: DashboardPage, refreshMs: number = REFRESH_MS): void {
  const viewers = new Set<Viewer>();
  let timer: NodeJS.Timeout | null = null;
  const policy = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(page.style).digest('base64')}'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
  const headers = { 'content-security-policy': policy, 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer', 'cache-control': 'no-store' };

  /** Rendered once for all, and only while somebody looks. */
  function refresh(): void {
    const fragments = page.fragments();
    for (const viewer of viewers) tell(viewer, fragments);
  }

  function tell(viewer: Viewer, fragments: Readonly<Record<string, string>>): void {
    const { outgoing, has } = viewer;
    if (outgoing.writableLength > BACKLOG_BYTES_MAX) {
      viewer.skipped += 1;
      if (viewer.skipped > SKIPPED_MAX) outgoing.destroy();
      return;
    }
    viewer.skipped = 0;
    const changed = Object.entries(fragments).filter(([name, html]) => has.get(name) !== html);
    for (const [name, html] of changed) has.set(name, html);
    if (changed.length > 0) outgoing.write(`data: ${JSON.stringify(Object.fromEntries(changed))}\n\n`);
  }

  function leave(viewer: Viewer): void {
    viewers.delete(viewer);
    if (viewers.size > 0 || timer === null) return;
    clearInterval(timer);
    timer = null;
  }

  app.get('/', (context) => context.redirect(DASHBOARD_PATH.slice(1), 302));
  app.get(DASHBOARD_PATH, (context) => context.html(page.document(), 200, headers));
  app.get(`${DASHBOARD_PATH}/script.js`, (context) => context.body(page.script, 200, { ...headers, 'content-type': 'text/javascript; charset=utf-8' }));
  app.get(`${DASHBOARD_PATH}/events`, (context) => {
    if (viewers.size >= VIEWERS_MAX) return context.json({ error: `${VIEWERS_MAX} windows have the dashboard open; close one` }, 503, { 'retry-after': '10' });
    const streamHeaders = { ...headers, 'content-type': 'text/event-stream; charset=utf-8', 'x-accel-buffering': 'no' };
    if (context.req.method === 'HEAD') return context.body(null, 200, streamHeaders);
    const { outgoing } = context.env;
    outgoing.writeHead(200, streamHeaders);
    const viewer: Viewer = { outgoing, has: new Map(), skipped: 0 };
    viewers.add(viewer);
    outgoing.once('close', () => leave(viewer));
    outgoing.write('retry: 2000\n\n');
    tell(viewer, page.fragments());
    timer ??= setInterval(refresh, refreshMs);
    return RESPONSE_ALREADY_SENT;
  });
}
