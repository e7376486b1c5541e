// One measurement: the steady state is set up, let settle, and watched for as long as an energy counter that ticks every 100 ms needs.
import { setTimeout as delay } from 'node:timers/promises';
import type { EndpointUnderTest } from './endpoint.ts';
import { EndpointError } from './endpoint.ts';
import type { Measurement, Work } from './measurement.ts';
import type { NodeMeter, NodeSample } from './node-meter.ts';

export interface Bench {
  readonly endpoint: EndpointUnderTest;
  /** `null`: nobody tells energy, clocks and throttling. */
  readonly meter: NodeMeter | null;
  /** Of streams that are measured: they are let go as soon as enough was seen. */
  readonly outputTokensMax: number;
  readonly now: () => number;
}

/** Ten ticks of a counter: what the ends may be off by is a percent of it. */
const WINDOW_MS = 1_000;
const PROMPTS_MIN = 4;
const STEPS_MIN = 16;
/** Of prompts and steps at the beginning, which are not counted: caches, clocks and batches come to rest. */
const WARM_UP = 2;
/** A counter's last tick is carried forward at the power of now, so this must have been the power for longer than a tick. */
const SETTLES_MS = 200;
const SAMPLE_EVERY_MS = 200;
/** One prompt is read while the next one waits, so that the engine never waits for us, and reads one at a time. */
const PROMPTS_AT_ONCE = 2;
const IDLE_WITHIN_MS = 30_000;
/** Tokens that a prompt may have in common with one before it though no word was meant to. */
const ALIKE_TOKENS = 4;

/** How far the two halves of the window are apart, relative to the whole: a steady state has none. */
export interface Taken {
  readonly measurement: Measurement;
  readonly unsteadiness: number;
}

/** `idlePowerW`: at this clock, for what of a window was not busy. `lastTimeMs`: of the measurement before this one. Throws `EndpointError`, `AgentError`. */
export async function takeMeasurement(work: Work, clockMhz: number | null, { idlePowerW, lastTimeMs }: { readonly idlePowerW: number | null; readonly lastTimeMs: number }, bench: Bench): Promise<Taken> {
  await untilNobodyRuns(bench.endpoint);
  switch (work.kind) {
    case 'idle':
      return measureIdle(clockMhz, lastTimeMs, bench);
    case 'prefill':
      return measurePrefill(work, clockMhz, idlePowerW, bench);
    case 'decode':
      return measureDecode(work, clockMhz, bench);
  }
}

/** What others send there would be measured as if it were ours. */
async function untilNobodyRuns(endpoint: EndpointUnderTest): Promise<void> {
  for (let waitedMs = 0; ; waitedMs += 100) {
    const load = await endpoint.load();
    if (load === null || load.running + load.waiting === 0) return;
    if (waitedMs >= IDLE_WITHIN_MS) throw new EndpointError(`the server runs ${load.running} requests that are not ours: drain the replica, and let nobody else use it`);
    await delay(100);
  }
}

async function measureIdle(clockMhz: number | null, lastTimeMs: number, { meter, now }: Bench): Promise<Taken> {
  // What was let go just before may still be in an iteration that cannot be stopped.
  await delay(SETTLES_MS + 1.2 * lastTimeMs);
  const watch = await openWatch(meter, now);
  await delay(WINDOW_MS);
  const { powerW, windowMs, ...seen } = await watch.end();
  return { measurement: { clockMhz, work: { kind: 'idle' }, timeMs: null, powerW, tokens: 0, windowMs, count: 0, ...seen }, unsteadiness: 0 };
}

/** Time is the median distance of two answers, which neither the way over the network nor a hiccup of this machine is in. */
async function measurePrefill(work: Extract<Work, { kind: 'prefill' }>, clockMhz: number | null, idlePowerW: number | null, { endpoint, meter, now }: Bench): Promise<Taken> {
  const stop = new AbortController();
  const endedAtMs: number[] = [];
  let answers = 0;
  let tokens = 0;
  let cached = 0;
  let watch: Promise<Watch> | null = null;
  let seen: Promise<Seen> | undefined;
  let startedAtMs = Number.POSITIVE_INFINITY;
  const beganAtMs = now();
  const client = async (): Promise<void> => {
    while (!stop.signal.aborted) {
      const answer = await endpoint.ask({ promptTokens: work.tokens, outputTokens: 1, signal: stop.signal });
      endedAtMs.push(answer.firstTokenAtMs);
      answers += 1;
      tokens += answer.promptTokens;
      cached += answer.cachedTokens;
      if (startedAtMs === Number.POSITIVE_INFINITY && endedAtMs.length >= WARM_UP && now() - beganAtMs >= SETTLES_MS) {
        startedAtMs = now();
        endedAtMs.length = 0;
        // Beside the prompts, whose rhythm it must not disturb.
        watch = openWatch(meter, now);
      } else if (watch !== null && seen === undefined && endedAtMs.length > PROMPTS_MIN && now() - startedAtMs >= WINDOW_MS) {
        // While the others keep the engine busy: a window that ends with the work has some idling in it.
        seen = watch.then((open) => open.end());
        await seen;
        return stop.abort();
      }
    }
  };
  const clients = Array.from({ length: PROMPTS_AT_ONCE }, client);
  const ends = await Promise.allSettled(clients);
  const seenThen = await (seen as Promise<Seen> | undefined);
  const failed = ends.find((end): end is PromiseRejectedResult => end.status === 'rejected' && !(stop.signal.aborted && isAbort(end.reason)));
  if (failed !== undefined) throw failed.reason;
  if (seenThen === undefined) throw new EndpointError('the server answered nothing');
  // Prompts of made-up words begin alike by chance, and llama.cpp has the first tokens of one in a slot.
  if (cached > 0.02 * tokens + ALIKE_TOKENS * answers) throw new EndpointError('the server says that it had prompts cached which it has never seen: its usage cannot be relied on');
  const sorted = endedAtMs.toSorted((a, b) => a - b);
  const distances = sorted.slice(1).map((atMs, index) => atMs - (sorted[index] as number));
  const timeMs = median(distances);
  const half = distances.length >> 1;
  const measurement = { clockMhz, work, timeMs, ...seenThen, powerW: busyPower(seenThen.powerW, idlePowerW, Math.min(1, (timeMs * distances.length) / Math.max(1, (sorted.at(-1) as number) - (sorted[0] as number)))), tokens: tokens / answers, count: distances.length };
  return { measurement, unsteadiness: Math.abs(median(distances.slice(0, half)) - median(distances.slice(half))) / timeMs };
}

/** Less what was idled away in between; where the server answered as fast as it could, or drew no more than when it idled, that is nothing. */
export function busyPower(powerW: number | null, idlePowerW: number | null, busyShare: number): number | null {
  if (powerW === null || idlePowerW === null || busyShare > 0.98 || powerW <= idlePowerW) return powerW;
  return idlePowerW + (powerW - idlePowerW) / Math.max(0.2, busyShare);
}

/** All streams but one only occupy the engine; that one, sent last, sees every step once the prompts of all are read. */
async function measureDecode(work: Extract<Work, { kind: 'decode' }>, clockMhz: number | null, { endpoint, meter, outputTokensMax, now }: Bench): Promise<Taken> {
  const others = endpoint.occupy(work.sequences - 1, { promptTokens: work.promptTokens, outputTokens: outputTokensMax });
  const stop = new AbortController();
  const steps: { readonly tokens: number; readonly atMs: number }[] = [];
  let watch: Promise<Watch> | null = null;
  let firstAtMs: number | null = null;
  try {
    // Theirs are with the server first: with its own first token all of them have had theirs.
    await others.accepted();
    await endpoint
      .ask({
        promptTokens: work.promptTokens,
        outputTokens: outputTokensMax,
        signal: stop.signal,
        onToken: (tokens, atMs) => {
          firstAtMs ??= atMs;
          if (tokens <= WARM_UP + 1 || atMs - firstAtMs < SETTLES_MS) return;
          watch ??= openWatch(meter, now);
          steps.push({ tokens, atMs });
          const [first] = steps;
          if (first !== undefined && tokens - first.tokens >= STEPS_MIN && atMs - first.atMs >= WINDOW_MS) stop.abort();
        },
      })
      .catch((error: unknown) => {
        if (!stop.signal.aborted) throw error;
      });
    const seen = await (await (watch as Promise<Watch> | null))?.end();
    if (others.failed() !== null) throw new EndpointError(others.failed() ?? '');
    const [first, last] = [steps[0], steps.at(-1)];
    if (seen === undefined || first === undefined || last === undefined || last.tokens - first.tokens < STEPS_MIN / 2) throw new EndpointError(`the server ended an answer after ${last?.tokens ?? 0} tokens; it has to go on for a second: it must know ignore_eos, or --max-output-tokens must be larger`);
    const middleTokens = (first.tokens + last.tokens) / 2;
    const half = steps.length >> 1;
    const timeMs = stepTime(steps);
    const measurement = { clockMhz, work, timeMs, ...seen, tokens: work.sequences * (work.promptTokens + middleTokens), count: last.tokens - first.tokens };
    return { measurement, unsteadiness: Math.abs(stepTime(steps.slice(0, half)) - stepTime(steps.slice(half))) / timeMs };
  } finally {
    stop.abort();
    await others.release();
  }
}

/** The slope of tokens over time, by the median of slopes between points half the window apart (Theil, 1950; Sen, 1968): single late events do not move it. */
function stepTime(steps: readonly { readonly tokens: number; readonly atMs: number }[]): number {
  const half = steps.length >> 1;
  return median(steps.slice(0, steps.length - half).map((from, index) => {
    const to = steps[index + half] as (typeof steps)[number];
    return (to.atMs - from.atMs) / Math.max(1, to.tokens - from.tokens);
  }));
}

type Seen = Pick<Measurement, 'powerW' | 'windowMs' | 'actualClockMhz' | 'throttleReasons'>;

interface Watch {
  end(): Promise<Seen>;
}

/** Energy at both ends; clock and throttling in between as well. */
async function openWatch(meter: NodeMeter | null, now: () => number): Promise<Watch> {
  const startedAtMs = now();
  if (meter === null) return { end: async () => ({ powerW: null, windowMs: now() - startedAtMs, actualClockMhz: null, throttleReasons: [] }) };
  const samples: NodeSample[] = [await meter.sample()];
  const over = new AbortController();
  const watching = (async () => {
    for (;;) {
      await delay(SAMPLE_EVERY_MS);
      if (over.signal.aborted) return;
      samples.push(await meter.sample());
    }
  })();
  // Told at the end, wherever it happened.
  watching.catch(() => {});
  return {
    end: async () => {
      over.abort();
      await watching;
      samples.push(await meter.sample());
      const [first, last] = [samples[0] as NodeSample, samples.at(-1) as NodeSample];
      const windowMs = last.atMs - first.atMs;
      const clocks = samples.flatMap(({ clockMhz }) => (clockMhz === null ? [] : [clockMhz]));
      return {
        powerW: first.energyJ === null || last.energyJ === null ? null : (1_000 * (last.energyJ - first.energyJ)) / windowMs,
        windowMs,
        actualClockMhz: clocks.length === 0 ? null : clocks.reduce((sum, clock) => sum + clock, 0) / clocks.length,
        throttleReasons: [...new Set(samples.flatMap(({ throttleReasons }) => throttleReasons))].toSorted(),
      };
    },
  };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] as number) : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}
