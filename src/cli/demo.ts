// `paceline demo`: the main job on one machine without a GPU. The same load at maximum clock and under Paceline,
// through real HTTP and the real agent, then the gateway stays up to be tried.
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Fleet } from '../demo/fleet.ts';
import { startFleet } from '../demo/fleet.ts';
import type { BenchResult } from '../loadgen/bench-result.ts';
import { formatComparison } from '../loadgen/format-result.ts';
import { createProgressPrinter } from '../loadgen/progress.ts';
import { runLoad } from '../loadgen/run-load.ts';
import { makeSynthetic } from '../workload/synthetic.ts';
import { defineCommand } from './command.ts';

const PROFILE = resolve(import.meta.dirname, '../../config/profiles/llama-3.1-70b.h100-tp4.json');
const SLO = { name: 'chat', share: 1, slo: { ttftMs: 1500, tpotMs: 50 } };
/** Answers still running when the last request is sent end within this; both runs are metered over the same window. */
const WINDOW_TAIL_S = 15;
const AGENT_TITLES = {
  native: 'the native agent',
  'stand-in': 'an IN-PROCESS STAND-IN for the agent (there is no agent binary; `make agent` builds it)',
};

export const command = defineCommand({
  name: 'demo',
  summary: 'The same load at maximum clock and under Paceline, on two emulated replicas; then a gateway to try.',
  options: {
    exit: { type: 'flag', help: 'end after the comparison' },
    out: { type: 'text', value: 'FILE', help: 'where the comparison is written', default: 'demo-result.json' },
    port: { type: 'number', value: 'PORT', help: 'of the gateway', default: 8080, min: 0, max: 65_535, integer: true },
    replicas: { type: 'number', value: 'N', help: 'emulated replicas of Llama 70B, four H100 each', default: 2, min: 1, max: 16, integer: true },
    rate: { type: 'number', value: 'R', help: 'requests per second', default: 4, min: 0.1, max: 100 },
    duration: { type: 'number', value: 'S', help: 'of each of the two runs', default: 45, min: 5, max: 3600 },
    seed: { type: 'number', value: 'N', help: 'of the load', default: 1, min: 0, integer: true },
  },
  run: async (options) => {
    const interrupt = new AbortController();
    let trouble: string | null = null;
    const onSignal = (): void => interrupt.abort();
    process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
    const fleet = await startFleet({
      profile: PROFILE,
      replicas: options.replicas,
      port: options.port,
      onTrouble: (message) => {
        trouble ??= message;
        interrupt.abort();
      },
    });
    try {
      await compare(fleet, options, interrupt.signal);
    } catch (error) {
      if (!interrupt.signal.aborted) trouble ??= error instanceof Error ? error.message : String(error);
    }
    const lowered = await fleet.close();
    if (lowered.length > 0) trouble ??= `not at default clocks: ${lowered.join(', ')}`;
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
    if (trouble === null) return 0;
    process.stderr.write(`paceline demo: ${String(trouble)}\n`);
    // The gateway's own way out is an option of `serve`.
    if (/EADDRINUSE/.test(String(trouble))) process.stderr.write("paceline demo: choose another port with --port PORT (make demo DEMO_ARGS='--port PORT')\n");
    return 1;
  },
});

interface DemoOptions {
  readonly exit: boolean;
  readonly out: string;
  readonly replicas: number;
  readonly rate: number;
  readonly duration: number;
  readonly seed: number;
}

/** Resolves when there is nothing more to show: after the comparison, or when the signal comes. */
async function compare(fleet: Fleet, options: DemoOptions, signal: AbortSignal): Promise<void> {
  say(`${options.replicas} emulated replicas (Llama 70B on 4 x H100 each, made of public measurements) and ${AGENT_TITLES[fleet.agent]}.`);
  say(`Load: ${options.rate} requests/s for ${options.duration} s, Poisson, seed ${options.seed}; each wants its first token in ${SLO.slo.ttftMs} ms, then one per ${SLO.slo.tpotMs} ms.\n`);
  const maxClock = await play(fleet, 'max-clock', options, signal);
  if (signal.aborted) return;
  const paceline = await play(fleet, 'paceline', options, signal);
  if (signal.aborted) return;
  say(`\n${formatComparison([{ label: 'maximum clock', result: maxClock.result }, { label: 'paceline', result: paceline.result }])}\n`);
  say(`maximum clock: a plain gateway, fewest requests first, all devices at default clocks.\nEnergy: of the ${fleet.devices} emulated devices, idle included, over the same ${options.duration + WINDOW_TAIL_S} s.`);
  await writeFile(options.out, `${JSON.stringify({ maxClock: maxClock.result, paceline: paceline.result, agent: fleet.agent }, null, 2)}\n`);
  say(`Written to ${options.out}.`);
  if (options.exit) return;
  say(`\nThe gateway stays up at ${paceline.url}; what it does and why, in a browser: ${paceline.adminUrl}/\n(the same as JSON: ${paceline.adminUrl}/paceline/status)\nTry it, with a deadline of your own:\n\n${curlLine(paceline.url, fleet.model)}\n\nCtrl-C ends everything.`);
  // The sockets of the children keep the process alive meanwhile.
  if (!signal.aborted) await once(signal, 'abort');
}

async function play(fleet: Fleet, policy: string, options: DemoOptions, signal: AbortSignal): Promise<{ readonly result: BenchResult; readonly url: string; readonly adminUrl: string }> {
  const workload = makeSynthetic({
    arrivals: { kind: 'poisson', ratePerS: options.rate },
    durationS: options.duration,
    seed: options.seed,
    promptTokens: { kind: 'lognormal', meanTokens: 900, cv: 0.8 },
    outputTokens: { kind: 'lognormal', meanTokens: 120, cv: 0.7 },
  });
  const urls = await fleet.gateway(policy);
  say(policy === 'paceline' ? 'Now under Paceline …' : 'First at maximum clock …');
  const progress = createProgressPrinter(process.stderr);
  try {
    const load = { url: urls.url, workload, classes: [SLO], seed: options.seed, agentSockets: [fleet.agentSocket], windowS: options.duration + WINDOW_TAIL_S };
    const result = await runLoad({ ...load, signal, onProgress: progress.show, onWarning: progress.warn, command: `paceline demo (${policy})` });
    return { result, ...urls };
  } finally {
    progress.end();
  }
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function curlLine(url: string, model: string): string {
  const body = JSON.stringify({ model, stream: true, max_tokens: 40, messages: [{ role: 'user', content: 'Hello!' }] });
  return `  curl -N -i ${url}/v1/chat/completions -H 'content-type: application/json' -H 'x-slo-ttft-ms: 800' -H 'x-slo-tpot-ms: 40' -d '${body}'`;
}
