// What will arrive next? Exponentially weighted rates and sizes of what a replica was given, over a fast and a slow
// window: the slow one is steady, the fast one sees a burst begin. The larger rate counts.

export interface ArrivalForecast {
  /** `prefillTokens`: what of the prompt is not expected to be cached; default all. */
  observe(promptTokens: number, nowMs: number, prefillTokens?: number): void;
  at(nowMs: number): Forecast;
  /** How many more to expect within that time; 0 where it has been silent for so long that nobody comes any more. */
  expectedWithin(lengthMs: number, nowMs: number): number;
}

export interface Forecast {
  /** Long-run rate; 0 when nothing came for long. */
  readonly perMs: number;
  /** The larger of the long-run and the recent rate: what to be ready for. */
  readonly upperPerMs: number;
  readonly promptTokensMean: number;
  /** What of it has to be read; the rest is cached. */
  readonly prefillTokensMean: number;
  /** Mean square over squared mean of what has to be read (≥ 1): how uneven prompts are. */
  readonly promptUnevenness: number;
}

const SLOW_MS = 20_000;
const FAST_MS = 3_000;
/** No rate is told from less time than this: the first arrivals often come together. */
const YOUNG_MS = 5_000;
/** So many mean gaps without an arrival, and it was not chance: e⁻⁴ of them are as long. */
const SILENT_GAPS = 4;
/** Sizes before the first arrival: a middling chat prompt. */
const PROMPT_TOKENS_PRIOR = 500;

export function createArrivalForecast(): ArrivalForecast {
  let startedAtMs = Number.NaN;
  let updatedAtMs = 0;
  let lastAtMs = 0;
  let perMsAtLast = 0;
  let slow = 0;
  let fast = 0;
  let tokens = PROMPT_TOKENS_PRIOR;
  let prefillTokens = PROMPT_TOKENS_PRIOR;
  let squares = PROMPT_TOKENS_PRIOR ** 2 * 1.5;
  let seen = 0;

  function decayTo(nowMs: number): void {
    const passedMs = Math.max(0, nowMs - updatedAtMs);
    slow *= Math.exp(-passedMs / SLOW_MS);
    fast *= Math.exp(-passedMs / FAST_MS);
    updatedAtMs = nowMs;
  }

  function slowWindowMs(nowMs: number): number {
    return SLOW_MS * (1 - Math.exp(-Math.max(YOUNG_MS, nowMs - startedAtMs) / SLOW_MS));
  }

  return {
    expectedWithin(lengthMs, nowMs) {
      if (Number.isNaN(startedAtMs)) return 0;
      if (perMsAtLast * (nowMs - lastAtMs) > SILENT_GAPS) return 0;
      decayTo(nowMs);
      return (slow / slowWindowMs(nowMs)) * lengthMs;
    },
    observe(promptTokens, nowMs, toPrefill = promptTokens) {
      if (Number.isNaN(startedAtMs)) {
        startedAtMs = nowMs;
        updatedAtMs = nowMs;
      }
      decayTo(nowMs);
      slow += 1;
      fast += 1;
      seen += 1;
      lastAtMs = nowMs;
      perMsAtLast = slow / slowWindowMs(nowMs);
      const rate = Math.max(0.01, 1 / seen);
      tokens += (promptTokens - tokens) * rate;
      prefillTokens += (toPrefill - prefillTokens) * rate;
      squares += (toPrefill ** 2 - squares) * rate;
    },
    at(nowMs) {
      if (Number.isNaN(startedAtMs)) return { perMs: 0, upperPerMs: 0, promptTokensMean: tokens, prefillTokensMean: prefillTokens, promptUnevenness: 1.5 };
      decayTo(nowMs);
      // A young window has not filled yet: divided by what it could hold by now, so that the first seconds are no underestimate.
      const ageMs = Math.max(YOUNG_MS, nowMs - startedAtMs);
      const slowPerMs = slow / slowWindowMs(nowMs);
      const fastPerMs = fast / (FAST_MS * (1 - Math.exp(-ageMs / FAST_MS)));
      return { perMs: slowPerMs, upperPerMs: Math.max(slowPerMs, fastPerMs), promptTokensMean: tokens, prefillTokensMean: prefillTokens, promptUnevenness: Math.max(1, squares / prefillTokens ** 2) };
    },
  };
}
