// node test/fuzz/fuzz.ts --inputs N --seed S [--from INDEX]
// Spoilt answers and requests against what must always hold. Ends with 1 and says how to repeat it where something did not.
import { parseArgs } from 'node:util';
import { feedEndless, runFuzz } from './run-fuzz.ts';

const { values } = parseArgs({ options: { inputs: { type: 'string', default: '1000000' }, seed: { type: 'string', default: '20261126' }, from: { type: 'string', default: '0' } } });
const [inputs, seed, from] = [wholeNumber('inputs', values.inputs), wholeNumber('seed', values.seed), wholeNumber('from', values.from)];

const startedAtMs = performance.now();
const result = feedEndless() ?? runFuzz({ inputs, seed, from });
const seconds = ((performance.now() - startedAtMs) / 1_000).toFixed(1);
const mb = (bytes: number): string => `${(bytes / 1_048_576).toFixed(1)} MB`;

if (result.kind === 'held') {
  const { heap, bytes } = result;
  process.stdout.write(`${inputs} inputs (${mb(bytes)}), seed ${seed}, ${seconds} s; heap ${mb(heap.earlyBytes)} after a tenth, ${mb(heap.lateBytes)} at the end; nothing violated\n`);
} else if (result.kind === 'grew') {
  process.stdout.write(`seed ${seed}, ${seconds} s: ${result.what} kept ${mb(result.keptBytes)}, want at most ${mb(result.keptBytesMax)}\n`);
  process.exitCode = 1;
} else {
  const { index, shortest, input, violation } = result;
  process.stdout.write(
    [
      `seed ${seed}, input ${index}, ${seconds} s: ${input.kind === 'answer' ? 'an answer' : `a request to ${input.endpoint}`} violates: ${violation}`,
      `input (base64): ${input.bytes.toString('base64')}`,
      `shortest: ${JSON.stringify(shortest.bytes.toString('latin1'))}${shortest.kind === 'answer' ? `, cut at ${shortest.cuts.join(', ')}` : ''}`,
      `again: node test/fuzz/fuzz.ts --seed ${seed} --from ${index} --inputs 1\n`,
    ].join('\n'),
  );
  process.exitCode = 1;
}

function wholeNumber(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`--${name}: got '${text}', want a whole number`);
  return value;
}
