// What operators ask, on a listener of its own: is it alive, is it ready, what does it count, what is it doing.
import type { HttpBindings } from '@hono/node-server';
import { Hono } from 'hono';
import type { App } from './app.ts';
import { addDashboardRoutes, dashboardMethods, type DashboardPage, isDashboardPath } from './dashboard-routes.ts';
import { refusalResponse } from './error-response.ts';
import { requestIdOf } from './headers.ts';
import type { OperatorAccess } from './operator-access.ts';
import { mayOperate } from './operator-access.ts';
import { addPowerRoutes, powerMethods, type PowerRoutes } from './power-routes.ts';

export interface OperatorAppOptions {
  readonly access: OperatorAccess;
  /** Can requests be served: some replica is up, and we are not shutting down. */
  readonly ready: () => boolean;
  readonly metrics: () => string;
  /** Plain data. */
  readonly status: () => unknown;
  /** The accounts of energy; plain data. */
  readonly energy?: () => object;
  /** Power budgets and energy prices. */
  readonly power?: PowerRoutes;
  /** The page at `/paceline/dashboard`. */
  readonly dashboard?: DashboardPage;
  /** Drains a replica, or ends that; what it is then, with the jobs still there, and `null` where there is no such replica. Draining is forgotten at restart. */
  readonly drain: (replicaId: string, on: boolean) => object | null;
  /** What was learnt of a replica, as a profile; or why there is none. */
  readonly profile: (replicaId: string) => object | 'unknown' | 'cold';
  readonly refused: (kind: 'unauthorized', requestId: string) => void;
}

export function createOperatorApp(options: OperatorAppOptions): App {
  const app: App = new Hono<{ Bindings: HttpBindings }>();
  // Before all routes, so that one that comes later is closed too.
  app.use(async (context, next) => {
    const { headers } = context.env.incoming;
    if (mayOperate(options.access, context.req.path, headers)) return next();
    const requestId = requestIdOf(headers);
    options.refused('unauthorized', requestId);
    const refusal = refusalResponse({ kind: 'unauthorized', message: `This listener wants ${options.access === null ? 'to be asked under a name of this machine (127.0.0.1, localhost), and by no page of another site' : "the operators' key, as Authorization: Bearer KEY, or as the password that a browser asks for"}; /healthz and /readyz are open` }, requestId);
    // A browser asks its user then; whatever stands for the user's name, the password is the key.
    if (options.access !== null && options.dashboard !== undefined && isDashboardPath(context.req.path)) refusal.headers.set('www-authenticate', 'Basic realm="Paceline operators", charset="UTF-8"');
    return refusal;
  });
  app.get('/healthz', (context) => context.json({ status: 'ok' }));
  app.get('/readyz', (context) => (options.ready() ? context.json({ status: 'ready' }) : context.json({ status: 'not ready' }, 503)));
  app.get('/metrics', (context) => context.text(options.metrics(), 200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }));
  app.get('/paceline/status', (context) => context.json(options.status() as object));
  const { energy } = options;
  if (energy !== undefined) app.get('/paceline/energy', (context) => context.json(energy()));
  for (const [action, on] of [['drain', true], ['undrain', false]] as const) {
    app.post(`/paceline/replicas/:id/${action}`, (context) => {
      const replica = options.drain(context.req.param('id'), on);
      return replica === null ? context.json({ error: `no replica '${context.req.param('id')}'; /paceline/status lists those that there are` }, 404) : context.json(replica);
    });
  }
  app.get('/paceline/replicas/:id/profile', (context) => {
    const id = context.req.param('id');
    const profile = options.profile(id);
    if (profile === 'unknown') return context.json({ error: `no replica '${id}'; /paceline/status lists those that there are` }, 404);
    return profile === 'cold' ? context.json({ error: `too little was seen of replica '${id}' yet; ask again when it has served some dozens of requests` }, 409) : context.json(profile);
  });
  if (options.power !== undefined) addPowerRoutes(app, options.power);
  if (options.dashboard !== undefined) addDashboardRoutes(app, options.dashboard);
  app.notFound((context) => {
    const { method, path } = context.req;
    const allowed = methodsOf(path, options);
    if (allowed === null) return context.json({ error: `no ${path} here; there are /healthz, /readyz, /metrics, /paceline/dashboard, /paceline/status, /paceline/energy, /paceline/power, GET, PUT and DELETE /paceline/power/budgets/{name}, /paceline/replicas/{id}/profile, POST /paceline/replicas/{id}/drain and /undrain` }, 404);
    if (method === 'OPTIONS') return context.body(null, 204, { allow: allowed });
    return context.json({ error: `${path} takes ${allowed}, and not ${method}` }, 405, { allow: allowed });
  });
  return app;
}

const READ_ONLY = 'GET, HEAD, OPTIONS';

/** What may be asked of a path; `null`: there is none such. */
function methodsOf(path: string, { energy, power, dashboard }: OperatorAppOptions): string | null {
  if (['/healthz', '/readyz', '/metrics', '/paceline/status'].includes(path) || (path === '/paceline/energy' && energy !== undefined)) return READ_ONLY;
  if (/^\/paceline\/replicas\/[^/]+\/profile$/.test(path)) return READ_ONLY;
  if (/^\/paceline\/replicas\/[^/]+\/(un)?drain$/.test(path)) return 'POST, OPTIONS';
  return (power === undefined ? null : powerMethods(path)) ?? (dashboard === undefined ? null : dashboardMethods(path));
}
