// Documents that name tests and files as their evidence name ones that are there.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';

const DOCUMENTS = ['SECURITY.md', 'docs/complaints.md', 'ARCHITECTURE.md', 'deploy/README.md'];

test.each(DOCUMENTS)('every test that %s names is there', (document) => {
  const named = [...readFileSync(document, 'utf8').matchAll(/`(test\/[A-Za-z0-9./-]+)`/g)].map(([, path = '']) => path);
  expect(named.filter((path) => !existsSync(path))).toEqual([]);
  if (document !== 'deploy/README.md') expect(named.length).toBeGreaterThan(5);
});

test.each(['README.md', 'SECURITY.md', 'bench/README.md', 'deploy/README.md', ...readdirSync('docs').filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)])('every file that %s links to is there', (document) => {
  const linked = [...readFileSync(document, 'utf8').matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, path = '']) => join(dirname(document), path));
  expect(linked.length).toBeGreaterThan(0);
  expect(linked.filter((path) => !existsSync(path))).toEqual([]);
});

test('every title of a test in quotation marks that docs/complaints.md names is there', () => {
  const tests = readdirSync('test', { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts') && !path.includes('node_modules'));
  const sources = tests.filter((path) => path !== 'docs.test.ts').map((path) => readFileSync(join('test', path), 'utf8'));
  const named = readFileSync('docs/complaints.md', 'utf8').split('\n').filter((line) => /^\| \d/.test(line)).flatMap((row) => row.split('"').filter((_, index) => index % 2 === 1));
  expect(named.length).toBeGreaterThan(20);
  expect(named.filter((title) => !sources.some((source) => source.includes(title.replace(/ ?…$/, ''))))).toEqual([]);
});
