// docs/metrics.md is the gateway's own list of its metrics.
import { readFileSync, writeFileSync } from 'node:fs';
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { createTelemetry } from '../../src/telemetry/events.ts';
import { createRegistry } from '../../src/telemetry/registry.ts';

const PATH = 'docs/metrics.md';

test('docs/metrics.md has every metric that a gateway tells, and no other (UPDATE_SCHEMAS=1 npx vitest run test/telemetry writes it)', () => {
  const registry = createRegistry();
  createTelemetry(pino({ level: 'silent' }), null, registry);
  const rows = registry.declared().map(({ name, type, labels = [], help }) => `| \`${name}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(', ')} | ${help.replaceAll('|', '\\|')} |\n`);
  const current = `# Metrics

What \`/metrics\` tells ([how to scrape it, rules, dashboard](telemetry.md)). A metric has series once there was something to tell. Beyond a
thousand combinations of labels the rest of a metric is one series, \`other\`. Joules of requests are estimates: devices are shared.

| metric | type | labels | |
|---|---|---|---|
${rows.join('')}`;
  if (process.env['UPDATE_SCHEMAS'] !== undefined) writeFileSync(PATH, current);
  expect(rows.length).toBeGreaterThan(50);
  expect(readFileSync(PATH, 'utf8')).toBe(current);
});
