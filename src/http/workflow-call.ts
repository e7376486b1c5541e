// Which workflow a request is a call of, read from its headers. What cannot be meant is refused, and never read as "of none".
import type { IncomingHttpHeaders } from 'node:http';
import type { TenantConfig } from '../config.ts';
import type { WorkflowCall, WorkflowId } from '../core/job.ts';
import type { OpenWorkflow } from '../scheduler/workflows.ts';
import { isDots, WORKFLOW_MS_MAX, WORKFLOW_MS_MIN } from '../workflow-document.ts';

/** What is known of the workflows here. */
export interface KnownWorkflows {
  find(tenant: string, workflowId: WorkflowId): OpenWorkflow | null;
  /** Of one that has ended here lately: what is left until it was due; negative where that is past. `null`: nothing is known of it. */
  endedLeftMs(tenant: string, workflowId: WorkflowId): number | null;
  openCount(tenant: string): number;
}

export type WorkflowCallReading =
  | { readonly kind: 'none' }
  | { readonly kind: 'call'; readonly call: WorkflowCall }
  /** A call of one that is over, such as one tried again: it is served like any other, by when the whole was due. */
  | { readonly kind: 'late-comer'; readonly leftMs: number }
  | { readonly kind: 'bad'; readonly param: string; readonly message: string }
  | { readonly kind: 'workflows-full'; readonly tenant: string; readonly max: number };

const ID = 'x-paceline-workflow-id';
const STAGE = 'x-paceline-workflow-stage';
const DEADLINE = 'x-paceline-workflow-deadline-ms';
const NAME = 'x-paceline-workflow-name';

/** What an id, and what a header says of stages and names, may look like: they end in logs and in answers. */
const NAME_PATTERN = /^[A-Za-z0-9._:/#+=@-]{1,128}$/;
export const NAME_WANTED = 'want 1 to 128 letters, digits or . _ : / # + = @ -, and not . or .. alone';
/** Of calls that say none. */
const STAGE_DEFAULT = 'call';

/** It can stand in a header, and at the end of an address. */
export function isWorkflowName(text: string): boolean {
  return NAME_PATTERN.test(text) && !isDots(text);
}

/**
 * Without a declaration the first call of an id opens its workflow, and its deadline counts from then; what later calls say of deadline and name is
 * not read any more. A declared one has its deadline from its declaration.
 */
export function readWorkflowCall(headers: IncomingHttpHeaders, tenant: TenantConfig, known: KnownWorkflows): WorkflowCallReading {
  const given = { id: textOf(headers, ID), stage: textOf(headers, STAGE), name: textOf(headers, NAME) };
  const rawDeadline = headers[DEADLINE] === undefined ? null : String(headers[DEADLINE]);
  if (given.id === null) {
    const alone = given.stage !== null ? STAGE : given.name !== null ? NAME : rawDeadline !== null ? DEADLINE : null;
    return alone === null ? { kind: 'none' } : bad(alone, String(headers[alone]), `there is no ${ID}; send both, or none`);
  }
  for (const [header, text] of [[ID, given.id], [STAGE, given.stage], [NAME, given.name]] as const) if (text !== null && !isWorkflowName(text)) return bad(header, text, NAME_WANTED);
  const deadline = rawDeadline === null ? null : deadlineOf(rawDeadline, tenant);
  if (deadline !== null && typeof deadline !== 'number') return deadline;

  const workflowId = given.id as WorkflowId;
  const open = known.find(tenant.name, workflowId);
  const stage = given.stage ?? STAGE_DEFAULT;
  if (open?.declared === true) {
    if (open.takes(stage)) return { kind: 'call', call: { workflowId, stage } };
    return given.stage === null ? { kind: 'bad', param: STAGE, message: `header ${STAGE}: missing; workflow '${given.id}' was declared with ${stagesText(open.stages())}` } : bad(STAGE, given.stage, `workflow '${given.id}' was declared with ${stagesText(open.stages())}`);
  }
  if (open !== null) return { kind: 'call', call: { workflowId, stage } };
  const leftMs = known.endedLeftMs(tenant.name, workflowId);
  if (deadline === null) {
    if (leftMs !== null) return { kind: 'late-comer', leftMs };
    return bad(ID, given.id, `no such workflow is open at this gateway: declare it (POST /v1/workflows), or send ${DEADLINE} with its calls. Gateways do not share workflows: where there are several, all that is sent of one goes to the same`);
  }
  if (known.openCount(tenant.name) >= tenant.workflowsMax) return { kind: 'workflows-full', tenant: tenant.name, max: tenant.workflowsMax };
  // One that was taken for over goes on, and not with more time than it had.
  return { kind: 'call', call: { workflowId, stage, discovered: { deadlineMs: leftMs !== null && leftMs > 0 ? leftMs : deadline, name: given.name ?? stage } } };
}

function textOf(headers: IncomingHttpHeaders, name: string): string | null {
  const value = headers[name];
  return value === undefined ? null : String(value);
}

function deadlineOf(raw: string, tenant: TenantConfig): number | Extract<WorkflowCallReading, { kind: 'bad' }> {
  const ms = /^\d{1,12}(\.\d{1,20})?$/.test(raw) ? Number(raw) : Number.NaN;
  if (!(ms >= WORKFLOW_MS_MIN && ms <= WORKFLOW_MS_MAX)) return bad(DEADLINE, raw, `want a number of milliseconds, ${WORKFLOW_MS_MIN} to ${WORKFLOW_MS_MAX}`);
  const why = tooTight(ms, tenant);
  return why === null ? ms : bad(DEADLINE, raw, why);
}

/** Whatever a whole workflow may take, a call of it may not take longer: a tenant's least end-to-end limit is one of its workflows, too. Its greatest is of single requests. */
export function tooTight(deadlineMs: number, { name, bounds }: TenantConfig): string | null {
  const min = bounds.e2eMs?.min ?? 0;
  return deadlineMs < min ? `tenant '${name}' may ask for ${min} ms or more` : null;
}

function bad(param: string, raw: string, why: string): Extract<WorkflowCallReading, { kind: 'bad' }> {
  return { kind: 'bad', param, message: `header ${param}: got '${raw.length > 60 ? `${raw.slice(0, 59)}…` : raw}'; ${why}` };
}

const STAGES_SHOWN_MAX = 20;

function stagesText(stages: readonly string[]): string {
  const more = stages.length - STAGES_SHOWN_MAX;
  return `${stages.length === 1 ? 'the stage' : 'the stages'} ${stages.slice(0, STAGES_SHOWN_MAX).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}
