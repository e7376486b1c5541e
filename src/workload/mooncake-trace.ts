// Mooncake's traces (github.com/kvcache-ai/Mooncake, FAST'25): one JSON line per request, with the ids of its KV blocks.
import { z } from 'zod';
import type { Workload, WorkloadRequest } from './request.ts';
import { REQUEST_TOKENS_MAX } from './limits.ts';
import { boundedPush, inOrderOfArrival, traceLines } from './trace-text.ts';
import { WorkloadError, malformed } from './workload-error.ts';

const tokens = z.int().min(1).max(REQUEST_TOKENS_MAX);
// Loose: other dumps of the same format carry further fields (chat ids, types) that say nothing of load.
const Line = z.looseObject({
  timestamp: z.number().min(0),
  input_length: tokens,
  output_length: tokens,
  hash_ids: z.array(z.int().min(0)).optional(),
});

const WANTED: Readonly<Record<string, string>> = {
  timestamp: 'milliseconds, at least 0',
  input_length: `a whole number, 1 to ${REQUEST_TOKENS_MAX}`,
  output_length: `a whole number, 1 to ${REQUEST_TOKENS_MAX}`,
  hash_ids: 'an array of whole numbers',
};

/** Times count from the first request of the file, in milliseconds: some dumps have them since 1970. */
export function readMooncakeTrace(text: string, file: string): Workload {
  const requests: WorkloadRequest[] = [];
  for (const line of traceLines(text)) {
    const { timestamp, input_length, output_length, hash_ids } = readLine(line.text, { file, line: line.number });
    const request = { atMs: timestamp, promptTokens: input_length, outputTokens: output_length, line: line.number };
    boundedPush(requests, hash_ids === undefined ? request : { ...request, prefixBlocks: hash_ids }, file);
  }
  if (requests.length === 0) throw new WorkloadError(`${file}: no requests; want lines such as {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}`);
  inOrderOfArrival(requests);
  const earliestMs = requests[0]?.atMs ?? 0;
  return { name: `mooncake ${file}`, requests: earliestMs === 0 ? requests : requests.map((request) => ({ ...request, atMs: request.atMs - earliestMs })) };
}

function readLine(text: string, at: { readonly file: string; readonly line: number }): z.infer<typeof Line> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw malformed({ ...at, column: 'line', given: text, want: 'a JSON object' });
  }
  const parsed = Line.safeParse(value);
  if (parsed.success) return parsed.data;
  const column = String(parsed.error.issues[0]?.path[0] ?? 'line');
  const given = typeof value === 'object' && value !== null && column in value ? (value as Record<string, unknown>)[column] : undefined;
  throw malformed({ ...at, column, given: column === 'line' ? text : given === undefined ? 'nothing' : JSON.stringify(given), want: WANTED[column] ?? 'a JSON object' });
}
