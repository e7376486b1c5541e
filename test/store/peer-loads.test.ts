import { expect, test } from 'vitest';
import type { ReplicaId } from '../../src/core/job.ts';
import type { PeerLoads, ReplicaLoads } from '../../src/store/peer-loads.ts';
import { ABANDONED_READINGS, GATEWAYS_MAX, REPLICAS_MAX, SILENT_BEATS_MAX, TEXT_CHARACTERS_MAX, createPeerLoads, publishedText } from '../../src/store/peer-loads.ts';

function loads(of: Record<string, readonly [running: number, waiting: number]>): ReplicaLoads {
  return new Map(Object.entries(of).map(([replicaId, [running, waiting]]) => [replicaId as ReplicaId, { running, waiting }]));
}
/** What peers wrote, one reading per beat: `texts[beat][field]`. */
function afterReading(texts: readonly Record<string, string>[]): PeerLoads {
  const peers = createPeerLoads('me');
  texts.forEach((fields, beat) => peers.read(Object.entries(fields), true, beat));
  return peers;
}
const text = (count: number, of: Parameters<typeof loads>[0] = { r0: [3, 1] }) => publishedText(count, loads(of));

test('what is written is what is read, without idle replicas', () => {
  const peers = afterReading([{ a: text(1) }, { a: text(2, { r0: [3, 1], r1: [0, 0], r2: [0, 7] }) }]);
  expect(peers.sum(1)).toEqual({ gateways: 1, loads: loads({ r0: [3, 1], r2: [0, 7] }) });
});

test('the loads of several gateways add up, ours left out', () => {
  const peers = afterReading([{ me: text(1), a: text(1), b: text(1) }, { me: text(2), a: text(2), b: text(2, { r0: [1, 1], r1: [2, 0] }) }]);
  expect(peers.sum(1)).toEqual({ gateways: 2, loads: loads({ r0: [4, 2], r1: [2, 0] }) });
});

test('a field that a killed gateway left behind is never counted', () => {
  const peers = afterReading([{ a: text(1) }, { a: text(1) }, { a: text(1) }]);
  expect(peers.sum(2)).toEqual({ gateways: 0, loads: new Map() });
});

test.each([
  { beat: SILENT_BEATS_MAX, gateways: 1 },
  { beat: SILENT_BEATS_MAX + 1, gateways: 0 },
])('after its last word at beat 1 a gateway is counted $gateways times at beat $beat', ({ beat, gateways }) => {
  const peers = afterReading([{ a: text(1) }, { a: text(2) }, { a: text(2) }, { a: text(2) }]);
  expect(peers.sum(beat).gateways).toBe(gateways);
});

test('a gateway that was silent is counted again with its next word', () => {
  const peers = afterReading([{ a: text(1) }, { a: text(2) }, {}, {}]);
  peers.read([['a', text(3)]], true, 20);
  peers.read([['a', text(4)]], true, 21);
  expect(peers.sum(21).gateways).toBe(1);
});

test('a gateway that took its field back is gone at once', () => {
  expect(afterReading([{ a: text(1) }, { a: text(2) }, {}]).sum(2).gateways).toBe(0);
});

test('one that is merely missing from a part of the fields is not', () => {
  const peers = afterReading([{ a: text(1) }, { a: text(2) }]);
  peers.read([], false, 2);
  expect(peers.sum(2).gateways).toBe(1);
});

test.each([
  { name: 'no JSON', wrong: 'hello' },
  { name: 'of another shape', wrong: '{"count":1,"loads":[1]}' },
  { name: 'a negative count', wrong: '{"count":1,"loads":{"r0":[-1,0]}}' },
  { name: 'a count that is no whole number', wrong: '{"count":1,"loads":{"r0":[1.5,0]}}' },
  { name: 'a count beyond belief', wrong: '{"count":1,"loads":{"r0":[1e9,0]}}' },
  { name: 'too long', wrong: text(1).padEnd(TEXT_CHARACTERS_MAX + 1) },
])('a value that is not a gateway\'s adds nothing: $name', ({ wrong }) => {
  expect(afterReading([{ a: text(1), b: text(1) }, { a: wrong, b: text(2) }]).sum(1).loads).toEqual(loads({ r0: [3, 1] }));
});

test('an abandoned field is named once, a written one never', () => {
  const peers = createPeerLoads('me');
  for (let beat = 0; beat < ABANDONED_READINGS; beat++) peers.read([['dead', text(1)], ['alive', text(beat)]], true, beat);
  expect(peers.takeAbandoned()).toEqual([]);
  peers.read([['dead', text(1)], ['alive', text(-1)]], true, ABANDONED_READINGS);
  expect(peers.takeAbandoned()).toEqual(['dead']);
  expect(peers.takeAbandoned()).toEqual([]);
});

test('gateways are bounded, and those beyond are said to be left out', () => {
  const fields = (count: number) => Array.from({ length: GATEWAYS_MAX + 1 }, (_, number) => [`g${number}`, text(count)] as const);
  const peers = createPeerLoads('me');
  peers.read(fields(1).slice(1), false, 0);
  expect(peers.overflowing()).toBe(false);
  peers.read(fields(2), false, 1);
  expect(peers.overflowing()).toBe(true);
  expect(peers.sum(1).gateways).toBe(GATEWAYS_MAX);
});

test('a text is bounded, by its busiest replicas', () => {
  const many = loads(Object.fromEntries(Array.from({ length: REPLICAS_MAX + 1 }, (_, number) => [`${number}`.padStart(64, 'r'), [1_000_000, 2_000_000 + (number === 0 ? -1_500_000 : 0)]] as const)));
  const written = publishedText(Number.MAX_SAFE_INTEGER, many);
  expect(written.length).toBeLessThanOrEqual(TEXT_CHARACTERS_MAX);
  const read = afterReading([{ a: text(1) }, { a: written }]).sum(1).loads;
  expect(read.size).toBe(REPLICAS_MAX);
  expect(read.has('0'.padStart(64, 'r') as ReplicaId)).toBe(false);
});
