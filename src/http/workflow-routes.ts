// Paceline's own routes of workflows: declared before their calls come, asked after, ended. What they do is said by the service behind them.
import { randomUUID } from 'node:crypto';
import type { HttpBindings } from '@hono/node-server';
import type { Context } from 'hono';
import type { SloConfig, TenantConfig } from '../config.ts';
import type { JobId, WorkflowId } from '../core/job.ts';
import { isLimited, type LimitDecision, type Limiter } from '../core/tenant-limits.ts';
import type { WorkflowNode, WorkflowSpec } from '../core/workflow.ts';
import type { WorkflowAnswer, WorkflowReport, WorkflowStatus } from '../scheduler/workflows.ts';
import { readWorkflow, shown, WORKFLOW_MS_MAX } from '../workflow-document.ts';
import { type Access, tenantOf } from './access.ts';
import type { App } from './app.ts';
import type { Refusal } from './error-response.ts';
import type { ModelNames } from './model-names.ts';
import { setRateLimitHeaders } from './rate-limit-headers.ts';
import { readBody } from './request-body.ts';
import { isWorkflowName, type KnownWorkflows, NAME_WANTED, tooTight } from './workflow-call.ts';

export interface WorkflowRoutesService extends KnownWorkflows {
  declare(workflow: WorkflowSpec): Promise<WorkflowAnswer>;
  status(tenant: string, workflowId: WorkflowId): WorkflowStatus | null;
  /** Of one that has ended lately. */
  report(tenant: string, workflowId: WorkflowId): WorkflowReport | null;
  end(tenant: string, workflowId: WorkflowId): void;
}

/** All but the service is read anew for each request. */
export interface WorkflowRoutesOptions {
  readonly service: WorkflowRoutesService;
  readonly access: () => Access;
  readonly models: () => ModelNames;
  readonly slo: () => SloConfig;
  readonly draining: () => boolean;
  readonly limiter: Limiter;
  readonly refuse: (env: HttpBindings, refusal: Refusal) => Response;
}

type Env = Context<{ Bindings: HttpBindings }>;
type Read = { readonly kind: 'read'; readonly spec: WorkflowSpec } | Refusal;

/** 1,000 nodes and 20,000 edges of names as long as most are. */
const DECLARATION_BYTES_MAX = 2_097_152;

/** What may be asked of a path of theirs; `null`: it is none. */
export function workflowMethods(path: string): string | null {
  if (path === '/v1/workflows') return 'POST, OPTIONS';
  return /^\/v1\/workflows\/[^/]+$/.test(path) ? 'GET, HEAD, DELETE, OPTIONS' : null;
}

export function addWorkflowRoutes(app: App, options: WorkflowRoutesOptions): void {
  const { service, refuse } = options;
  /** For whoever may come; others are told why not. */
  const route = (handle: (tenant: TenantConfig, context: Env) => Promise<Response> | Response) => (context: Env): Promise<Response> | Response => {
    const identity = tenantOf(context.env.incoming.headers, options.access());
    return identity.kind === 'unauthorized' ? refuse(context.env, identity) : handle(identity.tenant, context);
  };
  const ended = (tenant: TenantConfig, context: Env): Response => {
    const id = context.req.param('id') ?? '';
    const report = service.report(tenant.name, id as WorkflowId);
    return report === null ? refuse(context.env, { kind: 'no-such-object', object: 'Workflow', id }) : context.json(endedBody(report));
  };

  app.post('/v1/workflows', route(async (tenant, context) => {
    const { env } = context;
    if (options.draining()) return refuse(env, { kind: 'rejected', reason: 'draining', retryAfterMs: null });
    const reading = await new Promise<Parameters<Parameters<typeof readBody>[3]>[0]>((resolve) => readBody(env.incoming as never, DECLARATION_BYTES_MAX, () => env.outgoing.writeContinue(), resolve));
    if (reading.kind === 'too-large') return refuse(env, { kind: 'body-too-large', bytesMax: DECLARATION_BYTES_MAX });
    if (reading.kind === 'encoded') return refuse(env, { kind: 'body-encoded', encoding: reading.encoding });
    const read = declarationOf(reading.body.toString('utf8'), tenant, options.models(), options.slo());
    if (read.kind !== 'read') return refuse(env, read);
    const limit = await counted(tenant, options.limiter);
    if (limit !== null) setRateLimitHeaders(env.outgoing, limit.standings);
    if (limit?.kind === 'refused') return refuse(env, { ...limit, kind: 'limit', tenant: tenant.name });
    const spec = limit?.sloClass ? { ...read.spec, sloClass: limit.sloClass } : read.spec;
    if (service.openCount(tenant.name) >= tenant.workflowsMax && service.find(tenant.name, spec.workflowId) === null) return refuse(env, { kind: 'workflows-full', tenant: tenant.name, max: tenant.workflowsMax });
    const answer = await service.declare(spec);
    if (answer.kind === 'refused') return refuse(env, refusalOf(answer, spec));
    return context.json(openBody(answer.status), 201, { location: `/v1/workflows/${encodeURIComponent(spec.workflowId)}` });
  }));
  app.get('/v1/workflows/:id', route((tenant, context) => {
    const status = service.status(tenant.name, (context.req.param('id') ?? '') as WorkflowId);
    return status === null ? ended(tenant, context) : context.json(openBody(status));
  }));
  app.delete('/v1/workflows/:id', route((tenant, context) => {
    service.end(tenant.name, (context.req.param('id') ?? '') as WorkflowId);
    return ended(tenant, context);
  }));
}

/** As a request of its tenant: whoever may send so many a minute may not have the gateway allot as many more. `null`: its tenant has no limits. */
function counted(tenant: TenantConfig, limiter: Limiter): Promise<LimitDecision | null> {
  if (!isLimited(tenant)) return Promise.resolve(null);
  const jobId = `declaration-${randomUUID()}` as JobId;
  return new Promise((resolve) =>
    limiter.admit({ jobId, tenant, model: '', promptBytes: 0, promptTokens: 0, maxOutputTokens: null, work: 'declare' }, (decision) => {
      // Nothing of it is worked on.
      limiter.settle(jobId, null);
      resolve(decision);
    }),
  );
}

function refusalOf(answer: Extract<WorkflowAnswer, { kind: 'refused' }>, { workflowId, deadlineMs, tenant }: WorkflowSpec): Refusal {
  switch (answer.reason) {
    case 'already-open':
      return { kind: 'conflict', message: `Workflow '${workflowId}' is open already; want another id, or end it first (DELETE /v1/workflows/${workflowId})` };
    case 'deadline-infeasible':
      return { kind: 'workflow-infeasible', deadlineMs, fastestMs: answer.fastestMs };
    case 'too-many-open':
      return { kind: 'workflows-full', tenant, max: null };
    case 'unknown-model':
      return { kind: 'rejected', reason: 'no-replica', retryAfterMs: null };
  }
}

/** `{id?, deadlineAt?}` beside what `readWorkflow` reads. */
function declarationOf(text: string, tenant: TenantConfig, models: ModelNames, slo: SloConfig): Read {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    return wrong(null, `We could not parse the JSON body of your request: ${error instanceof Error ? error.message : String(error)}`);
  }
  const { id, deadlineAt, ...document } = isObject(content) ? content : { id: undefined, deadlineAt: undefined };
  const reading = readWorkflow(isObject(content) ? document : content, ['id', 'deadlineAt']);
  if (reading.kind === 'refused') return wrong(placeOf(reading.problems[0] ?? ''), reading.problems.join('; '));
  const { name, nodes, edges } = reading.workflow;
  if (id !== undefined && (typeof id !== 'string' || !isWorkflowName(id))) return wrong('id', `id: got ${shown(id)}; ${NAME_WANTED}`);
  const deadlineMs = deadlineOf(reading.workflow.deadlineMs, deadlineAt, tenant);
  if (typeof deadlineMs !== 'number') return deadlineMs;
  const resolved: WorkflowNode[] = [];
  const listed = new Set(models.listed(tenant));
  for (const [place, node] of nodes.entries()) {
    if (node.kind === 'tool') {
      resolved.push(node);
      continue;
    }
    if (!isWorkflowName(node.stage)) return wrong(`nodes[${place}].stage`, `nodes[${place}].stage: got ${shown(node.stage)}, and its call names it in a header; ${NAME_WANTED}`);
    const model = models.resolve(tenant, node.model);
    if (model === null || !listed.has(node.model)) return { kind: 'unknown-model', model: node.model, param: `nodes[${place}].model` };
    resolved.push({ ...node, model });
  }
  return {
    kind: 'read',
    spec: { workflowId: (id ?? `wf-${randomUUID()}`) as WorkflowId, tenant: tenant.name, sloClass: tenant.sloClass ?? slo.default ?? 'best-effort', ...(name === undefined ? {} : { name }), deadlineMs, nodes: resolved, edges, infeasible: tenant.admission.infeasible },
  };
}

/** In milliseconds from now, by either way to say it. */
function deadlineOf(deadlineMs: number | undefined, deadlineAt: unknown, tenant: TenantConfig): number | Refusal {
  if (deadlineAt === undefined) {
    if (deadlineMs === undefined) return wrong('deadlineMs', 'deadlineMs: missing; want milliseconds from now, or deadlineAt');
    const why = tooTight(deadlineMs, tenant);
    return why === null ? deadlineMs : wrong('deadlineMs', `deadlineMs: got ${deadlineMs}; ${why}`);
  }
  if (deadlineMs !== undefined) return wrong('deadlineAt', 'deadlineAt: there is deadlineMs as well; want one of the two');
  const atUnixMs = typeof deadlineAt === 'string' && ISO_INSTANT.test(deadlineAt) ? Date.parse(deadlineAt) : Number.NaN;
  if (Number.isNaN(atUnixMs)) return wrong('deadlineAt', `deadlineAt: got ${shown(deadlineAt)}; want an instant of ISO 8601 with its zone, such as 2026-03-01T12:00:00Z`);
  const leftMs = atUnixMs - Date.now();
  if (leftMs <= 0) return wrong('deadlineAt', `deadlineAt: got ${shown(deadlineAt)}, which is past by ${-leftMs} ms`);
  if (leftMs > WORKFLOW_MS_MAX) return wrong('deadlineAt', `deadlineAt: got ${shown(deadlineAt)}, want at most ${WORKFLOW_MS_MAX} ms from now`);
  const why = tooTight(leftMs, tenant);
  return why === null ? leftMs : wrong('deadlineAt', `deadlineAt: got ${shown(deadlineAt)}, in ${leftMs} ms; ${why}`);
}

const ISO_INSTANT = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})$/;

function wrong(param: string | null, message: string): Extract<Refusal, { kind: 'bad-request' }> {
  return { kind: 'bad-request', param, message };
}

/** Problems begin with it, where they have one. */
function placeOf(problem: string): string | null {
  return /^([A-Za-z]+(?:\[\d+\])?(?:\.[A-Za-z]+|\[\d+\])*): /.exec(problem)?.[1] ?? null;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function openBody({ workflowId, name, verdict, deadlineInMs, fastestLeftMs, expectedJ, spentJ, stages }: WorkflowStatus): object {
  return {
    id: workflowId,
    object: 'workflow',
    state: 'open',
    name,
    verdict,
    deadlineInMs: Math.round(deadlineInMs),
    fastestMs: Math.round(fastestLeftMs),
    expectedJoules: joules(expectedJ),
    spentJoules: joules(spentJ),
    stages: stages.map(({ stage, kind, state, startInMs, dueInMs, expectedJ: ownJ }) => ({ stage, kind, state, startInMs: Math.round(startInMs), dueInMs: Math.round(dueInMs), expectedJoules: joules(ownJ) })),
  };
}

function endedBody({ workflowId, name, outcome, met, deadlineMs, tookMs, calls, outputTokens, energyJ }: WorkflowReport): object {
  return { id: workflowId, object: 'workflow', state: 'ended', name, outcome, met, deadlineMs: Math.round(deadlineMs), tookMs: Math.round(tookMs), calls, outputTokens, spentJoules: joules(energyJ) };
}

function joules(energyJ: number): number {
  return Math.round(1_000 * energyJ) / 1_000;
}
