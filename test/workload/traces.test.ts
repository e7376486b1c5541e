import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readAzureTrace } from '../../src/workload/azure-trace.ts';
import { readMooncakeTrace } from '../../src/workload/mooncake-trace.ts';

const HEADER = 'TIMESTAMP,ContextTokens,GeneratedTokens';

describe('azure', () => {
  test('counts times from the first request, to the microsecond', () => {
    const { requests } = readAzureTrace(`${HEADER}\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:18:04.0319610,1,1\n`, 'a.csv');
    expect(requests.map(({ promptTokens, outputTokens }) => [promptTokens, outputTokens])).toEqual([[4808, 10], [3180, 8], [1, 1]]);
    expect(requests[0]?.atMs).toBe(0);
    expect(requests[1]?.atMs).toBeCloseTo(52, 6);
    expect(requests[2]?.atMs).toBeCloseTo(60_052.001, 6);
  });

  test('reads CRLF, a byte order mark, the zone of the 2024 trace and times without a fraction', () => {
    const { requests } = readAzureTrace(`\uFEFF${HEADER}\r\n2024-05-10 00:00:00+00:00,1,2\r\n2024-05-10 00:00:01.5+00:00,3,4\r\n\r\n`, 'a.csv');
    expect(requests).toEqual([{ atMs: 0, promptTokens: 1, outputTokens: 2, line: 2 }, { atMs: 1500, promptTokens: 3, outputTokens: 4, line: 3 }]);
  });

  test('puts late lines where they belong', () => {
    const { requests } = readAzureTrace(`${HEADER}\n2023-11-16 18:17:05.0,1,1\n2023-11-16 18:17:03.0,2,2\n`, 'a.csv');
    expect(requests).toEqual([{ atMs: 0, promptTokens: 2, outputTokens: 2, line: 3 }, { atMs: 2000, promptTokens: 1, outputTokens: 1, line: 2 }]);
  });

  test.each([
    { lines: ['time,in,out'], message: `a.csv:1 header: got "time,in,out", want ${HEADER}` },
    { lines: [HEADER, '2023-11-16 18:17:03.9,1'], message: 'a.csv:2 line: got "2023-11-16 18:17:03.9,1", want 3 fields' },
    { lines: [HEADER, '2023-11-16 18:17:03.9,1,1', 'yesterday,1,1'], message: 'a.csv:3 TIMESTAMP: got "yesterday", want a UTC time' },
    { lines: [HEADER, '2023-02-31 18:17:03,1,1'], message: 'a.csv:2 TIMESTAMP: got "2023-02-31 18:17:03"' },
    { lines: [HEADER, '2023-11-16 18:17:03,12.5,1'], message: 'a.csv:2 ContextTokens: got "12.5", want a whole number, 1 to 10000000' },
    { lines: [HEADER, '2023-11-16 18:17:03,12,-1'], message: 'a.csv:2 GeneratedTokens: got "-1"' },
    { lines: [HEADER, '2023-11-16 18:17:03,12,0'], message: 'a.csv:2 GeneratedTokens: got "0"' },
    { lines: [HEADER, '', '2023-11-16 18:17:03,,1'], message: 'a.csv:3 ContextTokens: got ""' },
    { lines: [HEADER], message: 'a.csv: no requests' },
    { lines: [], message: 'a.csv: no requests' },
  ])('refuses $lines', ({ lines, message }) => {
    expect(() => readAzureTrace(lines.join('\n'), 'a.csv')).toThrow(message);
  });

  test('gives back what was written, whatever it was', () => {
    const request = fc.record({ gapUs: fc.nat(10_000_000), promptTokens: fc.integer({ min: 1, max: 10_000_000 }), outputTokens: fc.integer({ min: 1, max: 10_000_000 }) });
    fc.assert(
      fc.property(fc.array(request, { minLength: 1, maxLength: 50 }), (written) => {
        let atUs = 0;
        const lines = written.map(({ gapUs, promptTokens, outputTokens }, index) => {
          atUs += index === 0 ? 0 : gapUs;
          const whole = new Date(Date.UTC(2023, 10, 16, 23, 59, 50) + Math.floor(atUs / 1_000_000) * 1000).toISOString().slice(0, 19).replace('T', ' ');
          return `${whole}.${String(atUs % 1_000_000).padStart(6, '0')}0,${promptTokens},${outputTokens}`;
        });
        const { requests } = readAzureTrace([HEADER, ...lines].join('\n'), 'a.csv');
        expect(requests.map(({ promptTokens, outputTokens }) => ({ promptTokens, outputTokens }))).toEqual(written.map(({ promptTokens, outputTokens }) => ({ promptTokens, outputTokens })));
        expect(Math.abs((requests.at(-1)?.atMs ?? 0) - atUs / 1000)).toBeLessThan(1e-6);
      }),
      { numRuns: 50 },
    );
  });
});

describe('mooncake', () => {
  test('reads times, sizes and block ids; blocks may be missing and further fields present', () => {
    const text = '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n{"timestamp": 3000.5, "input_length": 1, "output_length": 2, "type": "text"}\n';
    expect(readMooncakeTrace(text, 'm.jsonl').requests).toEqual([
      { atMs: 0, promptTokens: 6758, outputTokens: 500, prefixBlocks: [0, 1], line: 1 },
      { atMs: 3000.5, promptTokens: 1, outputTokens: 2, line: 2 },
    ]);
  });

  test.each([
    { line: '{"timestamp": 0', message: 'm.jsonl:2 line: got "{\\"timestamp\\": 0", want a JSON object' },
    { line: '[]', message: 'm.jsonl:2 line: got "[]", want a JSON object' },
    { line: '{"timestamp": -1, "input_length": 1, "output_length": 1}', message: 'm.jsonl:2 timestamp: got "-1", want milliseconds, at least 0' },
    { line: '{"timestamp": 0, "input_length": "7", "output_length": 1}', message: String.raw`m.jsonl:2 input_length: got "\"7\"", want a whole number, 1 to` },
    { line: '{"timestamp": 0, "input_length": 7}', message: 'm.jsonl:2 output_length: got "nothing", want a whole number' },
    { line: '{"timestamp": 0, "input_length": 7, "output_length": 1, "hash_ids": [0, 1.5]}', message: 'm.jsonl:2 hash_ids: got "[0,1.5]", want an array of whole numbers' },
  ])('refuses $line', ({ line, message }) => {
    expect(() => readMooncakeTrace(`{"timestamp": 0, "input_length": 1, "output_length": 1}\n${line}\n`, 'm.jsonl')).toThrow(message);
  });

  test('refuses a file without lines', () => {
    expect(() => readMooncakeTrace('\n', 'm.jsonl')).toThrow('m.jsonl: no requests');
  });
});
