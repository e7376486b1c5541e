// The rules of ARCHITECTURE.md as an ordinary test: what each part may import, and what the deciding parts never touch.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';

const SRC = resolve(import.meta.dirname, '../src');
const FILES = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => ({ name, part: name.includes('/') ? (name.split('/')[0] as string) : '.', text: readFileSync(join(SRC, name), 'utf8') }));

/** Part → parts that it may import. What is not listed imports what it likes. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  frontier: [],
  core: ['frontier'],
  scheduler: ['core', 'frontier'],
  random: [],
  statistics: [],
  'cold-start': ['frontier'],
  plot: [],
  profiler: ['frontier', 'frontier-view', 'plot', 'agent', 'loadgen', 'upstream'],
  'frontier-view': ['frontier', 'plot'],
  dashboard: ['core', 'scheduler', 'frontier', 'frontier-view', 'plot'],
  engine: ['frontier', 'core', 'random', 'make-directory.ts'],
  workload: ['core', 'random'],
  simulator: ['scheduler', 'core', 'frontier', 'engine', 'workload', 'statistics', 'random'],
  // The request's way in: http → runtime → scheduler. Config only for its types and its SLO tables.
  http: ['core', 'scheduler', 'frontier', 'telemetry', 'config', 'config.ts', 'runtime.ts', 'json-members.ts', 'workflow-document.ts'],
  upstream: ['core', 'scheduler', 'frontier', 'telemetry'],
  agent: ['core', 'scheduler', 'frontier', 'telemetry', 'bounded-text.ts', 'token-file.ts'],
  store: ['core', 'scheduler', 'frontier', 'telemetry'],
  accounts: ['make-directory.ts'],
  batch: ['core', 'scheduler', 'frontier', 'telemetry', 'make-directory.ts', 'json-members.ts'],
  telemetry: ['core', 'scheduler', 'frontier'],
  probes: ['config'],
  signals: ['config/file-watch.ts', 'bounded-text.ts', 'token-file.ts'],
  config: ['core', 'scheduler', 'frontier', 'config.ts', 'store/redis-target.ts', 'signals/series-source.ts'],
  'agent-stand-in': ['engine', 'core'],
  loadgen: ['workload', 'core', 'random', 'statistics'],
  compare: ['loadgen', 'workload', 'core', 'random', 'statistics', 'plot', 'agent', 'demo/children.ts'],
};

function importsOf({ name, text }: (typeof FILES)[number]): string[] {
  return [...text.matchAll(/(?:from|import\()\s*'([^']+)'/g)].map(([, target = '']) => (target.startsWith('.') ? relative(SRC, resolve(SRC, dirname(name), target)) : target));
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
}

describe('imports point one way', () => {
  test.each(Object.entries(MAY_IMPORT))('%s imports only what it may', (part, allowed) => {
    const wrong = FILES.filter((file) => file.part === part).flatMap((file) =>
      importsOf(file)
        .filter((target) => target.endsWith('.ts') && !target.startsWith(`${part}/`) && !allowed.some((other) => target === other || target.startsWith(`${other}/`)))
        .map((target) => `${file.name} -> ${target}`),
    );
    expect(wrong).toEqual([]);
  });
});

describe('the deciding parts', () => {
  const deciding = FILES.filter(({ part }) => ['frontier', 'core', 'scheduler'].includes(part));

  test('never read the time, randomness, files or sockets, and never wait', () => {
    const forbidden = /\bDate\b|performance\.now|Math\.random|\bawait\b|\basync\b|\bsetTimeout|\bsetInterval|\bprocess\.|\bfetch\(|\bconsole\./;
    expect(deciding.filter(({ text }) => forbidden.test(withoutComments(text))).map(({ name }) => name)).toEqual([]);
  });

  test('import no package, and of Node only assertions', () => {
    const packages = deciding.flatMap((file) => importsOf(file).filter((target) => !target.endsWith('.ts') && target !== 'node:assert/strict').map((target) => `${file.name} -> ${target}`));
    expect(packages).toEqual([]);
  });

  test('know no knob by its name', () => {
    // What a group may draw bounds all of its points; it is no knob of one.
    const bare = (text: string): string => withoutComments(text.replace(/readonly actualClockMhz.*\n/, '')).replaceAll('powerLimitW', '');
    expect(deciding.filter(({ text }) => /clockMhz|clock_mhz|powerLimit/.test(bare(text))).map(({ name }) => name)).toEqual([]);
  });
});

test('every file says on its first line what it is for', () => {
  expect(FILES.filter(({ text }) => !/^(#!.*\n)?\/\/ \S/.test(text)).map(({ name }) => name)).toEqual([]);
});

test('there are no index files and no default exports', () => {
  expect(FILES.filter(({ name, text }) => /(^|\/)index\.ts$/.test(name) || /^export default/m.test(text)).map(({ name }) => name)).toEqual([]);
});

test('only one file turns outcomes into an error status and body', () => {
  const writers = FILES.filter(({ part, text }) => part === 'http' && /writeHead\((4|5)\d\d|status\((4|5)\d\d/.test(text)).map(({ name }) => name);
  expect(writers.filter((name) => name !== 'http/error-response.ts')).toEqual([]);
});
