// The public routes. Inference goes on with Node's own request and response at once; the rest is Hono's to match.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { HttpBindings } from '@hono/node-server';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import { Hono } from 'hono';
import type { Limiter } from '../core/tenant-limits.ts';
import type { Access } from './access.ts';
import { tenantOf } from './access.ts';
import type { BatchRoutesService } from './batch-routes.ts';
import { addBatchRoutes, batchMethods } from './batch-routes.ts';
import { dialectOf, ENDPOINTS, isAllowed } from './endpoints.ts';
import type { Refusal } from './error-response.ts';
import { writeRefusal } from './error-response.ts';
import type { Exchange } from './exchange.ts';
import { requestIdOf } from './headers.ts';
import type { ModelNames } from './model-names.ts';
import type { SloConfig } from '../config.ts';
import type { WorkflowRoutesService } from './workflow-routes.ts';
import { addWorkflowRoutes, workflowMethods } from './workflow-routes.ts';

/** Models and access may become others between two requests. */
export interface AppOptions {
  readonly models: ModelNames;
  readonly access: Access;
  /** When the models were first offered, seconds since 1970; OpenAI's list has it. */
  readonly createdAtS: number;
  readonly refused: (kind: Refusal['kind'], requestId: string) => void;
  /** `null`: there are no batches here, and their routes are unknown. */
  readonly batches: BatchRoutesService | null;
  readonly workflows: WorkflowRoutesService;
  readonly limiter: Limiter;
  readonly slo: SloConfig;
  readonly draining: () => boolean;
}

export type App = Hono<{ Bindings: HttpBindings }>;

/** Answers whether it took the request; what it leaves is the app's. */
export type ShortCut = (incoming: IncomingMessage, outgoing: ServerResponse) => boolean;

export interface ShortCutOptions {
  readonly exchange: Exchange;
  /** Further paths that go on to the model servers; see `isAllowed`. Read for each request. */
  readonly passThrough: readonly string[];
}

/** Past Hono, for the requests that there are thousands of. */
export function createShortCut(options: ShortCutOptions): ShortCut {
  const { exchange } = options;
  return (incoming, outgoing) => {
    const path = pathOf(incoming.url);
    const endpoint = incoming.method === 'POST' ? ENDPOINTS.get(path) : undefined;
    if (endpoint !== undefined) exchange(endpoint, path, incoming, outgoing);
    else if (!ENDPOINTS.has(path) && !isModels(path) && workflowMethods(path) === null && isAllowed(incoming.method ?? '', path, options.passThrough)) exchange('opaque', path, incoming, outgoing);
    else return false;
    return true;
  };
}

/** They are the gateway's own to tell of. */
function isModels(path: string): boolean {
  return /^\/v1\/models(\/|$)/.test(path);
}

/** A target may also name the host (RFC 9112, 3.2.2). */
function pathOf(url = '/'): string {
  if (url.charCodeAt(0) !== 0x2f) return URL.canParse(url) ? new URL(url).pathname : url;
  const end = url.indexOf('?');
  return end < 0 ? url : url.slice(0, end);
}

export function createApp(options: AppOptions): App {
  const app: App = new Hono();
  const refuse = (env: HttpBindings, refusal: Refusal): Response => {
    const requestId = requestIdOf(env.incoming.headers);
    options.refused(refusal.kind, requestId);
    writeRefusal(env.outgoing, refusal, requestId, dialectOf(pathOf(env.incoming.url)));
    env.incoming.resume();
    return RESPONSE_ALREADY_SENT;
  };
  const modelCard = (id: string) => ({ id, object: 'model', created: options.createdAtS, owned_by: 'paceline' });

  app.get('/v1/models', (context) => {
    const identity = tenantOf(context.env.incoming.headers, options.access);
    if (identity.kind === 'unauthorized') return refuse(context.env, identity);
    return context.json({ object: 'list', data: options.models.listed(identity.tenant).map(modelCard) });
  });
  // Names of models have slashes in them.
  app.get('/v1/models/:model{.+}', (context) => {
    const identity = tenantOf(context.env.incoming.headers, options.access);
    if (identity.kind === 'unauthorized') return refuse(context.env, identity);
    const model = context.req.param('model');
    return options.models.listed(identity.tenant).includes(model) ? context.json(modelCard(model)) : refuse(context.env, { kind: 'unknown-model', model });
  });
  if (options.batches !== null) addBatchRoutes(app, { service: options.batches, access: () => options.access, refuse });
  addWorkflowRoutes(app, { service: options.workflows, access: () => options.access, models: () => options.models, slo: () => options.slo, draining: options.draining, limiter: options.limiter, refuse });
  app.notFound((context) => {
    const { method, path } = context.req;
    const allowed = ENDPOINTS.has(path) ? 'POST, OPTIONS' : isModels(path) ? 'GET, HEAD, OPTIONS' : (workflowMethods(path) ?? (options.batches === null ? null : batchMethods(path)));
    if (allowed === null) return refuse(context.env, { kind: 'unknown-route', method, path });
    if (method === 'OPTIONS') return context.body(null, 204, { allow: allowed });
    return refuse(context.env, { kind: 'wrong-method', method, path, allowed });
  });
  return app;
}
