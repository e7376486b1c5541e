// The public routes. Hono matches them; inference then goes on with Node's own request and response.
import type { HttpBindings } from '@hono/node-server';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import { Hono } from 'hono';
import type { TenantConfig } from '../config.ts';
import type { Refusal } from './error-response.ts';
import { writeRefusal } from './error-response.ts';
import type { Exchange } from './exchange.ts';
import { tenantOf } from './exchange.ts';
import { requestIdOf } from './headers.ts';
import type { Endpoint } from './openai-request.ts';
import { ENDPOINT_PATHS } from './openai-request.ts';

export interface AppOptions {
  readonly exchange: Exchange;
  readonly models: readonly string[];
  readonly tenantsByKeySha256: ReadonlyMap<string, TenantConfig>;
  /** When the models were first offered, seconds since 1970; OpenAI's list has it. */
  readonly createdAtS: number;
  readonly refused: (kind: Refusal['kind'], requestId: string) => void;
}

export type App = Hono<{ Bindings: HttpBindings }>;

export function createApp(options: AppOptions): App {
  const app: App = new Hono();
  for (const [endpoint, path] of Object.entries(ENDPOINT_PATHS)) {
    app.post(path, ({ env }) => {
      options.exchange(endpoint as Endpoint, env.incoming, env.outgoing);
      return RESPONSE_ALREADY_SENT;
    });
  }

  const refuse = (env: HttpBindings, refusal: Refusal): Response => {
    const requestId = requestIdOf(env.incoming.headers);
    options.refused(refusal.kind, requestId);
    writeRefusal(env.outgoing, refusal, requestId);
    env.incoming.resume();
    return RESPONSE_ALREADY_SENT;
  };
  const modelCard = (id: string) => ({ id, object: 'model', created: options.createdAtS, owned_by: 'paceline' });

  app.get('/v1/models', (context) => {
    const identity = tenantOf(context.req.header('authorization'), options.tenantsByKeySha256);
    if (identity.kind === 'unauthorized') return refuse(context.env, identity);
    return context.json({ object: 'list', data: options.models.map(modelCard) });
  });
  // Names of models have slashes in them.
  app.get('/v1/models/:model{.+}', (context) => {
    const identity = tenantOf(context.req.header('authorization'), options.tenantsByKeySha256);
    if (identity.kind === 'unauthorized') return refuse(context.env, identity);
    const model = context.req.param('model');
    return options.models.includes(model) ? context.json(modelCard(model)) : refuse(context.env, { kind: 'unknown-model', model });
  });
  app.notFound(({ env, req }) => refuse(env, { kind: 'unknown-route', method: req.method, path: req.path }));
  return app;
}
