// What is measured of a replica at one operating point, as values: the works that are asked for, and what came of them.

/** A steady state that is held for as long as it is measured. Tokens are as the server counts them. */
export type Work =
  | { readonly kind: 'idle' }
  /** Prompts of so many tokens back to back, each with an answer of one token. */
  | { readonly kind: 'prefill'; readonly tokens: number }
  /** So many streams at once, each with a prompt of so many tokens. */
  | { readonly kind: 'decode'; readonly sequences: number; readonly promptTokens: number };

export interface Measurement {
  /** `null`: as it was found. */
  readonly clockMhz: number | null;
  readonly work: Work;
  /** Of one prompt, or of one step; `null` where nothing was to do. */
  readonly timeMs: number | null;
  /** Mean of all devices while they worked; `null` where nobody could tell. */
  readonly powerW: number | null;
  /** decode: of all sequences, in the middle of the window. prefill: of a prompt, by the server's count. */
  readonly tokens: number;
  readonly windowMs: number;
  /** Prompts or steps that were seen. */
  readonly count: number;
  /** Mean over the window, of the slowest device. */
  readonly actualClockMhz: number | null;
  readonly throttleReasons: readonly string[];
}

export function sameWork(a: Work, b: Work): boolean {
  return workKey(a) === workKey(b);
}

function workKey(work: Work): string {
  switch (work.kind) {
    case 'idle':
      return 'idle';
    case 'prefill':
      return `prefill ${work.tokens}`;
    case 'decode':
      return `decode ${work.sequences} x ${work.promptTokens}`;
  }
}

export function workText(work: Work): string {
  switch (work.kind) {
    case 'idle':
      return 'idle';
    case 'prefill':
      return `prefill of ${work.tokens} tokens`;
    case 'decode':
      return `decode of ${work.sequences} streams after ${work.promptTokens} tokens each`;
  }
}
