// OpenAI's routes of files and batches. What they do is said by the service behind them, which this edge does not import.
import { Readable } from 'node:stream';
import type { HttpBindings } from '@hono/node-server';
import type { Context } from 'hono';
import type { App } from './app.ts';
import type { Refusal } from './error-response.ts';
import type { Access } from './access.ts';
import { tenantOf } from './access.ts';
import { readBody } from './request-body.ts';
import { readUpload } from './upload.ts';

type Refused = Extract<Refusal, { kind: 'bad-request' | 'body-too-large' | 'no-such-object' | 'batch-bound' | 'conflict' | 'batch-store-lost' }>;
type Outcome<Value> = { readonly kind: 'ok'; readonly value: Value } | Refused;

interface Upload {
  readonly fileId: string;
  readonly bytes: number;
}

interface ListQuery {
  readonly after: string | undefined;
  readonly limit: string | undefined;
  readonly order: string | undefined;
  readonly purpose: string | undefined;
}

/** See `batch/batch-service.ts`. */
export interface BatchRoutesService {
  upload(bytes: AsyncIterable<Buffer>): Promise<Outcome<Upload>>;
  commit(tenant: string, upload: Upload, fields: { readonly filename: string; readonly purpose: string | undefined; readonly expiresAnchor: string | undefined; readonly expiresSeconds: string | undefined }): Promise<Outcome<object>>;
  drop(upload: Upload): Promise<void>;
  file(tenant: string, fileId: string): Promise<Outcome<object>>;
  files(tenant: string, query: ListQuery): Promise<Outcome<object>>;
  content(tenant: string, fileId: string): Promise<Outcome<{ readonly filename: string; readonly size: number; readonly bytes: AsyncIterable<Buffer> }>>;
  deleteFile(tenant: string, fileId: string): Promise<Outcome<object>>;
  create(tenant: string, body: unknown): Promise<Outcome<object>>;
  batch(tenant: string, batchId: string): Promise<Outcome<object>>;
  batches(tenant: string, query: ListQuery): Promise<Outcome<object>>;
  cancel(tenant: string, batchId: string): Promise<Outcome<object>>;
}

export interface BatchRoutesOptions {
  readonly service: BatchRoutesService;
  /** Read anew for each request. */
  readonly access: () => Access;
  readonly refuse: (env: HttpBindings, refusal: Refusal) => Response;
}

type Env = Context<{ Bindings: HttpBindings }>;

/** A body that creates a batch is an id and some metadata. */
const CREATION_BYTES_MAX = 65_536;

/** What may be asked of a path of theirs; `null`: it is none. */
export function batchMethods(path: string): string | null {
  if (/^\/v1\/(files|batches)$/.test(path)) return 'GET, HEAD, POST, OPTIONS';
  if (/^\/v1\/files\/[^/]+$/.test(path)) return 'GET, HEAD, DELETE, OPTIONS';
  if (/^\/v1\/files\/[^/]+\/content$|^\/v1\/batches\/[^/]+$/.test(path)) return 'GET, HEAD, OPTIONS';
  return /^\/v1\/batches\/[^/]+\/cancel$/.test(path) ? 'POST, OPTIONS' : null;
}

export function addBatchRoutes(app: App, { service, access, refuse }: BatchRoutesOptions): void {
  /** For whoever may come; others are told why not. */
  const route = (handle: (tenant: string, context: Env) => Promise<Response>) => (context: Env): Response | Promise<Response> => {
    const identity = tenantOf(context.env.incoming.headers, access());
    return identity.kind === 'unauthorized' ? refuse(context.env, identity) : handle(identity.tenant.name, context);
  };
  const told = (ask: (tenant: string, context: Env) => Promise<Outcome<object>>) =>
    route(async (tenant, context) => {
      const outcome = await ask(tenant, context);
      return outcome.kind === 'ok' ? context.json(outcome.value) : refuse(context.env, outcome);
    });
  const id = (context: Env): string => context.req.param('id') ?? '';

  app.post('/v1/files', told((tenant, { env }) => receive(service, tenant, env)));
  app.get('/v1/files', told((tenant, context) => service.files(tenant, queryOf(context))));
  app.get('/v1/files/:id', told((tenant, context) => service.file(tenant, id(context))));
  app.delete('/v1/files/:id', told((tenant, context) => service.deleteFile(tenant, id(context))));
  app.get('/v1/files/:id/content', route(async (tenant, context) => {
    const outcome = await service.content(tenant, id(context));
    if (outcome.kind !== 'ok') return refuse(context.env, outcome);
    const { filename, size, bytes } = outcome.value;
    const headers = { 'content-type': 'application/octet-stream', 'content-length': String(size), 'content-disposition': `attachment; filename="${filename.replaceAll(/[^\w.-]/g, '_')}"` };
    return new Response(context.req.method === 'HEAD' ? null : (Readable.toWeb(Readable.from(bytes, { objectMode: false })) as never), { headers });
  }));
  app.post('/v1/batches', told(async (tenant, { env }) => {
    const reading = await new Promise<Parameters<Parameters<typeof readBody>[3]>[0]>((resolve) => readBody(env.incoming as never, CREATION_BYTES_MAX, () => goOn(env), resolve));
    if (reading.kind === 'too-large') return { kind: 'body-too-large', bytesMax: CREATION_BYTES_MAX };
    if (reading.kind === 'encoded') return { kind: 'bad-request', param: null, message: `content-encoding: got '${reading.encoding}', want none` };
    try {
      return await service.create(tenant, JSON.parse(reading.body.toString('utf8')));
    } catch (error) {
      if (error instanceof SyntaxError) return { kind: 'bad-request', param: null, message: `We could not parse the JSON body of your request: ${error.message}` };
      throw error;
    }
  }));
  app.get('/v1/batches', told((tenant, context) => service.batches(tenant, queryOf(context))));
  app.get('/v1/batches/:id', told((tenant, context) => service.batch(tenant, id(context))));
  app.post('/v1/batches/:id/cancel', told((tenant, context) => service.cancel(tenant, id(context))));
}

async function receive(service: BatchRoutesService, tenant: string, env: HttpBindings): Promise<Outcome<object>> {
  const { expect } = env.incoming.headers;
  if (expect !== undefined && env.incoming.httpVersion !== '1.0' && /\b100-continue\b/i.test(String(expect))) goOn(env);
  const reading = await readUpload(env.incoming as never, (bytes) => service.upload(bytes));
  if (reading.kind === 'bad') {
    if (reading.taken?.kind === 'ok') await service.drop(reading.taken.value);
    return { kind: 'bad-request', param: null, message: reading.message };
  }
  if (reading.file === null) return { kind: 'bad-request', param: 'file', message: 'file: missing; want a file in a part of that name' };
  const { filename, taken } = reading.file;
  if (taken.kind !== 'ok') return taken;
  const { fields } = reading;
  return service.commit(tenant, taken.value, { filename: filename.slice(0, 255), purpose: fields.get('purpose'), expiresAnchor: fields.get('expires_after[anchor]'), expiresSeconds: fields.get('expires_after[seconds]') });
}

function goOn({ outgoing }: HttpBindings): void {
  outgoing.writeContinue();
}

function queryOf({ req }: Env): ListQuery {
  return { after: req.query('after'), limit: req.query('limit'), order: req.query('order'), purpose: req.query('purpose') };
}
