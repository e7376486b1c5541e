import { expect, test } from 'vitest';
import type { SloConfig, TenantConfig } from '../../src/config.ts';
import { ANONYMOUS } from '../../src/config.ts';
import { readSlo } from '../../src/http/slo.ts';

const CONFIG: SloConfig = {
  default: 'standard',
  models: { llama: 'model-class' },
  classes: { standard: { ttftMs: 2000, tpotMs: 100 }, interactive: { ttftMs: 500, tpotMs: 50 }, batch: { e2eMs: 60_000 }, 'model-class': { ttftMs: 900 }, 'tenant-class': { ttftMs: 700 } },
  worths: { interactive: 3, batch: 0.2 },
  tiers: { priority: 'interactive', flex: 'batch' },
};
const ACME: TenantConfig = { ...ANONYMOUS, name: 'acme', sloClass: 'tenant-class', tiers: { flex: 'standard' }, bounds: { ttftMs: { min: 200, max: 5000 }, e2eMs: { max: 100_000 } } };

function read(headers: Record<string, string>, request: { model?: string; serviceTier?: string } = {}, tenant = ANONYMOUS, config = CONFIG) {
  return readSlo(headers, { model: request.model ?? 'm', serviceTier: request.serviceTier ?? null }, tenant, config);
}

test.each([
  ['the default', {}, {}, ANONYMOUS, 'standard', { ttftMs: 2000, tpotMs: 100 }],
  ['the model before the default', {}, { model: 'llama' }, ANONYMOUS, 'model-class', { ttftMs: 900 }],
  ['the tenant before the model', {}, { model: 'llama' }, ACME, 'tenant-class', { ttftMs: 700 }],
  ['the tier before the tenant', {}, { serviceTier: 'priority' }, ACME, 'interactive', { ttftMs: 500, tpotMs: 50 }],
  ["the tenant's own meaning of a tier", {}, { serviceTier: 'flex' }, ACME, 'standard', { ttftMs: 2000, tpotMs: 100 }],
  ['a tier without a class as nothing said', {}, { serviceTier: 'auto' }, ACME, 'tenant-class', { ttftMs: 700 }],
  ['a header before the tier, objective by objective', { 'x-slo-ttft-ms': '300' }, { serviceTier: 'priority' }, ANONYMOUS, 'custom', { ttftMs: 300, tpotMs: 50 }],
  ['the newer names', { 'x-llm-d-slo-ttft-ms': '300', 'x-llm-d-slo-tpot-ms': '40.5' }, {}, ANONYMOUS, 'custom', { ttftMs: 300, tpotMs: 40.5 }],
  ['what a program computes', { 'x-slo-tpot-ms': '17.23456789012345' }, {}, ANONYMOUS, 'custom', { ttftMs: 2000, tpotMs: 17.23456789012345 }],
  ['both names when they agree', { 'x-slo-ttft-ms': '300', 'x-llm-d-slo-ttft-ms': '300.0' }, {}, ANONYMOUS, 'custom', { ttftMs: 300, tpotMs: 100 }],
  ['a header sent twice with one value', { 'x-slo-ttft-ms': '300, 300' }, {}, ANONYMOUS, 'custom', { ttftMs: 300, tpotMs: 100 }],
  ['the least of objective and remaining budget', { 'x-slo-e2e-ms': '9000', 'x-request-deadline-ms': '4000' }, {}, ANONYMOUS, 'custom', { ttftMs: 2000, tpotMs: 100, e2eMs: 4000 }],
  ['a time to live that shortens', { 'x-slo-e2e-ms': '9000', 'x-llm-d-inference-ttl': '1.5s' }, {}, ANONYMOUS, 'custom', { ttftMs: 2000, tpotMs: 100, e2eMs: 1500 }],
  ['a time to live where there was no limit', { 'x-llm-d-inference-ttl': '1m30s' }, {}, ANONYMOUS, 'custom', { ttftMs: 2000, tpotMs: 100, e2eMs: 90_000 }],
  ['a time to live that would lengthen as nothing said', { 'x-llm-d-inference-ttl': '2h' }, { serviceTier: 'flex' }, ANONYMOUS, 'batch', { e2eMs: 60_000 }],
  ["an SDK's timeout as nothing said", { 'x-stainless-timeout': '0', 'x-stainless-read-timeout': '600' }, {}, ANONYMOUS, 'standard', { ttftMs: 2000, tpotMs: 100 }],
])('reads %s', (_what, headers, request, tenant, sloClass, slo) => {
  expect(read(headers as Record<string, string>, request, tenant)).toMatchObject({ kind: 'ok', slo, sloClass });
});

test('without any class a request is best effort', () => {
  expect(read({}, {}, ANONYMOUS, { default: null, models: {}, classes: {}, worths: {}, tiers: {} })).toEqual({ kind: 'ok', slo: {}, sloClass: 'best-effort', worth: 1 });
});

test('what it counts for is said by its class, also where headers ask for other objectives', () => {
  expect(read({}, { serviceTier: 'flex' })).toMatchObject({ sloClass: 'batch', worth: 0.2 });
  expect(read({ 'x-slo-ttft-ms': '300' }, { serviceTier: 'priority' })).toMatchObject({ sloClass: 'custom', worth: 3 });
  expect(read({}, {})).toMatchObject({ sloClass: 'standard', worth: 1 });
});

const MS = /want a number of milliseconds above 0, at most 86400000$/;
test.each([
  ['x-slo-ttft-ms', '', MS],
  ['x-slo-ttft-ms', '-5', MS],
  ['x-slo-ttft-ms', '0', MS],
  ['x-slo-ttft-ms', 'NaN', MS],
  ['x-slo-ttft-ms', 'Infinity', MS],
  ['x-slo-ttft-ms', '1e3', MS],
  ['x-slo-ttft-ms', '0x10', MS],
  ['x-slo-ttft-ms', '500ms', MS],
  ['x-slo-ttft-ms', '99999999999999999999', MS],
  ['x-slo-tpot-ms', '86400001', MS],
  ['x-slo-e2e-ms', ' ', MS],
  ['x-request-deadline-ms', 'soon', MS],
  ['x-slo-ttft-ms', '300, 400', /it was sent more than once, with different values$/],
  ['x-slo-ttft-ms', '300,', MS],
  ['x-llm-d-inference-ttl', '1500', /want a Go duration such as 1500ms/],
  ['x-llm-d-inference-ttl', '-1s', /want a Go duration/],
  ['x-llm-d-inference-ttl', '0s', /want a Go duration/],
  ['x-llm-d-inference-ttl', '25h', /want a Go duration/],
  ['x-llm-d-inference-ttl', '1s2', /want a Go duration/],
])('refuses %s: "%s" and never reads it as no deadline', (name, value, why) => {
  const reading = read({ [name]: value });
  expect(reading).toMatchObject({ kind: 'bad', param: name });
  if (reading.kind === 'bad') {
    expect(reading.message).toContain(`header ${name}: got '${value}'`);
    expect(reading.message).toMatch(why);
  }
});

test('refuses two names of one objective that disagree', () => {
  const reading = read({ 'x-slo-ttft-ms': '300', 'x-llm-d-slo-ttft-ms': '400' });
  expect(reading).toEqual({ kind: 'bad', param: 'x-llm-d-slo-ttft-ms', message: "header x-llm-d-slo-ttft-ms: got '400'; x-slo-ttft-ms says 300; send one of them, or the same in both" });
});

test.each([
  ['x-slo-ttft-ms', '199', "header x-slo-ttft-ms: got '199'; tenant 'acme' may ask for 200 to 5000 ms"],
  ['x-slo-ttft-ms', '5001', "header x-slo-ttft-ms: got '5001'; tenant 'acme' may ask for 200 to 5000 ms"],
  ['x-request-deadline-ms', '200000', "header x-request-deadline-ms: got '200000'; tenant 'acme' may ask for 0 to 100000 ms"],
  ['x-llm-d-inference-ttl', '200s', "header x-llm-d-inference-ttl: got '200s'; tenant 'acme' may ask for 0 to 100000 ms"],
])("refuses %s: %s outside its tenant's bounds", (name, value, message) => {
  expect(read({ [name]: value }, {}, ACME)).toEqual({ kind: 'bad', param: name, message });
});

test('allows the bounds themselves', () => {
  expect(read({ 'x-slo-ttft-ms': '200' }, {}, ACME)).toMatchObject({ kind: 'ok', slo: { ttftMs: 200 } });
});

test('refuses a tier that OpenAI does not have', () => {
  expect(read({}, { serviceTier: 'gold' })).toMatchObject({ kind: 'bad', param: 'service_tier', message: expect.stringMatching(/^service_tier: got 'gold', allowed: auto, default/) });
});

test('a tier called like something every object has is no tier', () => {
  expect(read({}, { serviceTier: 'constructor' })).toMatchObject({ kind: 'bad' });
});
