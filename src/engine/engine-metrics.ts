// The engine's Prometheus text, by vLLM's names and buckets (vllm/v1/metrics/loggers.py), for a gateway that polls it.
import type { EngineStats } from './batching.ts';
import { KV_BLOCK_TOKENS } from './kv-cache.ts';

const TTFT_BUCKETS_S = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560];
const INTER_TOKEN_BUCKETS_S = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80];
const REQUEST_BUCKETS_S = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680];

export interface EngineMetrics {
  firstToken(afterMs: number): void;
  nextToken(afterMs: number): void;
  ended(finishReason: 'stop' | 'length' | 'abort', afterMs: number): void;
  text(stats: EngineStats): string;
}

interface Histogram {
  observe(valueS: number): void;
  lines(): string;
}

export function createEngineMetrics({ model, engine, kvTokens }: { readonly model: string; readonly engine: number; readonly kvTokens: number }): EngineMetrics {
  const labels = `model_name="${model.replaceAll(/[\\"\n]/g, '_')}",engine="${engine}"`;
  const ttft = createHistogram('vllm:time_to_first_token_seconds', 'Time to first token.', labels, TTFT_BUCKETS_S);
  const interToken = createHistogram('vllm:inter_token_latency_seconds', 'Time between output tokens.', labels, INTER_TOKEN_BUCKETS_S);
  const endToEnd = createHistogram('vllm:e2e_request_latency_seconds', 'Time of whole requests.', labels, REQUEST_BUCKETS_S);
  const ends = { stop: 0, length: 0, abort: 0 };

  const family = (name: string, type: 'gauge' | 'counter', help: string, value: number): string => `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${name}{${labels}} ${value}\n`;
  return {
    firstToken: (afterMs) => ttft.observe(afterMs / 1000),
    nextToken: (afterMs) => interToken.observe(afterMs / 1000),
    ended: (finishReason, afterMs) => {
      ends[finishReason]++;
      if (finishReason !== 'abort') endToEnd.observe(afterMs / 1000);
    },
    text: (stats) =>
      [
        family('vllm:num_requests_running', 'gauge', 'Requests in the batch.', stats.running),
        family('vllm:num_requests_waiting', 'gauge', 'Requests waiting.', stats.waiting),
        family('vllm:kv_cache_usage_perc', 'gauge', 'KV cache in use, 1 is all of it.', stats.kvUsage),
        family('vllm:prompt_tokens_total', 'counter', 'Prompt tokens processed.', stats.promptTokens),
        family('vllm:generation_tokens_total', 'counter', 'Output tokens.', stats.generationTokens),
        family('vllm:prefix_cache_queries_total', 'counter', 'Tokens looked up in the prefix cache.', stats.prefixQueryTokens),
        family('vllm:prefix_cache_hits_total', 'counter', 'Tokens found in the prefix cache.', stats.prefixHitTokens),
        family('vllm:num_preemptions_total', 'counter', 'Preemptions.', stats.preemptions),
        '# HELP vllm:request_success_total Requests ended.\n# TYPE vllm:request_success_total counter\n',
        ...Object.entries(ends).map(([reason, count]) => `vllm:request_success_total{${labels},finished_reason="${reason}"} ${count}\n`),
        `# HELP vllm:cache_config_info KV cache layout.\n# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{block_size="${KV_BLOCK_TOKENS}",num_gpu_blocks="${Math.floor(kvTokens / KV_BLOCK_TOKENS)}",engine="${engine}"} 1\n`,
        ttft.lines(),
        interToken.lines(),
        endToEnd.lines(),
      ].join(''),
  };
}

function createHistogram(name: string, help: string, labels: string, bounds: readonly number[]): Histogram {
  const counts = new Float64Array(bounds.length + 1);
  let sum = 0;
  return {
    observe: (valueS) => {
      let bucket = 0;
      while (bucket < bounds.length && valueS > (bounds[bucket] as number)) bucket++;
      (counts[bucket] as number)++;
      sum += valueS;
    },
    lines: () => {
      let count = 0;
      let text = `# HELP ${name} ${help}\n# TYPE ${name} histogram\n`;
      counts.forEach((own, bucket) => {
        count += own;
        text += `${name}_bucket{${labels},le="${bounds[bucket] ?? '+Inf'}"} ${count}\n`;
      });
      return `${text}${name}_sum{${labels}} ${sum}\n${name}_count{${labels}} ${count}\n`;
    },
  };
}
