// The A/B of `paceline bench`: `--compare` with arms, and `--report-from`. What is measured and said is `compare/`.
import { readFile, rename, stat, writeFile } from 'node:fs/promises';
import { AgentError } from '../agent/connection.ts';
import { analyse } from '../compare/analysis.ts';
import { type Arm, ArmError, checkArms, parseArm } from '../compare/arm-target.ts';
import { ComparisonFileError, type Comparison, readComparison, TURNS_MAX } from '../compare/comparison-file.ts';
import { MeterError, parseMeter } from '../compare/meter.ts';
import { comparisonPage } from '../compare/report-page.ts';
import { comparisonText } from '../compare/report-text.ts';
import { type ComparisonOptions, runComparison } from '../compare/run-comparison.ts';
import { LoadError } from '../loadgen/load-target.ts';
import { createProgressPrinter } from '../loadgen/progress.ts';
import { ROUNDS_MIN } from '../statistics/intervals.ts';
import { UsageError } from './command.ts';

export const COMPARISON_OPTIONS = {
  compare: { type: 'texts', value: 'ARM', help: 'an arm of an A/B: [NAME=]URL of any OpenAI endpoint, or [NAME=]FILE.yaml[#POLICY], a gateway that is started for its turns; the first is what the others are compared to. With results of --out: prints those side by side' },
  rounds: { type: 'number', value: 'N', help: 'A/B: in each every arm has a turn under the same requests', default: 6, min: 1, max: 1000, integer: true },
  'warm-up': { type: 'number', value: 'S', help: 'A/B: load before each turn that is discarded', default: 10, min: 0, max: 3600 },
  rest: { type: 'number', value: 'S', help: 'A/B: pause before each turn, for queues and clocks to settle', default: 5, min: 0, max: 3600 },
  tail: { type: 'number', value: 'S', help: 'A/B: for the last answers of a turn; part of the window over which energy is measured', default: 15, min: 0, max: 3600 },
  meter: { type: 'texts', value: 'METER', help: 'A/B: [ARM=]agent:SOCKET, [ARM=]zeusd:SOCKET or [ARM=]dcgm:URL, with #DEVICE,… for some devices only; without an arm it counts for all' },
  report: { type: 'text', value: 'FILE', help: 'A/B: write the report as a page' },
  'report-from': { type: 'text', value: 'FILE', help: 'send nothing: report an A/B that --out has written, the same to the byte' },
} as const;

/** `null`: they are files of earlier results. Throws `UsageError`. */
export function armsOf(texts: readonly string[]): readonly Arm[] | null {
  return usage(() => {
    const arms = texts.map(parseArm);
    if (arms.every((arm) => arm === null)) return null;
    const stray = texts.find((_, index) => arms[index] === null);
    if (stray !== undefined) throw new ArmError(`--compare: got '${stray}' beside arms, want [NAME=]http://HOST:PORT or [NAME=]FILE.yaml[#POLICY]; results of earlier runs are compared among themselves only`);
    const named = arms.flatMap((arm) => arm ?? []);
    checkArms(named);
    return named;
  });
}

/** Throws `UsageError`. `--agent-socket` and `--devices` say the same as before. */
export function metersOf(options: { readonly meter: readonly string[]; readonly agentSockets: readonly string[]; readonly devices: readonly string[] }, arms: readonly Arm[]): ComparisonOptions['meters'] {
  return usage(() => {
    const names = arms.map(({ name }) => name);
    const sockets = options.agentSockets.map((socket) => `agent:${socket}${options.devices.length === 0 ? '' : `#${options.devices.join(',')}`}`);
    return [...options.meter, ...sockets].map((text) => parseMeter(text, names));
  });
}

/** Throws `UsageError`. */
export function checkRounds(rounds: number, arms: number): void {
  if (rounds < ROUNDS_MIN) throw new UsageError(`--rounds: got ${rounds}, want at least ${ROUNDS_MIN}: of fewer there is no interval, and no verdict`);
  if (rounds * arms > TURNS_MAX) throw new UsageError(`--rounds: got ${rounds} of ${arms} arms, want at most ${TURNS_MAX} turns in all`);
}

interface Outputs {
  readonly json: boolean;
  readonly out: string | undefined;
  readonly report: string | undefined;
}

/** Ctrl-C ends it with a report of the rounds that are whole; a second one ends the process as it always does. Resolves with the exit code. */
export async function playComparison(options: ComparisonOptions, outputs: Outputs): Promise<number> {
  const interrupt = new AbortController();
  const onInterrupt = (): void => interrupt.abort();
  process.once('SIGINT', onInterrupt).once('SIGTERM', onInterrupt);
  const progress = createProgressPrinter(process.stderr);
  let comparison: Comparison;
  try {
    comparison = await runComparison({
      ...options,
      signal: interrupt.signal,
      onProgress: progress.show,
      onWarning: progress.warn,
      onTurn: ({ round, arm }, { done, total }) => progress.warn(`round ${round + 1} of ${options.rounds.length}: ${options.arms[arm]?.name} (turn ${done + 1} of ${total})`),
      // What hours have measured is on disk before the next turn begins.
      onPartial: async (partial) => {
        if (outputs.out !== undefined) await writeWhole(outputs.out, fileText(partial)).catch((error: unknown) => progress.warn(`--out ${outputs.out}: ${messageOf(error)}`));
      },
    });
  } catch (error) {
    if (!(error instanceof ArmError || error instanceof LoadError || error instanceof AgentError)) throw error;
    progress.warn(error.message);
    return 1;
  } finally {
    progress.end();
    process.off('SIGINT', onInterrupt).off('SIGTERM', onInterrupt);
  }
  const written = await publish(comparison, outputs);
  if (comparison.end.kind === 'failed') progress.warn(`ended early: ${comparison.end.why}`);
  if (interrupt.signal.aborted) return 130;
  return written && comparison.end.kind === 'complete' ? 0 : 1;
}

/** Throws `UsageError` for a file that is no comparison. Resolves with the exit code. */
export async function reportFrom(file: string, outputs: Outputs): Promise<number> {
  let comparison: Comparison;
  try {
    const { size } = await stat(file);
    if (size > FILE_BYTES_MAX) throw new ComparisonFileError(`${file}: ${size} bytes, more than ${FILE_BYTES_MAX}`);
    comparison = readComparison(await readFile(file, 'utf8'), file);
  } catch (error) {
    throw new UsageError(`--report-from ${error instanceof ComparisonFileError ? error.message : `${file}: ${messageOf(error)}`}`, { cause: error });
  }
  return (await publish(comparison, outputs)) ? 0 : 1;
}

/** A thousand turns with all their latencies. */
const FILE_BYTES_MAX = 1024 * 1024 * 1024;

/** Resolves with whether all of it could be written. */
async function publish(comparison: Comparison, { json, out, report }: Outputs): Promise<boolean> {
  const text = fileText(comparison);
  const analysis = analyse(comparison);
  process.stdout.write(json ? text : `${comparisonText(comparison, analysis)}\n`);
  const files = [...(out === undefined ? [] : [['--out', out, text] as const]), ...(report === undefined ? [] : [['--report', report, comparisonPage(comparison, analysis)] as const])];
  let good = true;
  for (const [option, file, content] of files) {
    await writeWhole(file, content).catch((error: unknown) => {
      process.stderr.write(`paceline: ${option} ${file}: ${messageOf(error)}\n`);
      good = false;
    });
  }
  return good;
}

function fileText(comparison: Comparison): string {
  return `${JSON.stringify(comparison)}\n`;
}

/** In the place of the old one at once, so that being killed meanwhile costs at most the last turn. */
async function writeWhole(file: string, text: string): Promise<void> {
  await writeFile(`${file}.partial`, text);
  await rename(`${file}.partial`, file);
}

function usage<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw error instanceof ArmError || error instanceof MeterError ? new UsageError(error.message, { cause: error }) : error;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
