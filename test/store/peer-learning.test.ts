// What gateways tell each other of what they have learnt: what is believed of a text, and what is not.
import { expect, test } from 'vitest';
import type { ReplicaId } from '../../src/core/job.ts';
import type { Learning } from '../../src/core/shared-learning.ts';
import { createPeerLearning, LEARNING_CHARACTERS_MAX, learningText, MODELS_MAX } from '../../src/store/peer-learning.ts';
import { GATEWAYS_MAX, REPLICAS_MAX } from '../../src/store/peer-loads.ts';

const learning = (scales: Record<string, readonly [number, number, number, number]>, bytes: Record<string, readonly [number, number]> = {}): Learning => ({
  timeScales: new Map(Object.entries(scales).map(([id, [prefill, prefills, decode, decodes]]) => [id as ReplicaId, { prefill: { value: prefill, samples: prefills }, decode: { value: decode, samples: decodes } }])),
  bytesPerToken: new Map(Object.entries(bytes).map(([model, [value, samples]]) => [model, { value, samples }])),
});
const read = (...texts: readonly string[]) => createPeerLearning('own').read(texts.map((text, index) => [`g${index}`, text] as const));

test('what one gateway tells another one reads, and what it has not seen it does not tell', () => {
  const said = learning({ r0: [1.25, 7, 0.75, 3], r1: [1, 0, 1, 0] }, { m: [4.2, 9], unseen: [3.6, 0] });
  expect(read(learningText(1, said))).toEqual({ gateways: 1, learning: learning({ r0: [1.25, 7, 0.75, 3] }, { m: [4.2, 9] }) });
  expect(learningText(1, learning({ r1: [1, 0, 1, 0] }))).toBe('');
});

test('several gateways are one voice, each with what it has seen, and one’s own is not among them', () => {
  const [one, two] = [learningText(1, learning({ r0: [1, 5, 1.2, 5] })), learningText(1, learning({ r0: [2, 15, 1.2, 0], r1: [1, 0, 2, 1] }))];
  const heard = read(one, two).learning.timeScales;
  expect(heard.get('r0' as ReplicaId)).toEqual({ prefill: { value: 1.75, samples: 20 }, decode: { value: 1.2, samples: 5 } });
  expect(heard.get('r1' as ReplicaId)?.decode).toEqual({ value: 2, samples: 1 });
  expect(createPeerLearning('own').read([['own', one]])).toEqual({ gateways: 0, learning: learning({}) });
});

const good = { r: [1, 1, 1, 1] };
test.each([
  { what: 'too slow to be true', scales: { ...good, bad: [2.01, 5, 1, 5] } },
  { what: 'too fast to be true', scales: { ...good, bad: [1, 5, 0.49, 5] } },
  { what: 'of more samples than are told', scales: { ...good, bad: [1, 21, 1, 5] } },
  { what: 'of less than no samples', scales: { ...good, bad: [1, -1, 1, 5] } },
  { what: 'a text', scales: { ...good, bad: ['1', 5, 1, 5] } },
  { what: 'nothing', scales: { ...good, bad: null } },
  { what: 'too short', scales: { ...good, bad: [1, 5] } },
])('a correction that is $what is left out, and the rest of the text counts', ({ scales }) => {
  expect([...read(JSON.stringify({ count: 1, scales, bytes: { m: [17, 3], n: [0.4, 3], o: [4, 3] } })).learning.timeScales.keys()]).toEqual(['r']);
});

test('bytes per token that no language has are left out', () => {
  expect([...read('{"count":1,"scales":{},"bytes":{"m":[17,3],"n":[0.4,3],"o":[4,3],"p":[1e999,3],"q":[4,0.5]}}').learning.bytesPerToken.keys()]).toEqual(['o']);
});

test.each(['', 'rubbish', '[]', '{}', '{"scales":[],"bytes":1}', '{"scales":{"__proto__":[2,9,2,9]}}', `{"count":1,"scales":{},"bytes":{},"x":"${'x'.repeat(LEARNING_CHARACTERS_MAX)}"}`])('a text that no gateway writes says nothing: %.40s', (text) => {
  expect(read(text)).toEqual({ gateways: 0, learning: learning({}) });
});

test('a text has as many replicas and models as allowed, and with the longest names is not too long to be read', () => {
  const name = (index: number): string => `${index}`.padStart(200, 'n');
  const scales = Object.fromEntries(Array.from({ length: REPLICAS_MAX + 1 }, (_, index) => [name(index), [1.2345, 20, 1.2345, 20] as const]));
  const bytes = Object.fromEntries(Array.from({ length: MODELS_MAX + 1 }, (_, index) => [name(index), [12.3456, 20] as const]));
  const heard = read(learningText(Number.MAX_SAFE_INTEGER, learning(scales, bytes)));
  expect([heard.learning.timeScales.size, heard.learning.bytesPerToken.size]).toEqual([REPLICAS_MAX, MODELS_MAX]);
});

test('a field that nobody writes any more is named as rubbish after some minutes, once', () => {
  const peers = createPeerLearning('own');
  let readings = 0;
  let abandoned: readonly string[] = [];
  while (abandoned.length === 0 && readings < 100) {
    readings += 1;
    peers.read([['dead', 'x'], ['alive', String(readings)]]);
    abandoned = peers.takeAbandoned();
  }
  expect(abandoned).toEqual(['dead']);
  expect(readings).toBeGreaterThan(30);
  expect(peers.takeAbandoned()).toEqual([]);
  const crowd = Array.from({ length: GATEWAYS_MAX + 5 }, (_, index) => [`g${index}`, 'x'] as const);
  for (let round = 0; round < 60; round++) peers.read(crowd);
  expect(peers.takeAbandoned().length).toBeLessThanOrEqual(GATEWAYS_MAX);
});
