// `paceline simulate --workflow`: runs of one workflow come to a fleet; how many are in time and what it takes, with the slack of the whole allotted, with
// the deadline shared out among the calls beforehand, and at the maximum clock.
import { callFrontier } from '../core/call-frontier.ts';
import { createPerformanceModel } from '../frontier/performance-model.ts';
import { tableOf } from '../simulator/format-table.ts';
import { longestMs } from '../core/workflow-frontier.ts';
import { callSlos } from '../simulator/rivals/deadline-shares.ts';
import type { SimulatedRun } from '../simulator/simulate.ts';
import { simulatedRun } from './simulated-run.ts';
import type { SimulatedWorkflow } from '../simulator/workflow-clients.ts';
import { drawWorkflows, type WorkflowTemplate } from '../workload/synthetic-workflows.ts';
import { UsageError } from './command.ts';
import type { FleetChoice } from './fleet-options.ts';
import { loadWorkflow, sizedNodes } from './workflow-file.ts';

export interface WorkflowQuestion {
  readonly file: string;
  /** `PROMPT:OUTPUT` of calls that say none. */
  readonly like: string | undefined;
  readonly ratePerS: number;
  readonly durationS: number;
  /** Of what calls and tools take, about what the file says; log-normal. */
  readonly spread: number;
  readonly deadlineScale: number;
  readonly seed: number;
  readonly attainmentTarget: number;
}

export interface WorkflowRunReport {
  readonly policy: string;
  readonly workflows: number;
  /** Share of them that ended by their deadline. */
  readonly attainment: number;
  readonly energyJ: number;
  readonly meanPowerW: number;
  /** Of the deadline, at the middle one and the one in a hundred that takes longest; `null`: it never ended. */
  readonly tookShareP50: number | null;
  readonly tookShareP99: number | null;
  readonly clockMhzMean: number;
}

/** Streams beside a call, when its deadline is shared out. */
const COMPANY = 8;
const RUNS_MAX = 100_000;

/** Throws `UsageError` for a file that makes no sense, a workflow without a deadline, or more runs than can be played. */
export function playWorkflows(question: WorkflowQuestion, fleet: FleetChoice): { readonly heading: string; readonly runs: readonly WorkflowRunReport[] } {
  const { file, like, ratePerS, durationS, spread, deadlineScale, seed, attainmentTarget } = question;
  const declared = loadWorkflow(file);
  if (declared.deadlineMs === undefined) throw new UsageError(`${file}: has no deadlineMs; by when is all of it due?`);
  if (ratePerS * durationS > RUNS_MAX) throw new UsageError(`--workflow-rate: ${ratePerS} per second for ${durationS} s are more than ${RUNS_MAX} workflows; take a lower rate or a shorter --duration`);
  const deadlineMs = declared.deadlineMs * deadlineScale;
  const { name = 'workflow', edges } = declared;
  const nodes = sizedNodes(declared.nodes, like);
  const template: WorkflowTemplate = { name, nodes: nodes.map((node) => (node.kind === 'tool' ? node : { kind: 'call', stage: node.stage, promptTokens: Math.max(1, node.promptTokens), outputTokens: Math.max(1, node.outputTokens) })), edges };
  const drawn = drawWorkflows(template, { ratePerS, durationS, deadlineMs: () => deadlineMs, uncertainty: { prompt: spread / 2, output: spread, tool: spread }, seed });
  if (drawn.length === 0) throw new UsageError(`--workflow-rate: no workflow comes within ${durationS} s at ${ratePerS} per second; take a higher rate or a longer --duration`);
  const [{ truth, belief }] = fleet.members;
  const model = createPerformanceModel(belief);
  const parts = template.nodes.map((node) => ({ kind: node.kind, timeMs: node.kind === 'tool' ? node.timeMs : Math.min(...callFrontier(model, { ...node, company: COMPANY }).map(({ timeMs }) => timeMs)) }));
  const fastestMs = longestMs(parts.map(({ timeMs }) => timeMs), edges);

  const play = (policy: string, kind: 'paceline' | 'max-clock', told: SimulatedWorkflow['told']): WorkflowRunReport =>
    reportOf(
      policy,
      simulatedRun({
        requests: [],
        classes: [],
        workflows: drawn.map((run) => ({ ...run, sloClass: name, told })),
        replicas: fleet.members.length,
        truth,
        truthScale: fleet.truthScale,
        machines: fleet.machines,
        belief,
        fleet: fleet.members,
        policy: { kind },
        seed,
        attainmentTarget,
        untilMs: durationS * 1_000 + 2 * deadlineMs,
      }),
      deadlineMs,
    );
  const shares = { callSlos: callSlos('proportional', parts, edges, deadlineMs), byStage: true };
  return {
    heading: `${name}, ${drawn.length} runs of ${nodes.length} stages, due after ${(deadlineMs / 1000).toFixed(1)} s (at the fastest, ${COMPANY} streams on a replica, it takes ${(fastestMs / 1000).toFixed(1)} s), ${fleet.name}, seed ${seed}`,
    runs: [play('max-clock', 'max-clock', { callSlos: [] }), play('paceline, an SLO for each call', 'paceline', shares), play('paceline, the whole', 'paceline', 'declared')],
  };
}

function reportOf(policy: string, { workflows = [], energyJ, durationMs, clockMhzMean }: SimulatedRun, deadlineMs: number): WorkflowRunReport {
  const tookMs = workflows.map(({ tookMs: each }) => each ?? Number.POSITIVE_INFINITY).toSorted((a, b) => a - b);
  const at = (quantile: number): number | null => {
    const ms = tookMs[Math.min(tookMs.length - 1, Math.floor(quantile * tookMs.length))] ?? Number.POSITIVE_INFINITY;
    return Number.isFinite(ms) ? ms / deadlineMs : null;
  };
  return { policy, workflows: workflows.length, attainment: workflows.filter(({ met }) => met).length / Math.max(1, workflows.length), energyJ, meanPowerW: (1_000 * energyJ) / durationMs, tookShareP50: at(0.5), tookShareP99: at(0.99), clockMhzMean };
}

export function formatWorkflowRuns(runs: readonly WorkflowRunReport[]): string {
  const first = runs[0]?.energyJ ?? 0;
  const share = (value: number | null): string => (value === null ? 'never' : value.toFixed(2));
  return tableOf<WorkflowRunReport>(
    [
      ['policy', ({ policy }) => policy],
      ['in time', ({ attainment }) => `${(100 * attainment).toFixed(1)} %`],
      ['energy', ({ energyJ }) => `${(energyJ / 1000).toFixed(1)} kJ`],
      ['vs first', ({ energyJ }) => (first > 0 ? (energyJ / first).toFixed(3) : '-')],
      ['power', ({ meanPowerW }) => `${meanPowerW.toFixed(0)} W`],
      ['of the deadline p50/p99', ({ tookShareP50, tookShareP99 }) => `${share(tookShareP50)} / ${share(tookShareP99)}`],
      ['clock', ({ clockMhzMean }) => `${clockMhzMean.toFixed(0)} MHz`],
    ],
    runs,
  );
}
