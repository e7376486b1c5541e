import { expect, test } from 'vitest';
import { escaped } from '../../src/plot/escape.ts';
import { page, type Page } from '../../src/plot/page.ts';

const PAGE: Page = {
  title: 'A <report>',
  lead: 'of "today"',
  sections: [
    {
      heading: 'Figures & more',
      parts: [
        { kind: 'text', text: 'a < b' },
        { kind: 'figures', figures: [{ name: 'saved', value: '12 %', note: 'of max' }] },
        { kind: 'figure', svg: '<svg></svg>', caption: 'c', table: { columns: ['x'], rows: [[1], [null], ['<i>']] } },
        { kind: 'table', columns: ['n', 'm'], rows: [['k', 1234.5]] },
      ],
    },
  ],
};

test('a page is whole in itself: nothing is fetched and nothing runs', () => {
  const html = page(PAGE);
  expect(html).not.toMatch(/<script|<link|<img|src=|url\(|@import|https?:/);
  expect(html).toContain("default-src 'none'");
});

test('a page escapes what it is given and says what was not measured', () => {
  const html = page(PAGE);
  expect(html).toContain('<title>A &lt;report&gt;</title>');
  expect(html).toContain('<td>&lt;i&gt;</td>');
  expect(html).toContain('<td class="none">not measured</td>');
  expect(html).toContain('<td class="number">1\u202f235</td>');
});

test('the same values give the same bytes', () => {
  expect(page(PAGE)).toBe(page(structuredClone(PAGE)));
});

test('a name with control characters made a picture that no XML reader takes', () => {
  expect(escaped('a\u0001\u001b[31m<\n\ud800b')).toBe('a\ufffd\ufffd[31m&lt;\n\ufffdb');
});
