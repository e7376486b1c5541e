// npm run -s bench:workflows-gateway: workflows through a whole gateway, over real sockets, the real agent and emulated engines, in real time: declared, and as
// calls that share the deadline out beforehand. See bench/results/workflows/gateway.md.
//
//   node bench/workflows/gateway.ts [--profile NAME] [--replicas N] [--seconds S] [--load X] [--slack LIST] [--ways LIST] [--seed N] [--json]
import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { callFrontier } from '../../src/core/call-frontier.ts';
import type { Slo } from '../../src/core/job.ts';
import { nominalWorkMs } from '../../src/core/nominal-work.ts';
import { type Fleet, startFleet } from '../../src/demo/fleet.ts';
import { createPerformanceModel } from '../../src/frontier/performance-model.ts';
import { createEnergyMeter, energyBetween } from '../../src/loadgen/energy-meter.ts';
import { createPromptText } from '../../src/loadgen/prompt-text.ts';
import { requestBody, sloHeaders } from '../../src/loadgen/request-body.ts';
import { loadProfile } from '../../src/profile-file.ts';
import { longestMs } from '../../src/core/workflow-frontier.ts';
import { callSlos } from '../../src/simulator/rivals/deadline-shares.ts';
import { drawWorkflows, workflowTemplate } from '../../src/workload/synthetic-workflows.ts';
import type { WorkloadNode, WorkloadWorkflow } from '../../src/workload/workflow.ts';
import { chosen, numberOf, refusing } from '../energy/options.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const SHAPES = ['chain', 'fan-out'] as const;
const WAYS = ['declared', 'discovered', 'proportional', 'equal'] as const;
type Way = (typeof WAYS)[number];

/** As in the bench on virtual time. */
const UNCERTAINTY = { prompt: 0.2, output: 0.4, tool: 0.5 };
const COMPANY = 8;
/** After the last deadline: what is late by less still counts into the energy. */
const TAIL_MS = 3_000;
const MAX_TOKENS = 4_096;
const TENANT = 'workflows';

interface Run {
  readonly workflow: WorkloadWorkflow;
  readonly shape: string;
  /** By node. */
  readonly slos: Readonly<Record<'proportional' | 'equal', readonly Slo[]>>;
}

interface Outcome {
  readonly shape: string;
  readonly met: boolean;
  /** Calls that were not answered with 200. */
  readonly failures: readonly string[];
}

await refusing(async () => {
  const { values } = parseArgs({
    options: {
      profile: { type: 'string', default: 'llama-3.1-8b.h200' },
      replicas: { type: 'string', default: '2' },
      seconds: { type: 'string', default: '24' },
      load: { type: 'string', default: '0.4' },
      slack: { type: 'string', default: '2,3' },
      ways: { type: 'string', default: 'declared,proportional,equal' },
      seed: { type: 'string', default: '1' },
      json: { type: 'boolean', default: false },
    },
  });
  const path = resolve(ROOT, `config/profiles/${values.profile}.json`);
  const model = createPerformanceModel(loadProfile(path));
  const replicas = numberOf('replicas', values.replicas, { least: 1, most: 16, whole: true });
  const durationS = numberOf('seconds', values.seconds, { least: 5, most: 3_600 });
  const load = numberOf('load', values.load, { least: 0.01, most: 1 });
  const slacks = values.slack.split(',').map((text) => numberOf('slack', text, { least: 1, most: 100 }));
  const seed = numberOf('seed', values.seed, { least: 0, most: 1_000_000, whole: true });
  const ways = chosen('ways', values.ways, WAYS);

  const runs: Run[] = SHAPES.flatMap((shape) => {
    const template = workflowTemplate(shape, { nodes: 0, seed });
    const parts = template.nodes.map((node) => ({ kind: node.kind, timeMs: node.kind === 'tool' ? node.timeMs : Math.min(...callFrontier(model, { ...node, company: COMPANY }).map(({ timeMs }) => timeMs)) }));
    const longest = longestMs(parts.map(({ timeMs }) => timeMs), template.edges);
    const workMs = template.nodes.reduce((sum, node) => sum + (node.kind === 'call' ? nominalWorkMs(model, node.promptTokens, node.outputTokens) : 0), 0);
    const deadlineMs = (run: number): number => (slacks[run % slacks.length] as number) * longest;
    return drawWorkflows(template, { ratePerS: (load * replicas * 1_000) / workMs / SHAPES.length, durationS, deadlineMs, uncertainty: UNCERTAINTY, seed }).map((workflow) => ({
      workflow,
      shape,
      slos: { proportional: callSlos('proportional', parts, template.edges, workflow.deadlineMs), equal: callSlos('equal', parts, template.edges, workflow.deadlineMs) },
    }));
  });
  const windowMs = durationS * 1_000 + Math.max(...runs.map(({ workflow }) => workflow.deadlineMs)) + TAIL_MS;

  // Per-call limits come as a tenant for each stage, so that how long answers get is learnt for each alone, as it is of workflows.
  const tenants = [TENANT, ...new Set(runs.flatMap(({ workflow, shape }) => workflow.nodes.map(({ stage }) => stageTenant(shape, stage))))];
  const troubles: string[] = [];
  const fleet = await startFleet({
    profile: path,
    replicas,
    port: 0,
    config: { tenants: tenants.map((name) => ({ name, apiKeySha256: [createHash('sha256').update(keyOf(name)).digest('hex')] })) },
    onTrouble: (message) => troubles.push(message),
  });
  try {
    if (!values.json) process.stdout.write(`${values.profile}, ${replicas} emulated replicas, agent: ${fleet.agent}; ${runs.length} workflows (${SHAPES.join(', ')}) in ${durationS} s, deadlines ${slacks.join(', ')} x the longest path at the fastest clock; energy by the devices' counters over the same ${(windowMs / 1_000).toFixed(0)} s each.\n\n${'way'.padEnd(14)}${SHAPES.map((shape) => shape.padStart(12)).join('')}${'in time'.padStart(12)}${'energy J'.padStart(12)}${'failed calls'.padStart(14)}\n`);
    const played = [];
    for (const [index, way] of ways.entries()) {
      const { outcomes, energyJ } = await play(fleet, way, runs, windowMs, seed * WAYS.length + index);
      const attainment = shareMet(outcomes);
      const byShape = Object.fromEntries(SHAPES.map((shape) => [shape, shareMet(outcomes.filter((outcome) => outcome.shape === shape))]));
      const failures = outcomes.flatMap((outcome) => outcome.failures);
      played.push({ name: way, workflows: outcomes.length, attainment, byShape, energyJ, failures: failures.length });
      if (failures.length > 0) process.stderr.write(`${way}: ${failures.length} calls failed, the first: ${failures[0]}\n`);
      if (!values.json) process.stdout.write(`${way.padEnd(14)}${SHAPES.map((shape) => percent(byShape[shape] as number).padStart(12)).join('')}${percent(attainment).padStart(12)}${energyJ.toFixed(0).padStart(12)}${String(failures.length).padStart(14)}\n`);
    }
    const [first, ...rivals] = played as [(typeof played)[number], ...(typeof played)[number][]];
    const cases = rivals.map((rival) => ({ name: `${first.name} against ${rival.name}`, attainment: first.attainment, energyJ: first.energyJ, baselineAttainment: rival.attainment, baselineEnergyJ: rival.energyJ, ratio: first.energyJ / rival.energyJ }));
    if (values.json) process.stdout.write(`${JSON.stringify({ profile: values.profile, replicas, durationS, load, slacks, seed, agent: fleet.agent, windowMs, ways: played, cases })}\n`);
    else for (const { name, ratio } of cases) process.stdout.write(`${name}: ${ratio.toFixed(3)} x the energy\n`);
  } finally {
    const lowered = await fleet.close();
    if (lowered.length > 0) troubles.push(`not at default clocks: ${lowered.join(', ')}`);
  }
  if (troubles.length > 0) throw new Error(troubles.join('\n'));
});

/** A fresh gateway, so that none has what another has learnt. */
async function play(fleet: Fleet, way: Way, runs: readonly Run[], windowMs: number, salt: number): Promise<{ readonly outcomes: readonly Outcome[]; readonly energyJ: number }> {
  const { url } = await fleet.gateway('paceline');
  const meter = createEnergyMeter({ sockets: [fleet.agentSocket], devices: [], nowMs: () => performance.now() });
  try {
    // What a prefix cache has of one way is no other's: the words are others.
    const prompts = createPromptText(salt);
    const before = await meter.read();
    const beganAtMs = performance.now();
    const playing = runs.map(async (run, place) => {
      await delay(run.workflow.atMs);
      return follow({ url, model: fleet.model, way, run, id: `${way}-${place}`, prompt: (tokens, node) => prompts.of({ atMs: 0, promptTokens: tokens, outputTokens: 1 }, place * 1_000 + node) });
    });
    const outcomes = await Promise.all(playing);
    await delay(Math.max(0, beganAtMs + windowMs - performance.now()));
    const used = energyBetween(before, await meter.read());
    if (used.kind === 'unknown') throw new Error(`energy is not known: ${used.why}`);
    return { outcomes, energyJ: used.energyJ };
  } finally {
    await meter.close();
  }
}

interface Follow {
  readonly url: string;
  readonly model: string;
  readonly way: Way;
  readonly run: Run;
  readonly id: string;
  readonly prompt: (tokens: number, node: number) => string;
}

/** As its client would: each part when all that it needs has ended. */
async function follow({ url, model, way, run, id, prompt }: Follow): Promise<Outcome> {
  const { workflow, shape, slos } = run;
  const { nodes, edges, deadlineMs, name = shape } = workflow;
  const beganAtMs = performance.now();
  const failures: string[] = [];
  if (way === 'declared') {
    const body = { id, name, deadlineMs, nodes: nodes.map((node) => declaredNode(node, model)), edges: edges.map((edge) => edge.map((place) => (nodes[place] as WorkloadNode).stage)) };
    const response = await fetch(`${url}/v1/workflows`, { method: 'POST', headers: headersOf(TENANT), body: JSON.stringify(body) });
    if (response.status !== 201) failures.push(`declared: ${response.status} ${await response.text()}`);
    else await response.arrayBuffer();
  }
  const ends: Promise<void>[] = [];
  const endOf = (place: number): Promise<void> => (ends[place] ??= begin(place));
  async function begin(place: number): Promise<void> {
    await Promise.all(edges.filter(([, after]) => after === place).map(([before]) => endOf(before)));
    const node = nodes[place] as WorkloadNode;
    if (node.kind === 'tool') return delay(node.timeMs);
    const headers =
      way === 'declared' || way === 'discovered'
        ? { ...headersOf(TENANT), 'x-paceline-workflow-id': id, 'x-paceline-workflow-stage': node.stage, ...(way === 'declared' ? {} : { 'x-paceline-workflow-deadline-ms': String(Math.round(deadlineMs)), 'x-paceline-workflow-name': name }) }
        : { ...headersOf(stageTenant(shape, node.stage)), ...sloHeaders(slos[way][place] ?? {}) };
    const response = await fetch(`${url}/v1/chat/completions`, { method: 'POST', headers, body: requestBody({ endpoint: 'chat', lengths: 'hidden', model, maxTokens: MAX_TOKENS }, prompt(node.promptTokens, place), node.outputTokens) });
    const text = await response.text();
    if (response.status !== 200) failures.push(`${node.stage}: ${response.status} ${text.slice(0, 300)}`);
  }
  await Promise.all(nodes.map((_, place) => endOf(place)));
  return { shape, met: failures.length === 0 && performance.now() - beganAtMs <= deadlineMs, failures };
}

function declaredNode(node: WorkloadNode, model: string): object {
  return node.kind === 'tool' ? { stage: node.stage, toolMs: node.expectedMs } : { stage: node.stage, model, ...node.expected };
}

function stageTenant(shape: string, stage: string): string {
  return `${shape}.${stage}`;
}

function keyOf(tenant: string): string {
  return `sk-${tenant}`;
}

function headersOf(tenant: string): Record<string, string> {
  return { 'content-type': 'application/json', authorization: `Bearer ${keyOf(tenant)}` };
}

function shareMet(outcomes: readonly Outcome[]): number {
  return outcomes.filter(({ met }) => met).length / Math.max(1, outcomes.length);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
