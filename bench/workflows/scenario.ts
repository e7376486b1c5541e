// One case: workflows of a shape at a load, with their slack allotted, and with per-call SLOs that share the deadline out.
import { callFrontier } from '../../src/core/call-frontier.ts';
import { nominalWorkMs } from '../../src/core/nominal-work.ts';
import type { PerformanceModel } from '../../src/frontier/performance-model.ts';
import type { Profile } from '../../src/frontier/profile.ts';
import { longestMs } from '../../src/core/workflow-frontier.ts';
import { callSlos } from '../../src/simulator/rivals/deadline-shares.ts';
import { type SimulatedRun, simulate } from '../../src/simulator/simulate.ts';
import type { SimulatedWorkflow } from '../../src/simulator/workflow-clients.ts';
import { drawWorkflows, workflowTemplate, type WorkflowShapeName } from '../../src/workload/synthetic-workflows.ts';

export interface CaseOptions {
  readonly profile: Profile;
  readonly model: PerformanceModel;
  readonly replicas: number;
  /** Workflows of a small shape; of large ones fewer. */
  readonly runs: number;
  /** Deadlines over the longest path at the fastest clock, in turn. */
  readonly slacks: readonly number[];
  readonly truthTime: number;
  readonly seed: number;
}

interface Shape {
  readonly name: string;
  readonly shape: WorkflowShapeName;
  readonly nodes: number;
}

export const SHAPES: readonly Shape[] = [
  { name: 'chain', shape: 'chain', nodes: 0 },
  { name: 'fan-out', shape: 'fan-out', nodes: 0 },
  { name: 'map-reduce', shape: 'map-reduce', nodes: 0 },
  { name: 'series-parallel-40', shape: 'series-parallel', nodes: 40 },
  { name: 'layered-40', shape: 'layered', nodes: 40 },
  { name: 'series-parallel-1000', shape: 'series-parallel', nodes: 1_000 },
  { name: 'layered-1000', shape: 'layered', nodes: 1_000 },
];

/** Of the work that the replicas could do with full batches at the fastest clock. At the highest they are busy nearly all of the time even so. */
export const LOADS = { low: 0.05, middle: 0.15, high: 0.3 } as const;

export interface Played {
  readonly attainment: number;
  readonly energyJ: number;
}

/** At the margin that its deadline was multiplied by before it was shared out: the cheapest that is in time as often, or else the one that is most often. */
export interface Rival extends Played {
  readonly margin: number;
  readonly reaches: boolean;
  /** The deadline itself shared out, no more and no less: what a client would do who does not know the best margin beforehand. */
  readonly plain: Played;
}

export interface Case extends Played {
  readonly name: string;
  readonly shape: string;
  readonly load: string;
  readonly workflows: number;
  /** What the baseline took, which is proportional share. */
  readonly baselineEnergyJ: number;
  readonly baselineAttainment: number;
  readonly proportional: Rival;
  readonly equal: Rival;
  readonly maxClock: Played;
}

/** What is said of calls is right on average: their sizes are log-normal about it. */
const UNCERTAINTY = { prompt: 0.2, output: 0.4, tool: 0.5 };
/** Streams that a call has beside it when deadlines are made and shared out. */
const COMPANY = 8;
const MARGINS = [0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.7];
/** Workflows of more nodes are as many fewer, down to this. */
const RUNS_MIN = 8;

export function playCase({ name, shape, nodes }: Shape, load: keyof typeof LOADS, options: CaseOptions): Case {
  const { profile, model, replicas, truthTime, seed, slacks } = options;
  const template = workflowTemplate(shape, { nodes, seed });
  const timesMs = template.nodes.map((node) => (node.kind === 'tool' ? node.timeMs : Math.min(...callFrontier(model, { ...node, company: COMPANY }).map(({ timeMs }) => timeMs))));
  const longest = longestMs(timesMs, template.edges);
  const workMs = template.nodes.reduce((sum, node) => sum + (node.kind === 'call' ? nominalWorkMs(model, node.promptTokens, node.outputTokens) : 0), 0);
  const ratePerS = (LOADS[load] * replicas * 1_000) / workMs;
  const runs = Math.max(RUNS_MIN, Math.min(options.runs, Math.round((options.runs * 20) / template.nodes.length)));
  const durationS = runs / ratePerS;
  const slackOf = (run: number): number => slacks[run % slacks.length] as number;
  const drawn = drawWorkflows(template, { ratePerS, durationS, deadlineMs: (run) => slackOf(run) * longest, uncertainty: UNCERTAINTY, seed });
  const parts = template.nodes.map(({ kind }, place) => ({ kind, timeMs: timesMs[place] as number }));

  function play(told: (run: number) => SimulatedWorkflow['told'], fastest = false): Played {
    const workflows = drawn.map((workflow, run) => ({ ...workflow, sloClass: 'workflows', told: told(run) }));
    return playedOf(
      simulate({ requests: [], classes: [], workflows, replicas, truth: profile, truthScale: { time: truthTime }, belief: profile, policy: { kind: fastest ? 'max-clock' : 'paceline' }, seed, untilMs: durationS * 1_000 + 3 * Math.max(...slacks) * longest }),
    );
  }

  function rival(share: 'equal' | 'proportional', atLeast: number): Rival {
    const tried = MARGINS.map((margin) => {
      const shared = slacks.map((slack) => ({ callSlos: callSlos(share, parts, template.edges, slack * longest * margin), byStage: true }));
      return { margin, ...play((run) => shared[run % slacks.length] as (typeof shared)[number]) };
    });
    const reaching = tried.filter(({ attainment }) => attainment >= atLeast).toSorted((a, b) => a.energyJ - b.energyJ)[0];
    const nearest = tried.toSorted((a, b) => b.attainment - a.attainment || a.energyJ - b.energyJ)[0] as (typeof tried)[number];
    const plain = tried.find(({ margin }) => margin === 1) as (typeof tried)[number];
    return { ...(reaching ?? nearest), reaches: reaching !== undefined, plain: { attainment: plain.attainment, energyJ: plain.energyJ } };
  }

  const allotted = play(() => 'declared');
  const proportional = rival('proportional', allotted.attainment);
  const equal = rival('equal', allotted.attainment);
  return { name: `${name}, ${load}`, shape: name, load, workflows: drawn.length, ...allotted, baselineEnergyJ: proportional.energyJ, baselineAttainment: proportional.attainment, proportional, equal, maxClock: play(() => ({ callSlos: [] }), true) };
}

function playedOf({ workflows = [], energyJ }: SimulatedRun): Played {
  return { attainment: workflows.filter(({ met }) => met).length / Math.max(1, workflows.length), energyJ };
}
