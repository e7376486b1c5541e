// Whose limits are is never silent: of all gateways together, or of each by itself.
import { createHash } from 'node:crypto';
import { pino } from 'pino';
import { afterEach, expect, test } from 'vitest';
import type { GatewayLimits } from '../src/gateway-limits.ts';
import { openLimits } from '../src/gateway-limits.ts';
import { createTelemetry } from '../src/telemetry/events.ts';
import { PROFILE, testConfig } from './fixtures/gateway-under-test.ts';

const opened: GatewayLimits[] = [];
afterEach(async () => {
  for (const limits of opened.splice(0)) await limits.close();
});

const config = (limits: string) => testConfig(`replicas: [{ id: r0, url: 'http://127.0.0.1:1', models: [m], profile: ${PROFILE} }]\ntenants: [{ name: acme, apiKeySha256: [${createHash('sha256').update('sk-acme').digest('hex')}]${limits} }]\n`);

test('limits that come with a reload where there is no store are said to be of this gateway alone, once', () => {
  const log = pino({ level: 'silent' });
  const warnings: string[] = [];
  const telemetry = { ...createTelemetry(log), warning: (message: string) => warnings.push(message) };
  const limits = openLimits(config(''), { now: () => 0, telemetry, log, gatewayId: 'g' });
  opened.push(limits);
  expect(warnings).toEqual([]);
  for (const more of [', weight: 2', ', limits: { requestsPerMinute: 10 }', ', limits: { requestsPerMinute: 20 }']) limits.reloaded(config(more));
  expect(warnings).toEqual([expect.stringContaining('of this gateway alone')]);
});
