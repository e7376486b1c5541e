import { expect, test } from 'vitest';
import { readServerLoad } from '../../src/upstream/server-metrics.ts';

const VLLM = `# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 12.0
vllm:num_requests_waiting{engine="0",model_name="a {odd} name"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0"} 0.42
`;

test.each([
  ['vLLM', VLLM, { running: 12, waiting: 3, kvUsage: 0.42 }],
  ['vLLM before the cache was renamed', VLLM.replace('kv_cache', 'gpu_cache'), { running: 12, waiting: 3, kvUsage: 0.42 }],
  ['several ranks', `${VLLM}vllm:num_requests_running{engine="1"} 5\nvllm:num_requests_waiting{engine="1"} 1\nvllm:kv_cache_usage_perc{engine="1"} 0.9`, { running: 17, waiting: 4, kvUsage: 0.9 }],
  ['SGLang', 'sglang:num_running_reqs{m="x"} 4\nsglang:num_queue_reqs{m="x"} 2\nsglang:token_usage{m="x"} 0.1\n', { running: 4, waiting: 2, kvUsage: 0.1 }],
  ['llama.cpp, which does not tell its cache', 'llamacpp:requests_processing 1\nllamacpp:requests_deferred 0\n', { running: 1, waiting: 0, kvUsage: 0 }],
])('reads %s', (_what, page, load) => {
  expect(readServerLoad(page)).toEqual(load);
});

test.each([['', 'an empty page'], ['vllm:num_requests_running NaN\nvllm:num_requests_waiting 1\n', 'NaN'], ['x_vllm:num_requests_running 1\n', 'another name']])('%j tells no load (%s)', (page) => {
  expect(readServerLoad(page)).toBeNull();
});
