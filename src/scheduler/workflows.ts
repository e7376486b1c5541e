// The workflows that are open: which call is a part of which, by when each is due as the slack of the whole is allotted, and what became of
// them. Shapes that were not declared are learnt from earlier runs of the same name.
import { callFrontiers, fastestCallMs } from '../core/call-frontier.ts';
import type { Pricing } from '../core/corrections.ts';
import type { GuardBands } from '../core/guard-band.ts';
import type { JobId, JobSpec, WorkflowId } from '../core/job.ts';
import { HIGH, HIGH_DEVIATIONS, type LengthPredictor } from '../core/length-predictor.ts';
import { LEARNT_KEYS_MAX } from '../core/limits.ts';
import { lowerHull, WORKFLOW_NODES_MAX } from '../core/slack-allotment.ts';
import { DISCOVERED_CALLS_MAX, OPEN_NODES_MAX, TENANT_NODES_MAX, type WorkflowNode, type WorkflowSpec, WORKFLOWS_MAX } from '../core/workflow.ts';
import { createWorkflowRun, HURRIED, type PartDue, type PartStatus, type RunPart, type RunVerdict, type WorkflowRun } from '../core/workflow-run.ts';
import { createWorkflowShapes, type SeenCall } from '../core/workflow-shapes.ts';
import type { JobReport } from './events.ts';

export interface Workflows {
  isEmpty(): boolean;
  declare(spec: WorkflowSpec, nowMs: number): WorkflowAnswer;
  /** Nothing more comes of it; one that is not open is ignored. */
  end(tenant: string, workflowId: WorkflowId, nowMs: number): void;
  /** A call has come. `null`: its workflow is not open and its shape cannot be learnt, or it has no such stage; the job is then one like any other. */
  called(spec: JobSpec, nowMs: number): CalledPart | null;
  /** It has ended, or was refused (`null`): then it is expected again. */
  left(jobId: JobId, report: JobReport | null, nowMs: number): void;
  /** Looks over those whose time it is. */
  tick(nowMs: number): void;
  /** Deadlines of calls that have moved since it was last asked. */
  takeMoved(): readonly MovedDeadline[];
  /** Workflows that have ended since it was last asked. */
  takeEnded(): readonly WorkflowReport[];
  status(tenant: string, workflowId: WorkflowId, nowMs: number): WorkflowStatus | null;
  /** What a call must fit to be one of it; `null`: it is not open. */
  find(tenant: string, workflowId: WorkflowId): OpenWorkflow | null;
  openCount(): number;
  openCountOf(tenant: string): number;
  /** Nodes of workflows that had to be solved from the beginning though they were open, since it was made; for benches and tests. */
  nodesRebuilt(): number;
}

export interface OpenWorkflow {
  readonly declared: boolean;
  /** A call of that stage may come. */
  takes(stage: string): boolean;
  /** Calls that it has, in the order of its nodes. */
  stages(): readonly string[];
}

export type WorkflowAnswer =
  | { readonly kind: 'accepted'; readonly status: WorkflowStatus }
  | { readonly kind: 'refused'; readonly reason: 'already-open' | 'too-many-open' | 'unknown-model' }
  /** At the fastest, with nobody else there, it would take so long. */
  | { readonly kind: 'refused'; readonly reason: 'deadline-infeasible'; readonly fastestMs: number };

export interface CalledPart {
  /** `Infinity`: the whole is lost. */
  readonly dueAtMs: number;
  readonly lengthKey: string;
  /** As of `PartDue`. */
  readonly moves: boolean;
}

export interface MovedDeadline {
  readonly jobId: JobId;
  readonly dueAtMs: number;
  readonly moves: boolean;
}

/** What became of a workflow. */
export interface WorkflowReport {
  readonly workflowId: WorkflowId;
  readonly tenant: string;
  readonly sloClass: string;
  readonly name: string | null;
  readonly outcome: 'finished' | 'ended-by-client' | 'abandoned';
  /** All that was expected of it had ended by its deadline; of one whose shape was not known: all that came. `null`: its client ended it before. */
  readonly met: boolean | null;
  readonly deadlineMs: number;
  /** What was left of that when it ended; negative where it was past. */
  readonly deadlineLeftMs: number;
  /** From its beginning to the end of its last call. */
  readonly tookMs: number;
  readonly calls: number;
  readonly outputTokens: number;
  /** Of its calls, as far as it was known when they ended. */
  readonly energyJ: number;
}

export interface WorkflowStatus {
  readonly workflowId: WorkflowId;
  readonly name: string | null;
  readonly verdict: RunVerdict;
  /** From now; negative when it is past. */
  readonly deadlineInMs: number;
  readonly fastestLeftMs: number;
  /** Expected of what is left, as allotted, above idling parked; and of the calls that have ended. */
  readonly expectedJ: number;
  readonly spentJ: number;
  readonly stages: readonly { readonly stage: string; readonly kind: 'call' | 'tool'; readonly state: PartStatus['state']; readonly startInMs: number; readonly dueInMs: number; readonly expectedJ: number }[];
}

export interface WorkflowsOptions {
  readonly lengths: LengthPredictor;
  readonly guards: GuardBands;
  /** Mean prompt of a tenant's calls of a model; `null`: none was seen. */
  readonly promptTokensOf: (key: string) => number | null;
  /** Replicas that serve a model, as they are known; empty: nobody does. */
  readonly replicasOf: (model: string) => readonly Pricing[];
  /** What a call of the model will share its steps with. */
  readonly companyOf: (model: string, nowMs: number) => { readonly company: number; readonly interference: number };
  /** Tokens that a call has yet to read and to write, as far as is known; `null`: it is gone. */
  readonly leftOf: (jobId: JobId) => CallSize | null;
}

/** The answer as expected, and at the quantile `HIGH`. */
export interface CallSize {
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly outputTokensHigh: number;
}

interface Serving {
  readonly replicas: readonly Pricing[];
  readonly company: number;
  readonly interference: number;
}

type Call = Extract<WorkflowNode, { kind: 'call' }>;

interface Open {
  readonly spec: Omit<WorkflowSpec, 'nodes' | 'edges'>;
  readonly key: string;
  readonly beganAtMs: number;
  readonly deadlineAtMs: number;
  readonly run: WorkflowRun;
  /** `unseen`: nothing is known of what follows a call; `learnt`: as earlier runs were. */
  readonly shape: 'declared' | 'learnt' | 'unseen';
  /** Of each stage that is a call. */
  readonly calledAs: Map<string, { readonly model: string; readonly lengthKey: string }>;
  /** Calls under way: their stages, and when they were last said to be due. */
  readonly calls: Map<JobId, CallUnderWay>;
  readonly seen: SeenCall[];
  nodes: number;
  callsEnded: number;
  outputTokens: number;
  spentJ: number;
  lastEndAtMs: number;
  allottedAtMs: number;
  /** As it began; one that was late from the beginning teaches the guard band nothing. */
  feasible: boolean;
}

interface CallUnderWay {
  readonly stage: string;
  readonly beganAtMs: number;
  /** `NaN`: nothing has been said yet. */
  dueAtMs: number;
  moves: boolean;
}

/** How often what has been done of a running call is looked at; between, nothing ends and nothing comes. */
const LOOK_EVERY_MS = 500;
/** Half of all that are told apart. */
const STAGE_KEYS_MAX = LEARNT_KEYS_MAX / 2;
/** Of the path's time kept in reserve, at a guard band of 1: 98 in 100 are within it, were times normal. */
const RESERVE_DEVIATIONS = 2;
/** Looked over in one control period; the others have their turn in the next. */
const LOOKED_MAX = 32;
/**
 * Nodes of workflows that are solved from the beginning in one control period, because calls came again or in another order than was declared: one workflow
 * of the largest, or some dozens of usual ones. The others wait for the next, and their calls are hurried until then.
 */
export const REBUILT_NODES_MAX = WORKFLOW_NODES_MAX;
/** After its deadline, one of which nothing is heard for so long is given up. */
const ABANDONED_AFTER_MS = 60_000;
/** One that was not declared is over when all that was expected of it has ended and nothing came for so long. */
const QUIET_MS = { learnt: 10_000, unseen: 60_000, declared: 0 };
/** What is expected of a prompt of which nothing is known. */
const PROMPT_TOKENS_UNKNOWN = 500;

export function createWorkflows(options: WorkflowsOptions): Workflows {
  const { lengths, guards } = options;
  const open = new Map<string, Open>();
  /** Workflows of calls that are under way. */
  const ofJob = new Map<JobId, Open>();
  const shapes = createWorkflowShapes();
  /** Stages whose answers' lengths are told apart. */
  const stageKeys = new Set<string>();
  let nodesOpen = 0;
  const ofTenant = new Map<string, { workflows: number; nodes: number }>();
  let moved: MovedDeadline[] = [];
  let ended: WorkflowReport[] = [];
  /** Where the next look begins. */
  let turn = 0;
  /** Of this control period, and those that wait for the next, in the order in which they came. */
  let rebuiltNodes = 0;
  let rebuiltBefore = 0;
  const waiting = new Set<Open>();

  /** `key`: what is known of a call's length, by `lengthKeyOf`. */
  function callPart(node: Call, key: string, tenant: string, serving: Serving): RunPart {
    if (node.outputTokens !== undefined && key !== keyOf(node.model, tenant)) lengths.expect(key, node.outputTokens);
    // None of either is no call, and what takes no time could not be seen to take longer.
    const promptTokens = Math.max(1, node.promptTokens ?? options.promptTokensOf(keyOf(node.model, tenant)) ?? PROMPT_TOKENS_UNKNOWN);
    const outputTokens = Math.max(1, node.outputTokens ?? lengths.mean(key));
    const outputTokensHigh = Math.max(outputTokens, lengths.remaining(key, 0, HIGH, Number.POSITIVE_INFINITY));
    // As much of it as anything is allotted by: of many replicas there are many more points, and they stay as long as it is open.
    const frontier = lowerHull(callFrontiers(serving.replicas, { ...serving, promptTokens, outputTokens }));
    return { stage: node.stage, kind: 'call', frontier, spreadMs: spreadOf(serving, { promptTokens, outputTokens, outputTokensHigh }, frontier[0]?.timeMs ?? Number.POSITIVE_INFINITY) };
  }

  /** What serves a model now, and what its calls share their steps with: asked once for all calls of a workflow. */
  function servingNow(nowMs: number): (model: string) => Serving {
    const known = new Map<string, Serving>();
    return (model) => {
      const serving = known.get(model) ?? { replicas: options.replicasOf(model), ...options.companyOf(model, nowMs) };
      known.set(model, serving);
      return serving;
    };
  }

  /**
   * What is known of how long a call's answer gets: of one stage of a tenant's workflows where those have a name, else of its calls that were said to get
   * about as long, else of all of them. Of so many that tenants' own have room, too.
   */
  function lengthKeyOf({ model, stage, outputTokens }: Call, tenant: string, name: string | undefined): string {
    const ofTenant = keyOf(model, tenant);
    if (name === undefined && outputTokens === undefined) return ofTenant;
    const key = `${ofTenant}\n${name === undefined ? `about ${2 ** Math.round(Math.log2(Math.max(1, outputTokens ?? 1)))}` : `${name}\n${stage}`}`;
    if (!stageKeys.has(key)) {
      if (stageKeys.size >= STAGE_KEYS_MAX) return ofTenant;
      stageKeys.add(key);
    }
    return key;
  }

  function begin(spec: WorkflowSpec, shape: Open['shape'], nowMs: number): Open {
    const { nodes, edges, ...rest } = spec;
    const deadlineAtMs = nowMs + spec.deadlineMs;
    const calledAs: Open['calledAs'] = new Map();
    const servingOf = servingNow(nowMs);
    const parts = nodes.map((node): RunPart => {
      if (node.kind === 'tool') return { stage: node.stage, kind: 'tool', frontier: [{ timeMs: node.timeMs, energyJ: 0 }], spreadMs: 0 };
      const lengthKey = lengthKeyOf(node, spec.tenant, spec.name);
      calledAs.set(node.stage, { model: node.model, lengthKey });
      return callPart(node, lengthKey, spec.tenant, servingOf(node.model));
    });
    const run = createWorkflowRun({ parts, edges, beganAtMs: nowMs, deadlineAtMs });
    return { spec: rest, key: openKey(spec.tenant, spec.workflowId), beganAtMs: nowMs, deadlineAtMs, run, shape, calledAs, calls: new Map(), seen: [], nodes: nodes.length, callsEnded: 0, outputTokens: 0, spentJ: 0, lastEndAtMs: nowMs, allottedAtMs: Number.NEGATIVE_INFINITY, feasible: false };
  }

  function keep(workflow: Open): void {
    open.set(workflow.key, workflow);
    count(workflow.spec.tenant, 1, workflow.nodes);
  }

  function count(tenant: string, workflows: number, nodes: number): void {
    nodesOpen += nodes;
    const own = ofTenant.get(tenant) ?? { workflows: 0, nodes: 0 };
    own.workflows += workflows;
    own.nodes += nodes;
    if (own.workflows > 0) ofTenant.set(tenant, own);
    else ofTenant.delete(tenant);
  }

  function hasRoomFor(tenant: string, nodes: number): boolean {
    return open.size < WORKFLOWS_MAX && nodesOpen + nodes <= OPEN_NODES_MAX && (ofTenant.get(tenant)?.nodes ?? 0) + nodes <= TENANT_NODES_MAX;
  }

  /** Everything that can run now, by what is known now. */
  function allot(workflow: Open, nowMs: number): void {
    const { run, calls } = workflow;
    const servingOf = servingNow(nowMs);
    for (const [jobId, { stage }] of calls) {
      const left = options.leftOf(jobId);
      const model = workflow.calledAs.get(stage)?.model;
      if (left === null || model === undefined) continue;
      const serving = servingOf(model);
      const fastestMs = fastestCallMs(serving.replicas, { ...serving, ...left });
      run.progressed(stage, fastestMs, spreadOf(serving, left, fastestMs));
    }
    if (run.isStale()) rebuiltNodes += workflow.nodes;
    run.allot(nowMs, RESERVE_DEVIATIONS * guards.of(workflow.spec.sloClass));
    if (workflow.allottedAtMs === Number.NEGATIVE_INFINITY) workflow.feasible = workflow.shape !== 'unseen' && run.verdict() === 'meets';
    workflow.allottedAtMs = nowMs;
    waiting.delete(workflow);
    tellMoved(workflow, nowMs);
  }

  /** The same, unless it would have to be from the beginning and there has been enough of that in this control period: then it waits for the next. */
  function allotSoon(workflow: Open, nowMs: number): void {
    if (!workflow.run.isStale() || rebuiltNodes === 0 || rebuiltNodes + workflow.nodes <= REBUILT_NODES_MAX) return allot(workflow, nowMs);
    waiting.add(workflow);
    // All others are due as they were.
    tellMoved(workflow, nowMs, (call) => Number.isNaN(call.dueAtMs));
  }

  function tellMoved(workflow: Open, nowMs: number, isAsked: (call: CallUnderWay) => boolean = () => true): void {
    for (const [jobId, call] of workflow.calls) {
      if (!isAsked(call)) continue;
      const { atMs: dueAtMs, moves } = dueOf(workflow, call.stage, nowMs);
      if (moves === call.moves && (dueAtMs === call.dueAtMs || Math.abs(dueAtMs - call.dueAtMs) < MOVED_MS_MIN)) continue;
      call.dueAtMs = dueAtMs;
      call.moves = moves;
      moved.push({ jobId, dueAtMs, moves });
    }
  }

  /** Of one of which nobody knows what follows, every call is hurried, but for what it is uncertain by. */
  function dueOf({ run, shape, deadlineAtMs }: Open, stage: string, nowMs: number): PartDue {
    if (shape !== 'unseen' || run.isStale() || run.verdict() === 'lost') return run.due(stage);
    return { atMs: Math.min(deadlineAtMs, nowMs + HURRIED * run.fastestLeftMs()), moves: false };
  }

  /** The name under which a call is known in its run: with a number where one like it has come already. `null`: there is no such stage. */
  function stageOf(workflow: Open, stage: string): string | null {
    if (workflow.shape === 'declared') return workflow.calledAs.has(stage) ? stage : null;
    for (let turnOf = 1; ; turnOf++) {
      const name = turnOf === 1 ? stage : `${stage}#${turnOf}`;
      const state = workflow.run.stateOf(name);
      if (state === null || state === 'waiting') return name;
    }
  }

  function finish(workflow: Open, outcome: WorkflowReport['outcome'], met: boolean | null, nowMs: number): WorkflowReport {
    open.delete(workflow.key);
    waiting.delete(workflow);
    count(workflow.spec.tenant, -1, -workflow.nodes);
    for (const jobId of workflow.calls.keys()) {
      ofJob.delete(jobId);
      // What still runs of it is due at the end of the whole, if at all.
      moved.push({ jobId, dueAtMs: workflow.deadlineAtMs, moves: false });
    }
    const { workflowId, tenant, sloClass, name = null, deadlineMs } = workflow.spec;
    if (name !== null && outcome !== 'ended-by-client') shapes.observe(shapeKey(tenant, name), workflow.seen.toSorted((a, b) => a.beganAtMs - b.beganAtMs));
    if (met !== null && workflow.feasible) guards.observe(sloClass, met);
    return { workflowId, tenant, sloClass, name, outcome, met, deadlineMs, deadlineLeftMs: workflow.deadlineAtMs - nowMs, tookMs: workflow.lastEndAtMs - workflow.beganAtMs, calls: workflow.callsEnded, outputTokens: workflow.outputTokens, energyJ: workflow.spentJ };
  }

  /** Whether it is over, as far as can be told. */
  function overNow(workflow: Open, nowMs: number): WorkflowReport['outcome'] | null {
    if (workflow.calls.size > 0) return null;
    const quietMs = nowMs - workflow.lastEndAtMs;
    if (workflow.run.isOver(nowMs) && quietMs >= QUIET_MS[workflow.shape]) return 'finished';
    return nowMs - workflow.deadlineAtMs >= ABANDONED_AFTER_MS && quietMs >= ABANDONED_AFTER_MS ? 'abandoned' : null;
  }

  function closeIfOver(workflow: Open, nowMs: number): boolean {
    const outcome = overNow(workflow, nowMs);
    if (outcome === null) return false;
    // Where the shape was not known, that nothing more came is its end.
    const whole = outcome === 'finished' || workflow.shape !== 'declared';
    ended.push(finish(workflow, outcome, whole && workflow.callsEnded > 0 ? workflow.lastEndAtMs <= workflow.deadlineAtMs : false, nowMs));
    return true;
  }

  function discovered(spec: JobSpec, nowMs: number): Open | null {
    const { workflow } = spec;
    if (workflow?.discovered === undefined) return null;
    const { deadlineMs, name } = workflow.discovered;
    const learnt = shapes.shapeOf(shapeKey(spec.tenant, name));
    const nodes = (learnt?.nodes ?? []).filter((node) => node.kind === 'tool' || options.replicasOf(node.model).length > 0);
    // A model that is no longer served leaves the shape, and with it what would tell its order.
    const known = learnt !== null && nodes.length === learnt.nodes.length;
    if (!hasRoomFor(spec.tenant, known ? nodes.length : 1)) return null;
    const opened = begin({ workflowId: workflow.workflowId, tenant: spec.tenant, sloClass: spec.sloClass, name, deadlineMs, nodes: known ? nodes : [], edges: known ? learnt.edges : [] }, known ? 'learnt' : 'unseen', nowMs);
    keep(opened);
    return opened;
  }

  return {
    isEmpty: () => open.size === 0 && ended.length === 0 && moved.length === 0,
    declare(spec, nowMs) {
      if (open.has(openKey(spec.tenant, spec.workflowId))) return { kind: 'refused', reason: 'already-open' };
      if (!hasRoomFor(spec.tenant, spec.nodes.length)) return { kind: 'refused', reason: 'too-many-open' };
      if (spec.nodes.some((node) => node.kind === 'call' && options.replicasOf(node.model).length === 0)) return { kind: 'refused', reason: 'unknown-model' };
      const workflow = begin(spec, 'declared', nowMs);
      allot(workflow, nowMs);
      if (spec.infeasible === 'refuse' && workflow.run.verdict() !== 'meets') return { kind: 'refused', reason: 'deadline-infeasible', fastestMs: workflow.run.fastestLeftMs() };
      keep(workflow);
      return { kind: 'accepted', status: statusOf(workflow, nowMs) };
    },
    end(tenant, workflowId, nowMs) {
      const workflow = open.get(openKey(tenant, workflowId));
      if (workflow === undefined) return;
      const whole = workflow.run.isOver(nowMs) || (workflow.shape !== 'declared' && workflow.calls.size === 0);
      const met = whole ? workflow.lastEndAtMs <= workflow.deadlineAtMs : nowMs > workflow.deadlineAtMs ? false : null;
      ended.push(finish(workflow, whole ? 'finished' : 'ended-by-client', met, nowMs));
    },
    called(spec, nowMs) {
      if (spec.workflow === undefined) return null;
      const workflow = open.get(openKey(spec.tenant, spec.workflow.workflowId)) ?? discovered(spec, nowMs);
      if (workflow === null || workflow.seen.length + workflow.calls.size >= (workflow.shape === 'declared' ? Number.POSITIVE_INFINITY : DISCOVERED_CALLS_MAX)) return null;
      const stage = stageOf(workflow, spec.workflow.stage);
      if (stage === null) return null;
      const { tenant, name } = workflow.spec;
      const node: Call = { kind: 'call', stage, model: spec.model };
      const lengthKey = workflow.calledAs.get(stage)?.lengthKey ?? lengthKeyOf(node, tenant, name);
      if (!workflow.run.has(stage)) {
        if (!hasRoomFor(tenant, 1)) return null;
        // Nobody knew of it: it needs what has ended last.
        const before = workflow.run.parts().filter(({ state }) => state === 'ended').toSorted((a, b) => b.dueAtMs - a.dueAtMs);
        workflow.run.add(callPart(node, lengthKey, tenant, servingNow(nowMs)(node.model)), before.slice(0, 1).map((part) => part.stage));
        workflow.nodes += 1;
        count(tenant, 0, 1);
      }
      workflow.calledAs.set(stage, { model: spec.model, lengthKey });
      workflow.run.began(stage, nowMs);
      ofJob.set(spec.jobId, workflow);
      const call = { stage, beganAtMs: nowMs, dueAtMs: Number.NaN, moves: false };
      workflow.calls.set(spec.jobId, call);
      allotSoon(workflow, nowMs);
      // What has moved of this one is told here.
      moved = moved.filter(({ jobId }) => jobId !== spec.jobId);
      return { dueAtMs: call.dueAtMs, moves: call.moves, lengthKey };
    },
    left(jobId, report, nowMs) {
      const workflow = ofJob.get(jobId);
      const call = workflow?.calls.get(jobId);
      if (workflow === undefined || call === undefined) return;
      ofJob.delete(jobId);
      workflow.calls.delete(jobId);
      if (report !== null) {
        workflow.spentJ += report.energyJ;
        workflow.outputTokens += report.outputTokens;
      }
      const others = [...workflow.calls.values()].some(({ stage }) => stage === call.stage);
      if (report?.outcome !== 'finished') {
        if (!others) workflow.run.failed(call.stage);
      } else {
        workflow.callsEnded += 1;
        workflow.lastEndAtMs = nowMs;
        if (workflow.seen.length < DISCOVERED_CALLS_MAX) workflow.seen.push({ stage: call.stage, model: report.model, promptTokens: report.promptTokens, outputTokens: report.outputTokens, beganAtMs: call.beganAtMs, endedAtMs: nowMs });
        if (!others) workflow.run.ended(call.stage, nowMs);
      }
      if (!closeIfOver(workflow, nowMs)) allotSoon(workflow, nowMs);
    },
    tick(nowMs) {
      rebuiltBefore += rebuiltNodes;
      rebuiltNodes = 0;
      if (open.size === 0) return;
      // Those that go on waiting keep their turn.
      for (const workflow of waiting) {
        if (rebuiltNodes > 0 && rebuiltNodes + workflow.nodes > REBUILT_NODES_MAX) break;
        allot(workflow, nowMs);
      }
      const all = [...open.values()];
      let looked = 0;
      for (let step = 0; step < all.length && looked < LOOKED_MAX; step++) {
        turn = (turn + 1) % all.length;
        const workflow = all[turn] as Open;
        if (nowMs - workflow.allottedAtMs < LOOK_EVERY_MS) continue;
        looked += 1;
        if (!closeIfOver(workflow, nowMs) && workflow.calls.size > 0) allotSoon(workflow, nowMs);
        else workflow.allottedAtMs = nowMs;
      }
    },
    takeMoved() {
      const taken = moved;
      moved = [];
      return taken;
    },
    takeEnded() {
      const taken = ended;
      ended = [];
      return taken;
    },
    status(tenant, workflowId, nowMs) {
      const workflow = open.get(openKey(tenant, workflowId));
      return workflow === undefined ? null : statusOf(workflow, nowMs);
    },
    find(tenant, workflowId) {
      const workflow = open.get(openKey(tenant, workflowId));
      if (workflow === undefined) return null;
      const declared = workflow.shape === 'declared';
      return { declared, takes: (stage) => !declared || workflow.calledAs.has(stage), stages: () => [...workflow.calledAs.keys()] };
    },
    openCount: () => open.size,
    openCountOf: (tenant) => ofTenant.get(tenant)?.workflows ?? 0,
    nodesRebuilt: () => rebuiltBefore + rebuiltNodes,
  };
}

/** Deadlines that move by less are left where they were: telling of them makes a plan anew. */
const MOVED_MS_MIN = 20;

function statusOf({ spec, run, deadlineAtMs, spentJ }: Open, nowMs: number): WorkflowStatus {
  return {
    workflowId: spec.workflowId,
    name: spec.name ?? null,
    verdict: run.verdict(),
    deadlineInMs: deadlineAtMs - nowMs,
    fastestLeftMs: run.fastestLeftMs(),
    expectedJ: run.energyJ(),
    spentJ,
    stages: run.parts().map(({ stage, kind, state, startAtMs, dueAtMs, energyJ }) => ({ stage, kind, state, startInMs: startAtMs - nowMs, dueInMs: dueAtMs - nowMs, expectedJ: energyJ })),
  };
}

/** At the fastest a call takes longer by so much with every standard deviation of its length. */
function spreadOf(serving: Serving, { promptTokens, outputTokensHigh }: CallSize, fastestMs: number): number {
  return (fastestCallMs(serving.replicas, { ...serving, promptTokens, outputTokens: outputTokensHigh }) - fastestMs) / HIGH_DEVIATIONS;
}

function keyOf(model: string, tenant: string): string {
  return `${model}\n${tenant}`;
}

function shapeKey(tenant: string, name: string): string {
  return `${tenant}\n${name}`;
}

function openKey(tenant: string, workflowId: WorkflowId): string {
  return `${tenant}\n${workflowId}`;
}

