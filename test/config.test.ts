import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { loadConfig, parseConfig, parsePolicy } from '../src/config.ts';
import { ConfigError } from '../src/config/config-problems.ts';
import { configJsonSchema } from '../src/config/config-schema.ts';

const MINIMAL = "replicas:\n  - id: r0\n    url: http://127.0.0.1:8000\n    models: [m]\n    profile: p.json\n";

function parse(text: string, environment: NodeJS.ProcessEnv = {}) {
  return parseConfig(text, { fileName: 'paceline.yaml', directory: '/etc/paceline', environment });
}

function problemsOf(text: string): readonly string[] {
  try {
    parse(text);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

test('the example is a valid configuration', () => {
  const config = loadConfig('config/paceline.example.yaml');
  expect(config.replicas[0]?.profilePath).toBe(`${process.cwd()}/config/profiles/llama-3.1-8b.h200.json`);
  expect(config.slo.default).toBe('standard');
  expect(config.planner.policy).toEqual({ kind: 'paceline' });
});

test('everything but the replicas has a default', () => {
  const config = parse(MINIMAL);
  expect(config.listen).toEqual({ host: '127.0.0.1', port: 8080 });
  expect(config.agent).toBeNull();
  expect(config.limits.bodyBytesMax).toBe(16 * 1024 * 1024);
  expect(config.replicas[0]).toMatchObject({ origin: 'http://127.0.0.1:8000', profilePath: '/etc/paceline/p.json', concurrencyMax: null, apiKey: null, devices: [] });
});

test('models may be a list of names or a map to the names the server knows', () => {
  expect([...(parse(MINIMAL).replicas[0]?.models ?? [])]).toEqual([['m', 'm']]);
  expect([...(parse(MINIMAL.replace('[m]', '{ m: org/m }')).replicas[0]?.models ?? [])]).toEqual([['m', 'org/m']]);
});

test("a replica's key comes from the environment, and a missing one is refused", () => {
  const text = `${MINIMAL}    apiKeyEnv: LLAMA_KEY\n`;
  expect(parse(text, { LLAMA_KEY: 'sk-1' }).replicas[0]?.apiKey).toBe('sk-1');
  expect(problemsOf(text)).toEqual(['paceline.yaml:6: replicas[0].apiKeyEnv: the environment has no LLAMA_KEY']);
});

const HASH = 'a'.repeat(64);
test.each([
  ['an unknown key, with its line and the known ones', `${MINIMAL}    modle: m\n`, /^paceline\.yaml:6: replicas\[0\]\.modle: unknown key; known: id, url, models, profile, devices, concurrencyMax, apiKeyEnv$/],
  ['an unknown key at the top', `${MINIMAL}agnet: {}\n`, /^paceline\.yaml:6: agnet: unknown key; known: listen, admin, replicas, agent,/],
  ['an unknown tier', `${MINIMAL}slo: { classes: { a: {} }, tiers: { gold: a } }\n`, /slo\.tiers\.gold: unknown key; known: auto, default, flex, priority/],
  ['an unknown key in a class', `${MINIMAL}slo:\n  classes:\n    a: { ttft: 5 }\n`, /^paceline\.yaml:8: slo\.classes\.a\.ttft: unknown key; known: ttftMs, tpotMs, e2eMs$/],
  ['a missing key', 'replicas:\n  - id: r0\n    url: http://h\n    models: [m]\n', /^paceline\.yaml:2: replicas\[0\]\.profile: missing; want a string$/],
  ['a wrong type', `${MINIMAL}listen: { port: eighty }\n`, /^paceline\.yaml:6: listen\.port: got "eighty", want a number$/],
  ['a number too big', `${MINIMAL}listen: { port: 70000 }\n`, /listen\.port: got 70000, want at most 65535$/],
  ['a number that is not whole', `${MINIMAL}listen: { port: 8.5 }\n`, /listen\.port: got 8\.5, want a whole number/],
  ['a negative objective', `${MINIMAL}slo: { classes: { a: { ttftMs: -5 } } }\n`, /slo\.classes\.a\.ttftMs: got -5, want more than 0$/],
  ['an url with a path', MINIMAL.replace(':8000', ':8000/v1'), /^paceline\.yaml:3: replicas\[0\]\.url: got "http:\/\/127\.0\.0\.1:8000\/v1", want an origin/],
  ['models that are neither list nor map', MINIMAL.replace('[m]', '7'), /replicas\[0\]\.models: got 7, want a list of model names, or a map/],
  ['a model name that is none', MINIMAL.replace('[m]', '[m, 7]'), /replicas\[0\]\.models\[1\]: got 7, want a string/],
  ['two replicas of one id', MINIMAL + MINIMAL.split('\n').slice(1).join('\n'), /^paceline\.yaml:6: replicas\[1\]\.id: the id 'r0' is already used$/],
  ['a device in two replicas', `${MINIMAL}    devices: ['sim:0', 'sim:0']\n`, /replicas\[0\]\.devices\[1\]: the device 'sim:0' is already used/],
  ['a default class that is not there', `${MINIMAL}slo: { default: fast, classes: { slow: {} } }\n`, /slo\.default: no class 'fast'; slo\.classes has: slow$/],
  ['a class for a model nobody serves', `${MINIMAL}slo: { classes: { a: {} }, models: { n: a } }\n`, /slo\.models\.n: no replica serves this model; there are: m$/],
  ['a class name that is built in', `${MINIMAL}slo: { classes: { custom: {} } }\n`, /slo\.classes\.custom: the name 'custom' is built in/],
  ['a key hash in upper case', `${MINIMAL}tenants: [{ name: a, apiKeySha256: [${HASH.toUpperCase()}] }]\n`, /tenants\[0\]\.apiKeySha256\[0\]: got "A{64}", want the 64 lower-case hex digits/],
  ['a key of two tenants', `${MINIMAL}tenants: [{ name: a, apiKeySha256: [${HASH}] }, { name: b, apiKeySha256: [${HASH}] }]\n`, /tenants\[1\]\.apiKeySha256\[0\]: the key with hash 'a{64}' is already used/],
  ['bounds that leave no room', `${MINIMAL}tenants: [{ name: a, apiKeySha256: [${HASH}], bounds: { ttftMs: { min: 9, max: 5 } } }]\n`, /tenants\[0\]\.bounds\.ttftMs: min 9 is above max 5/],
  ['a policy that is none', `${MINIMAL}planner: { policy: fastest }\n`, /planner\.policy: got "fastest", want 'paceline', 'max-clock' or 'static:'/],
  ['a key given twice', `${MINIMAL}listen: {}\nlisten: {}\n`, /^paceline\.yaml:7: Map keys must be unique/],
  ['no YAML', 'replicas: [\n', /^paceline\.yaml:2: /],
  ['an empty file', '', /^paceline\.yaml:1: replicas: missing; want a list$/],
  ['a file that is no map', '- 1\n', /^paceline\.yaml:1: \(the whole file\): got \[1\], want a map$/],
])('refuses %s', (_what, text, expected) => {
  const problems = problemsOf(text);
  expect(problems).toHaveLength(1);
  expect(problems[0]).toMatch(expected);
});

test('tells of every problem at once', () => {
  expect(problemsOf(`${MINIMAL}agnet: {}\nlisten: { port: -1, hots: x }\n`)).toHaveLength(3);
});

test('a file that cannot be read is a problem of the configuration', () => {
  expect(() => loadConfig('/nowhere/paceline.yaml')).toThrow(ConfigError);
});

test.each([
  ['paceline', { kind: 'paceline' }],
  ['max-clock', { kind: 'max-clock' }],
  ['static:clock-1290', { kind: 'static', pointId: 'clock-1290' }],
  ['static:', null],
  ['fastest', null],
])('reads the policy %s', (text, policy) => {
  expect(parsePolicy(text)).toEqual(policy);
});

test('the published JSON Schema is current (UPDATE_SCHEMAS=1 npx vitest run test/config writes it)', () => {
  const path = 'config/schemas/config.schema.json';
  const current = `${JSON.stringify(configJsonSchema(), null, 2)}\n`;
  if (process.env['UPDATE_SCHEMAS'] !== undefined) writeFileSync(path, current);
  expect(readFileSync(path, 'utf8')).toBe(current);
});
