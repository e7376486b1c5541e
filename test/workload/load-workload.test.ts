import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { loadWorkload, parseTraceSource } from '../../src/workload/load-workload.ts';
import type { WorkloadRequest } from '../../src/workload/request.ts';

let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'paceline-workload-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

test.each([
  { text: 'azure:a/b.csv', source: { kind: 'azure', file: 'a/b.csv' } },
  { text: 'mooncake:/x:y.jsonl', source: { kind: 'mooncake', file: '/x:y.jsonl' } },
  { text: 'servegen:/data', source: { kind: 'servegen', directory: '/data' } },
  { text: 'servegen:/data:4', source: { kind: 'servegen', directory: '/data', chunk: '4' } },
])('reads the source $text', ({ text, source }) => {
  expect(parseTraceSource(text)).toEqual(source);
});

test.each(['azure', 'azure:', 'other:file', ''])("refuses the source '%s'", (text) => {
  expect(() => parseTraceSource(text)).toThrow('want azure:FILE, mooncake:FILE or servegen:DIR[:CHUNK]');
});

test('a file that is missing or is a directory is said to be', async () => {
  await expect(loadWorkload({ kind: 'azure', file: join(directory, 'none.csv') }, {}, 1)).rejects.toThrow('none.csv: does not exist');
  await expect(loadWorkload({ kind: 'mooncake', file: directory }, {}, 1)).rejects.toThrow('is a directory, want a file');
  await expect(loadWorkload({ kind: 'servegen', directory: join(directory, 'none') }, { durationS: 1 }, 1)).rejects.toThrow('none: does not exist');
});

test('a chunk is found by its number or its name; two of one number, or none, are said', async () => {
  for (const stem of ['language_m-small_chunk-1', 'reason_r1_chunk-1', 'chunk-12', 'chunk-3']) {
    writeFileSync(join(directory, `${stem}-trace.csv`), '0,0,0,,0,0\n600,1,1,Gamma,1,1\n');
    if (stem !== 'chunk-3') writeFileSync(join(directory, `${stem}-dataset.json`), '{"0": {"input_tokens": "{5: 1.0}", "output_tokens": "{6: 1.0}"}}');
  }
  const load = (chunk?: string, window = { fromS: 600, durationS: 600 }) => loadWorkload({ kind: 'servegen', directory, ...(chunk === undefined ? {} : { chunk }) }, window, 1);
  expect((await load('12')).requests).toHaveLength(600);
  expect((await load('reason_r1_chunk-1')).name).toBe('servegen reason_r1_chunk-1 600-1200 s');
  expect((await load()).name).toBe('servegen 3 clients 600-1200 s');
  await expect(load('1')).rejects.toThrow("chunk '1' may be language_m-small_chunk-1 or reason_r1_chunk-1; say which");
  await expect(load('7')).rejects.toThrow("no chunk '7'; complete chunks: chunk-12, language_m-small_chunk-1, reason_r1_chunk-1");
  await expect(load('3')).rejects.toThrow('chunk-3-dataset.json: does not exist');
  await expect(load('12', { fromS: 0, durationS: 60 })).rejects.toThrow('no requests 0-60 s; the next ones come from second 600 (--from 600)');
});

test('a workload without an end of its own wants a duration', async () => {
  await expect(loadWorkload({ kind: 'servegen', directory }, {}, 1)).rejects.toThrow('--duration SECONDS');
  const synthetic = { kind: 'synthetic', arrivals: { kind: 'poisson', ratePerS: 50 }, promptTokens: { kind: 'fixed', tokens: 5 }, outputTokens: { kind: 'fixed', tokens: 5 } } as const;
  await expect(loadWorkload(synthetic, {}, 1)).rejects.toThrow('--duration SECONDS');
  const whole = await loadWorkload(synthetic, { durationS: 10 }, 1);
  const later = await loadWorkload(synthetic, { fromS: 4, durationS: 6 }, 1);
  expect(later.requests).toHaveLength(whole.requests.filter(({ atMs }) => atMs >= 4000).length);
});

// The recorded traces lie beside the repository and are not part of it.
const DATA = '../shared/data';
if (!existsSync(DATA)) console.warn(`${DATA} is not there: the recorded traces are not read`);

describe.skipIf(!existsSync(DATA))('the recorded traces', () => {
  const sums = (requests: readonly WorkloadRequest[]) => ({
    requests: requests.length,
    promptTokens: requests.reduce((sum, { promptTokens }) => sum + promptTokens, 0),
    outputTokens: requests.reduce((sum, { outputTokens }) => sum + outputTokens, 0),
  });

  test.each(['conv', 'code'])('azure %s: every line is read', async (which) => {
    const file = `${DATA}/azure-llm-2023/AzureLLMInferenceTrace_${which}.csv`;
    const rows = readFileSync(file, 'utf8').trim().split(/\r?\n/).slice(1).map((line) => line.split(',').slice(1).map(Number));
    const { requests } = await loadWorkload({ kind: 'azure', file }, {}, 1);
    expect(sums(requests)).toEqual({ requests: rows.length, promptTokens: rows.reduce((sum, [tokens]) => sum + (tokens ?? 0), 0), outputTokens: rows.reduce((sum, [, tokens]) => sum + (tokens ?? 0), 0) });
    expect(requests.every(({ atMs }, index) => atMs >= (requests[index - 1]?.atMs ?? 0))).toBe(true);
  });

  test('mooncake: every line is read, and its blocks cover its prompt', async () => {
    const { requests } = await loadWorkload({ kind: 'mooncake', file: `${DATA}/mooncake-fast25/conversation_trace.jsonl` }, {}, 1);
    expect(sums(requests)).toEqual({ requests: 12_031, promptTokens: 144_793_823, outputTokens: 4_122_048 });
    expect(requests.every(({ promptTokens, prefixBlocks }) => prefixBlocks?.length === Math.ceil(promptTokens / 512))).toBe(true);
  });

  test('servegen: a chunk sends at the rates of its trace', async () => {
    const { requests } = await loadWorkload({ kind: 'servegen', directory: `${DATA}/servegen`, chunk: '4' }, { fromS: 136_800, durationS: 2400 }, 1);
    // 3.85 + 3.7833 + 19.11 + 31.2883 requests/s, 600 s each.
    expect(Math.abs(requests.length - 600 * (3.85 + 3.783_33 + 19.11 + 31.288_33))).toBeLessThan(6);
  });
});
