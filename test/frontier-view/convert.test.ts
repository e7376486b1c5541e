import { describe, expect, test } from 'vitest';
import { convertSweep, ConversionError } from '../../src/frontier-view/convert.ts';
import { frontiersSchema } from '../../src/frontier-view/frontiers-file.ts';

const ABOUT = { name: 'sweep', source: 'a test', licence: 'CC0-1.0' };
const PERSEUS = 'stage,instruction,frequency,time,energy\n0,forward,1410,0.050,12.5\n0,forward,1200,0.056,10.9\n0,backward,1410,0.100,27\n1,forward,1410,0.048,12\n';
const ZEUS = 'dataset,network,batch_size,optimizer,power_limit,time_per_epoch,average_power\ncifar100,resnet,1024,adam,100,11.2,90\ncifar100,resnet,1024,adam,250,7.5,190\n';
const LOAD_TEST = 'tp,input_len,output_len,freq_mhz,rps,power_w_sum,ttft_p99_s,tpot_p99_s\n4,1023,99,1080,1.5,1500,0.3,0.03\n4,1023,99,1980,1.5,2400,0.2,0.02\n8,1023,99,1980,1.5,3000,0.2,0.02\n';

describe('a sweep', () => {
  test('of a pipeline becomes a frontier for each instruction of each stage, in milliseconds', () => {
    const { frontiers } = convertSweep(PERSEUS, 'perseus-profile', ABOUT);
    expect(frontiers.map(({ work, points }) => [work, points.length])).toEqual([['stage 0, forward', 2], ['stage 0, backward', 1], ['stage 1, forward', 1]]);
    expect(frontiers[0]?.points[1]).toEqual({ knobs: { clockMhz: 1200 }, timeMs: 56, energyJ: 10.9 });
  });

  test('of power limits becomes the time and energy of an epoch', () => {
    const { frontiers, knobs } = convertSweep(ZEUS, 'zeus-power-sweep', ABOUT);
    expect(knobs).toEqual({ powerLimitW: { unit: 'W' } });
    expect(frontiers).toHaveLength(1);
    expect(frontiers[0]?.points[0]).toEqual({ knobs: { powerLimitW: 100 }, timeMs: 11_200, energyJ: expect.closeTo(1008, 6) });
  });

  test('of load tests becomes the time and energy of a request, apart for each number of GPUs and rate', () => {
    const { frontiers } = convertSweep(LOAD_TEST, 'load-test', ABOUT);
    expect(frontiers.map(({ points }) => points.length)).toEqual([2, 1]);
    expect(frontiers[0]?.points[0]).toEqual({ knobs: { clockMhz: 1080 }, timeMs: expect.closeTo(300 + 98 * 30, 6), energyJ: 1000 });
  });

  test.each([['perseus-profile', PERSEUS], ['zeus-power-sweep', ZEUS], ['load-test', LOAD_TEST]])('as %s is a document that its schema takes, and keeps whence it came', (format, text) => {
    const file = convertSweep(`\uFEFF${text.replaceAll('\n', '\r\n')}`, format, ABOUT);
    expect(frontiersSchema.safeParse(file).success).toBe(true);
    expect(file.provenance).toMatchObject({ source: 'a test', licence: 'CC0-1.0', convertedFrom: format });
  });

  test.each([
    [PERSEUS, 'csv', /format: got 'csv', allowed: perseus-profile/],
    [PERSEUS, 'load-test', /line 1: got the columns stage, .* This looks like perseus-profile/],
    ['', 'load-test', /line 1: got the columns none/],
    ['stage,instruction,frequency,time,energy\n', 'perseus-profile', /no rows/],
    [`${PERSEUS}0,forward,fast,1,1\n`, 'perseus-profile', /line 6: frequency: got 'fast', want a number/],
    [`${PERSEUS}0,forward,1,1\n`, 'perseus-profile', /line 6: got 4 cells, want 5/],
    [`${PERSEUS}0,forward,1,0,1\n`, 'perseus-profile', /line 6: got 0 ms and 1 J/],
    ['gemm_dtype,m,n,k,latency_ms,power_w\nbfloat16,1,1,1,0.1,300\n', 'load-test', /single kernels at one clock/],
  ])('that cannot be converted is refused with the line and the way out: %#', (text, format, message) => {
    expect(() => convertSweep(text, format, ABOUT)).toThrow(ConversionError);
    expect(() => convertSweep(text, format, ABOUT)).toThrow(message);
  });

  test('has a bound of rows', () => {
    const text = `stage,instruction,frequency,time,energy\n${'0,f,1,1,1\n'.repeat(100_001)}`;
    expect(() => convertSweep(text, 'perseus-profile', ABOUT)).toThrow(/line 100002: more than 100000 rows/);
  });
});

const HEADER = 'stage,instruction,frequency,time,energy';
test.each([
  ['quoted cells, whose marks became a part of the name', `${HEADER}\n0,"forward",1410,0.1,20\n`, 'perseus-profile', /line 2: got a quotation mark/],
  ['a hexadecimal clock, which was read as 16 MHz', `${HEADER}\n0,forward,0x10,0.1,20\n`, 'perseus-profile', /line 2: frequency: got '0x10', want a number/],
  ['no requests per second, of which each took without end and was written as null', 'tp,input_len,output_len,freq_mhz,rps,power_w_sum,ttft_p99_s,tpot_p99_s\n2,10,10,1000,0,300,0.1,0.01\n', 'load-test', /line 2: got 190 ms and Infinity J/],
  ['more frontiers than are read again', `${HEADER}\n${Array.from({ length: 10_001 }, (_, stage) => `${stage},forward,1410,0.1,20`).join('\n')}\n`, 'perseus-profile', /no file of frontiers: frontiers: /],
])('a table is refused with %s', (_, text, format, message) => {
  expect(() => convertSweep(text, format, ABOUT)).toThrow(ConversionError);
  expect(() => convertSweep(text, format, ABOUT)).toThrow(message);
});
