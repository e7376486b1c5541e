// Documents that name tests and files as their evidence name ones that are there.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';

const DOCUMENTS = ['SECURITY.md', 'docs/complaints.md', 'ARCHITECTURE.md', 'deploy/README.md'];

test.each(DOCUMENTS)('every test that %s names is there', (document) => {
  const named = [...readFileSync(document, 'utf8').matchAll(/`(test\/[A-Za-z0-9./-]+)`/g)].map(([, path = '']) => path);
  expect(named.filter((path) => !existsSync(path))).toEqual([]);
  if (document !== 'deploy/README.md') expect(named.length).toBeGreaterThan(5);
});

test.each([...DOCUMENTS, 'README.md'])('every file that %s links to is there', (document) => {
  const linked = [...readFileSync(document, 'utf8').matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, path = '']) => join(dirname(document), path));
  if (['README.md', 'SECURITY.md'].includes(document)) expect(linked.length).toBeGreaterThan(2);
  expect(linked.filter((path) => !existsSync(path))).toEqual([]);
});
