// The load of a model server out of its Prometheus page: three gauges, found by the names the engines give them.

export interface ServerLoad {
  readonly running: number;
  readonly waiting: number;
  /** Share of the KV cache in use, 0 to 1. */
  readonly kvUsage: number;
}

/** Engines rename their metrics now and then; the first name that is there counts. */
const NAMES: Readonly<Record<keyof ServerLoad, readonly string[]>> = {
  running: ['vllm:num_requests_running', 'sglang:num_running_reqs', 'llamacpp:requests_processing', 'tgi_batch_current_size'],
  waiting: ['vllm:num_requests_waiting', 'sglang:num_queue_reqs', 'llamacpp:requests_deferred', 'tgi_queue_size'],
  kvUsage: ['vllm:kv_cache_usage_perc', 'vllm:gpu_cache_usage_perc', 'sglang:token_usage'],
};

/** `null` where the page does not tell how many requests run and wait. A missing cache gauge reads as an empty cache. */
export function readServerLoad(page: string): ServerLoad | null {
  const running = firstOf(page, NAMES.running);
  const waiting = firstOf(page, NAMES.waiting);
  if (running === null || waiting === null) return null;
  const kvUsage = firstOf(page, NAMES.kvUsage);
  // Engines of one server (data parallel ranks) each have a line: requests add up, the fullest cache counts.
  return { running: sum(running), waiting: sum(waiting), kvUsage: kvUsage === null ? 0 : Math.min(1, Math.max(...kvUsage)) };
}

function firstOf(page: string, names: readonly string[]): number[] | null {
  for (const name of names) {
    const values = valuesOf(page, name);
    if (values.length > 0) return values;
  }
  return null;
}

/** Every sample of one metric; the page is searched, not parsed, for it has hundreds of lines and is read every second. */
function valuesOf(page: string, name: string): number[] {
  const values: number[] = [];
  for (let at = page.indexOf(name); at >= 0; at = page.indexOf(name, at + name.length)) {
    if (at > 0 && page[at - 1] !== '\n') continue;
    const end = page.indexOf('\n', at);
    const line = page.slice(at + name.length, end < 0 ? page.length : end);
    const value = /^(?:\{.*\})?[ \t]+(\S+)/.exec(line)?.[1];
    const number = value === undefined ? Number.NaN : Number(value);
    if (Number.isFinite(number) && number >= 0) values.push(number);
  }
  return values;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
