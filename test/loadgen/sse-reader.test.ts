import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createSseReader } from '../../src/loadgen/sse-reader.ts';

function read(chunks: readonly (string | Buffer)[], eventCharsMax = 1000): string[] {
  const events: string[] = [];
  const reader = createSseReader({ onData: (data) => events.push(data), eventCharsMax });
  for (const chunk of chunks) reader.push(Buffer.from(chunk as string));
  return events;
}

function cut(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts.map((place) => place % (bytes.length + 1)))].sort((one, other) => one - other);
  return [0, ...places].map((from, index) => bytes.subarray(from, places[index] ?? bytes.length));
}

test.each<{ name: string; text: string; events: string[] }>([
  { name: 'an event', text: 'data: one\n\n', events: ['one'] },
  { name: 'no space after the colon', text: 'data:one\n\n', events: ['one'] },
  { name: 'only one space is taken off', text: 'data:  one\n\n', events: [' one'] },
  { name: 'several data lines', text: 'data: one\ndata: two\n\n', events: ['one\ntwo'] },
  { name: 'comments and other fields', text: ': keep-alive\n\nevent: x\nid: 4\nretry: 5\ndata: one\n: more\n\n', events: ['one'] },
  { name: 'empty data', text: 'data\n\ndata:\n\n', events: ['', ''] },
  { name: 'a field that only starts like data', text: 'database: one\n\n', events: [] },
  { name: 'CRLF', text: 'data: one\r\n\r\ndata: two\r\n\r\n', events: ['one', 'two'] },
  { name: 'CR alone', text: 'data: one\r\rdata: two\r\r', events: ['one', 'two'] },
  { name: 'a byte order mark', text: '\uFEFFdata: one\n\n', events: ['one'] },
  { name: 'an event without its blank line is dropped', text: 'data: one\n\ndata: two\n', events: ['one'] },
])('$name', ({ text, events }) => {
  expect(read([text])).toEqual(events);
  expect(read([...Buffer.from(text)].map((byte) => Buffer.from([byte])))).toEqual(events);
});

test('wherever the bytes are cut, the same events come out', () => {
  // Texts with characters of one to four bytes; line ends are what separates, so they are not part of a text.
  const text = fc.string({ unit: 'binary', maxLength: 12 }).map((raw) => raw.replaceAll(/[\r\n\uFEFF\uD800-\uDFFF]/g, 'é𝄞'));
  const block = fc.record({ lines: fc.array(text, { minLength: 1, maxLength: 3 }), comment: fc.option(text), end: fc.constantFrom('\n', '\r\n', '\r') });
  fc.assert(
    fc.property(fc.array(block, { maxLength: 8 }), fc.array(fc.nat(500), { maxLength: 20 }), (blocks, cuts) => {
      const bytes = Buffer.from(blocks.map(({ lines, comment, end }) => [...(comment === null ? [] : [`:${comment}`]), ...lines.map((line) => `data: ${line}`), '', ''].join(end)).join(''));
      expect(read(cut(bytes, cuts))).toEqual(blocks.map(({ lines }) => lines.join('\n')));
    }),
    { numRuns: 500 },
  );
});

test('cut bytes of anything at all give what uncut ones give', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom('d', 'data', ':', ' ', '\r', '\n', '\r\n', 'x', 'é', ': c', 'data: '), { maxLength: 40 }), fc.array(fc.nat(200), { maxLength: 10 }), (parts, cuts) => {
      const bytes = Buffer.from(parts.join(''));
      expect(read(cut(bytes, cuts))).toEqual(read([bytes]));
    }),
    { numRuns: 1000 },
  );
});

test.each([
  { name: 'one endless line', chunks: Array.from({ length: 100 }, () => 'x'.repeat(50)) },
  { name: 'endless lines of one event', chunks: Array.from({ length: 100 }, () => 'data: 0123456789012345\n') },
])('$name is refused', ({ chunks }) => {
  expect(() => read(chunks)).toThrow('an event of more than 1000 characters');
});
