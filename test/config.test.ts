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
  expect(config.listen).toEqual({ address: { kind: 'port', host: '127.0.0.1', port: 8080 }, tls: null, http2: true });
  expect(config.agents).toEqual([]);
  expect(config.limits.bodyBytesMax).toBe(16 * 1024 * 1024);
  expect(config.replicas[0]).toMatchObject({ origin: 'http://127.0.0.1:8000', profilePath: '/etc/paceline/p.json', concurrencyMax: null, apiKey: null, devices: [] });
});

test('a listener may be a Unix socket and have a certificate, both relative to the file', () => {
  expect(parse(`${MINIMAL}listen: { socket: run/g.sock, tls: { certFile: c.pem, keyFile: /keys/k.pem }, http2: false }\n`).listen).toEqual({
    address: { kind: 'socket', path: '/etc/paceline/run/g.sock', mode: 0o660 },
    tls: { certPath: '/etc/paceline/c.pem', keyPath: '/keys/k.pem' },
    http2: false,
  });
  expect(parse(`${MINIMAL}listen: { socket: ${'s'.repeat(93)}, socketMode: '600' }\n`).listen.address).toMatchObject({ mode: 0o600 });
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

const TWO_AGENTS = `agents:\n  a: { socket: a.sock }\n  b: { kind: zeusd, socket: z.sock }\n${MINIMAL}`;
const REPLICA_ON_A = "  - { id: r1, url: 'http://127.0.0.1:8001', models: [m], profile: p.json, agent: a, devices: ['sim:0'] }\n";

test('agents are several, by name, or one without; what they do not say has a default', () => {
  expect(parse(`${MINIMAL}agent: { socket: a.sock }\n`).agents).toEqual([{ name: 'agent', kind: 'paceline', address: { kind: 'socket', path: '/etc/paceline/a.sock' }, ttlMs: 3000 }]);
  const config = parse(`agents:\n  a: { url: 'http://127.0.0.1:9501/', tokenFile: a.token, ttlMs: 5000 }\n  b: { kind: zeusd, socket: /run/zeusd.sock }\n${MINIMAL}    agent: b\n    devices: ['zeusd:0']\n${REPLICA_ON_A}`);
  expect(config.agents).toEqual([
    { name: 'a', kind: 'paceline', address: { kind: 'tcp', origin: 'http://127.0.0.1:9501', tokenPath: '/etc/paceline/a.token' }, ttlMs: 5000 },
    { name: 'b', kind: 'zeusd', address: { kind: 'socket', path: '/run/zeusd.sock' }, watchdogMs: 2000, lowestClockMhz: null },
  ]);
  expect(config.replicas.map(({ agent }) => agent)).toEqual(['b', 'a']);
});

test('two nodes may have a device of one name, and the only agent need not be named', () => {
  const config = parse(`agents:\n  a: { socket: a.sock }\n  b: { socket: b.sock }\n${MINIMAL}    agent: b\n    devices: ['sim:0']\n${REPLICA_ON_A}`);
  expect(config.replicas.map(({ agent, devices }) => [agent, devices])).toEqual([['b', ['sim:0']], ['a', ['sim:0']]]);
  expect(parse(`agents: { a: { socket: a.sock } }\n${MINIMAL}    devices: ['sim:0']\n`).replicas[0]?.agent).toBe('a');
});

test('power budgets are watts or a series of them, over the fleet, some replicas or the nodes of some agents', () => {
  const config = parse(`${MINIMAL}    devices: ['sim:0']\nagent: { socket: a.sock }\npower:\n  budgets:\n    - { name: all, watts: 5000 }\n    - { name: rack, schedule: { file: rack.json, onStale: { watts: 900 } }, over: { replicas: [r0] } }\n    - { name: node, schedule: { url: 'https://grid.test/budget?of=1', tokenFile: t, everyMs: 5000 }, over: { agents: [agent] } }\n  prices: { file: p.csv }\n`);
  expect(config.power).toEqual({
    budgets: [
      { name: 'all', watts: { kind: 'fixed', watts: 5_000 }, over: { kind: 'fleet' } },
      { name: 'rack', watts: { kind: 'schedule', signal: { place: { kind: 'file', path: '/etc/paceline/rack.json' }, staleAfterMs: 900_000 }, fallbackW: 900 }, over: { kind: 'replicas', replicaIds: ['r0'] } },
      {
        name: 'node',
        watts: { kind: 'schedule', signal: { place: { kind: 'http', url: 'https://grid.test/budget?of=1', tokenPath: '/etc/paceline/t', everyMs: 5_000, timeoutMs: 10_000 }, staleAfterMs: 900_000 }, fallbackW: null },
        over: { kind: 'agents', agents: ['agent'] },
      },
    ],
    prices: { place: { kind: 'file', path: '/etc/paceline/p.csv' }, staleAfterMs: 900_000 },
  });
  expect(parse(MINIMAL).power).toEqual({ budgets: [], prices: null });
});

test('what a class is worth stands beside its objectives', () => {
  expect(parse(`${MINIMAL}slo: { classes: { a: { ttftMs: 5, worth: 3 }, b: {} } }\n`).slo).toMatchObject({ classes: { a: { ttftMs: 5 }, b: {} }, worths: { a: 3, b: 1 } });
});

const HASH = 'a'.repeat(64);
const budget = (text: string): string => `${MINIMAL}power: { budgets: [${text}] }\n`;
test.each([
  ['settings of what has no profile', `replicas:\n  - { id: a, url: 'http://127.0.0.1:1', models: [m], profile: { learn: { clocksMhz: [300, 600] } }, settings: { degree: 2 } }\n`, /settings: they choose one of the configurations of a profile, and `profile.learn` says that there is none/],
  ['a cap learnt without a meter', `${MINIMAL}planner: { batchCap: learn }\n`, /planner\.batchCap: got 'learn', and there is no agent: it learns by what the devices' counters say/],
  ['an unknown key, with its line and the known ones', `${MINIMAL}    modle: m\n`, /^paceline\.yaml:6: replicas\[0\]\.modle: unknown key; known: id, url, models, profile, settings, devices, agent, concurrencyMax, sleep, apiKeyEnv, asksUsage, priority$/],
  ['an unknown key at the top', `${MINIMAL}agnet: {}\n`, /^paceline\.yaml:6: agnet: unknown key; known: listen, admin, probes, replicas, agent,/],
  ['an unknown tier', `${MINIMAL}slo: { classes: { a: {} }, tiers: { gold: a } }\n`, /slo\.tiers\.gold: unknown key; known: auto, default, flex, priority/],
  ['an unknown key in a class', `${MINIMAL}slo:\n  classes:\n    a: { ttft: 5 }\n`, /^paceline\.yaml:8: slo\.classes\.a\.ttft: unknown key; known: ttftMs, tpotMs, e2eMs, worth$/],
  ['a missing key', 'replicas:\n  - id: r0\n    url: http://h\n    models: [m]\n', /^paceline\.yaml:2: replicas\[0\]\.profile: got nothing, want the path of a profile, or \{ learn: \{\} \} where there is none$/],
  ['a wrong type', `${MINIMAL}listen: { port: eighty }\n`, /^paceline\.yaml:6: listen\.port: got "eighty", want a number$/],
  ['a number too big', `${MINIMAL}listen: { port: 70000 }\n`, /listen\.port: got 70000, want at most 65535$/],
  ['a number that is not whole', `${MINIMAL}listen: { port: 8.5 }\n`, /listen\.port: got 8\.5, want a whole number/],
  ['a negative objective', `${MINIMAL}slo: { classes: { a: { ttftMs: -5 } } }\n`, /slo\.classes\.a\.ttftMs: got -5, want more than 0$/],
  ['an url with a path', MINIMAL.replace(':8000', ':8000/v1'), /^paceline\.yaml:3: replicas\[0\]\.url: got "http:\/\/127\.0\.0\.1:8000\/v1", want an origin/],
  ['models that are neither list nor map', MINIMAL.replace('[m]', '7'), /replicas\[0\]\.models: got 7, want a list of model names, or a map/],
  ['a model name that is none', MINIMAL.replace('[m]', '[m, 7]'), /replicas\[0\]\.models\[1\]: got 7, want a string/],
  ['two replicas of one id', MINIMAL + MINIMAL.split('\n').slice(1).join('\n'), /^paceline\.yaml:6: replicas\[1\]\.id: the id 'r0' is already used$/],
  ['a device in both groups of a server', `${MINIMAL}    devices: { prefill: ['sim:0'], decode: ['sim:1', 'sim:0'] }\n`, /replicas\[0\]\.devices\.decode\[1\]: the device 'sim:0' is already used/],
  ['devices that are neither', `${MINIMAL}    devices: sim:0\n`, /replicas\[0\]\.devices: .*want a list of devices, or \{ prefill: \[\.\.\.\], decode: \[\.\.\.\] \}/],
  ['one group of devices without the other', `${MINIMAL}    devices: { prefill: ['sim:0'] }\n`, /replicas\[0\]\.devices\.decode: missing; want a list$/],
  ['a device in two replicas', `${MINIMAL}    devices: ['sim:0', 'sim:0']\n`, /replicas\[0\]\.devices\[1\]: the device 'sim:0' is already used/],
  ['a default class that is not there', `${MINIMAL}slo: { default: fast, classes: { slow: {} } }\n`, /slo\.default: no class 'fast'; slo\.classes has: slow$/],
  ['a budget that is neither watts nor a schedule', budget('{ name: a }'), /power\.budgets\[0\]: got neither, want either watts or a schedule$/],
  ['a budget that is both', budget('{ name: a, watts: 1, schedule: { file: f } }'), /power\.budgets\[0\]: got both, want either watts or a schedule$/],
  ['a budget of nothing', budget('{ name: a, watts: 0 }'), /power\.budgets\[0\]\.watts: got 0, want more than 0$/],
  ['two budgets of one name', budget('{ name: a, watts: 1 }, { name: a, watts: 2 }'), /power\.budgets\[1\]\.name: the name 'a' is already used$/],
  ['a budget over a replica that is not there', budget('{ name: a, watts: 1, over: { replicas: [r0, r9] } }'), /power\.budgets\[0\]\.over\.replicas\[1\]: no replica 'r9'; there are: r0$/],
  ['a budget over nothing', budget('{ name: a, watts: 1, over: { replicas: [] } }'), /power\.budgets\[0\]\.over\.replicas: /],
  ['a budget over an agent that is not there', budget('{ name: a, watts: 1, over: { agents: [b] } }'), /power\.budgets\[0\]\.over\.agents\[0\]: no agent 'b'; there are: none$/],
  ['a budget over an agent without replicas', `${budget('{ name: a, watts: 1, over: { agents: [agent] } }')}agent: { socket: a.sock }\n`, /power\.budgets\[0\]\.over\.agents\[0\]: no replica is on the agent 'agent'; nothing would be under this budget$/],
  ['a budget over what is none of these', budget('{ name: a, watts: 1, over: rack }'), /power\.budgets\[0\]\.over: .*want 'fleet', \{ replicas: \[\.\.\.\] \} or \{ agents: \[\.\.\.\] \}/],
  ['a schedule of a file that is asked', budget('{ name: a, schedule: { file: f, everyMs: 1000 } }'), /power\.budgets\[0\]\.schedule\.everyMs: only with a url; a file is looked at every second$/],
  ['a schedule of nothing', budget('{ name: a, schedule: {} }'), /power\.budgets\[0\]\.schedule: got neither, want either file or url$/],
  ['an address with a user', `${MINIMAL}power: { prices: { url: 'https://me:secret@grid.test/' } }\n`, /power\.prices\.url: .*want http:\/\/ or https:\/\/, without a user or a fragment/],
  ['an unknown key of a schedule', budget('{ name: a, schedule: { path: f } }'), /power\.budgets\[0\]\.schedule\.path: unknown key; known: file, url, tokenFile, everyMs, timeoutMs, staleAfterMs, onStale$/],
  ['a class worth nothing', `${MINIMAL}slo: { classes: { a: { worth: 0 } } }\n`, /slo\.classes\.a\.worth: got 0, want at least 0\.01$/],
  ['a class for a model nobody serves', `${MINIMAL}slo: { classes: { a: {} }, models: { n: a } }\n`, /slo\.models\.n: no replica serves this model; there are: m$/],
  ['a class name that is built in', `${MINIMAL}slo: { classes: { custom: {} } }\n`, /slo\.classes\.custom: the name 'custom' is built in/],
  ['a key hash in upper case', `${MINIMAL}tenants: [{ name: a, apiKeySha256: [${HASH.toUpperCase()}] }]\n`, /tenants\[0\]\.apiKeySha256\[0\]: got "A{64}", want the 64 lower-case hex digits/],
  ['a key of two tenants', `${MINIMAL}tenants: [{ name: a, apiKeySha256: [${HASH}] }, { name: b, apiKeySha256: [${HASH}] }]\n`, /tenants\[1\]\.apiKeySha256\[0\]: the key with hash 'a{64}' is already used/],
  ['a model of a tenant that nobody serves', `${MINIMAL}tenants: [{ name: a, apiKeySha256: [${HASH}], models: [other] }]\n`, /tenants\[0\]\.models\[0\]: no replica serves 'other'; there are: /],
  ['bounds that leave no room', `${MINIMAL}tenants: [{ name: a, apiKeySha256: [${HASH}], bounds: { ttftMs: { min: 9, max: 5 } } }]\n`, /tenants\[0\]\.bounds\.ttftMs: min 9 is above max 5/],
  ['an alias of a model that nobody serves', `${MINIMAL}models: { a: { aliasOf: n } }\n`, /^paceline\.yaml:6: models\.a\.aliasOf: no replica serves 'n'; there are: m$/],
  ['an alias of an alias', `${MINIMAL}models: { a: { aliasOf: m }, b: { aliasOf: a } }\n`, /models\.b\.aliasOf: no replica serves 'a'; there are: m$/],
  ['an alias with the name of a model', `${MINIMAL}models: { m: { aliasOf: m } }\n`, /models\.m: a replica serves a model of this name; an alias is another one$/],
  ['an alias with fallbacks', `${MINIMAL}models: { a: { aliasOf: m, fallbacks: [m] } }\n`, /models\.a: got both, want either aliasOf or fallbacks/],
  ['a name that stands for nothing', `${MINIMAL}models: { a: {} }\n`, /models\.a: got neither, want either aliasOf or fallbacks/],
  ['a fallback that nobody serves', `${MINIMAL}models: { m: { fallbacks: [n] } }\n`, /models\.m\.fallbacks\[0\]: no replica serves 'n'; there are: m$/],
  ['a fallback to the model itself', `${MINIMAL}models: { m: { fallbacks: [m] } }\n`, /models\.m\.fallbacks\[0\]: it is the model itself$/],
  ['a fallback twice', `${MINIMAL.replace('[m]', '[m, n]')}models: { m: { fallbacks: [n, n] } }\n`, /models\.m\.fallbacks\[1\]: 'n' is there already$/],
  ['fallbacks of a model that nobody serves', `${MINIMAL}models: { n: { fallbacks: [m] } }\n`, /models\.n: no replica serves this model; there are: m$/],
  ['more than ten fallbacks', `${MINIMAL}models: { m: { fallbacks: [a, b, c, d, e, f, g, h, i, j, k] } }\n`, /models\.m\.fallbacks: /],
  ['a breaker that opens by nothing', `${MINIMAL}health: { breaker: { failuresMax: 0 } }\n`, /health\.breaker\.failuresMax: got 0, want at least 1$/],
  ['a policy that is none', `${MINIMAL}planner: { policy: fastest }\n`, /planner\.policy: got "fastest", want 'paceline', 'max-clock' or 'static:'/],
  ['an agent without an address', `${MINIMAL}agent: { ttlMs: 3000 }\n`, /^paceline\.yaml:6: agent: got neither, want either socket or url$/],
  ['an agent with two addresses', `${MINIMAL}agent: { socket: a.sock, url: 'http://127.0.0.1:1', tokenFile: t }\n`, /^paceline\.yaml:6: agent: got both, want either socket or url$/],
  ['a url that leaves the machine', `${MINIMAL}agent: { url: 'http://10.0.0.7:9501', tokenFile: t }\n`, /^paceline\.yaml:6: agent\.url: got "http:\/\/10\.0\.0\.7:9501", want http:\/\/ and a loopback address, .* tunnel/],
  ['a port that does not exist', `${MINIMAL}agent: { url: 'http://127.0.0.1:99999', tokenFile: t }\n`, /agent\.url: got "http:\/\/127\.0\.0\.1:99999", want an address and a port that exist$/],
  ['a url without a token', `${MINIMAL}agent: { url: 'http://127.0.0.1:9501' }\n`, /agent\.tokenFile: missing; the agent wants a bearer token on a port$/],
  ['a token for a socket', `${MINIMAL}agent: { socket: a.sock, tokenFile: t }\n`, /agent\.tokenFile: a token goes with a url/],
  ['a lease of zeusd', `${MINIMAL}agent: { kind: zeusd, socket: z.sock, ttlMs: 3000 }\n`, /agent\.ttlMs: zeusd has no leases that could run out; want watchdogMs$/],
  ['a watchdog that is not needed', `${MINIMAL}agent: { socket: a.sock, watchdogMs: 3000 }\n`, /agent\.watchdogMs: only with kind: zeusd$/],
  ['an unknown key of a named agent', `${MINIMAL}    agent: a\n    devices: ['sim:0']\nagents:\n  a: { sokcet: a.sock }\n`, /^paceline\.yaml:9: agents\.a\.sokcet: unknown key; known: kind, socket, url, tokenFile, ttlMs, watchdogMs, lowestClockMhz$/],
  ['an agent that is not there', `${TWO_AGENTS}    agent: c\n    devices: ['sim:0']\n${REPLICA_ON_A}`, /^paceline\.yaml:9: replicas\[0\]\.agent: no agent 'c'; there are: a, b$/],
  ['a replica that lives nowhere', `${TWO_AGENTS}    devices: ['zeusd:0']\n${REPLICA_ON_A}`, /^paceline\.yaml:5: replicas\[0\]\.agent: missing; several agents are configured, and one of them has its devices: a, b$/],
  ['an agent without devices', `${TWO_AGENTS}    agent: b\n${REPLICA_ON_A}`, /replicas\[0\]\.devices: got none; a replica that names an agent names its devices there$/],
  ['a GPU of zeusd by a name that it does not know', `${TWO_AGENTS}    agent: b\n    devices: ['nvml:GPU-1']\n${REPLICA_ON_A}`, /replicas\[0\]\.devices\[0\]: got 'nvml:GPU-1'; zeusd knows its GPUs by index, want zeusd:0, zeusd:1, …$/],
  ['an index where an id is wanted', `${MINIMAL}    devices: ['zeusd:0']\nagent: { socket: a.sock }\n`, /replicas\[0\]\.devices\[0\]: got 'zeusd:0'; its agent is no zeusd/],
  ['a device twice on one node', `${TWO_AGENTS}    agent: a\n    devices: ['sim:0']\n${REPLICA_ON_A}`.replace('  b: { kind: zeusd, socket: z.sock }\n', ''), /replicas\[1\]\.devices\[0\]: the device 'sim:0 of a' is already used$/],
  ['one agent and several', `${MINIMAL}    agent: agent\n    devices: ['sim:0']\nagent: { socket: a.sock }\nagents: {}\n`, /^paceline\.yaml:8: agent: there is `agents` as well; put it there under a name$/],
  ['an agent that nobody uses', `${TWO_AGENTS}${REPLICA_ON_A}`, /^paceline\.yaml:3: agents\.b: no replica names it$/],
  ['a key given twice', `${MINIMAL}listen: {}\nlisten: {}\n`, /^paceline\.yaml:7: Map keys must be unique/],
  ['a socket and a port', `${MINIMAL}listen: { socket: g.sock, port: 8080 }\n`, /^paceline\.yaml:6: listen\.port: there is a socket as well; want either socket or host and port$/],
  ['a socket mode without a socket', `${MINIMAL}listen: { socketMode: '0600' }\n`, /listen\.socketMode: only with a socket$/],
  ['a socket mode that YAML reads as a number', `${MINIMAL}listen: { socket: g.sock, socketMode: 0660 }\n`, /listen\.socketMode: got 660, want a string$/],
  ['a socket mode that is none', `${MINIMAL}listen: { socket: g.sock, socketMode: '0999' }\n`, /listen\.socketMode: got "0999", want three octal digits in quotes, such as '0660'$/],
  ['a socket whose path is too long', `${MINIMAL}listen: { socket: ${'s'.repeat(94)} }\n`, /listen\.socket: got a path of 108 bytes \(\/etc\/paceline\/s+\), a socket's has at most 107$/],
  ['half a certificate', `${MINIMAL}listen: { tls: { certFile: c.pem } }\n`, /listen\.tls\.keyFile: missing; want a string$/],
  ['an admin key that is not in the environment', `${MINIMAL}admin: { keyEnv: NO_SUCH_KEY }\n`, /^paceline\.yaml:6: admin\.keyEnv: the environment has no NO_SUCH_KEY$/],
  ['a key where its hash is wanted, without saying it again', `${MINIMAL}admin: { keySha256: [sk-secret] }\n`, /^paceline\.yaml:6: admin\.keySha256\[0\]: got 9 characters that are not shown, want the 64 lower-case hex digits/],
  ["a tenant's key where its hash is wanted, without saying it again", `${MINIMAL}tenants: [{ name: a, apiKeySha256: [sk-secret] }]\n`, /tenants\[0\]\.apiKeySha256\[0\]: got 9 characters that are not shown, want/],
  ['a password in a url, without saying it again', MINIMAL.replace('http://', 'http://user:sk-secret@'), /replicas\[0\]\.url: got "http:\/\/\*\*\*@127\.0\.0\.1:8000", want an origin/],
  ['no key at all', `${MINIMAL}admin: { keySha256: [] }\n`, /admin\.keySha256: got \[\], want at least 1 entries$/],
  ['a limit of the probes that a busy loop would reach', `${MINIMAL}probes: { stuckMs: 999 }\n`, /probes\.stuckMs: got 999, want at least 1000$/],
  ["batches, and their paths passed on", `${MINIMAL}batch: {}\npassThrough: ['/v1/files/*']\n`, /^paceline\.yaml:7: passThrough\[0\]: got '\/v1\/files\/\*', and with `batch` \/v1\/files and \/v1\/batches are the gateway's own/],
  ['batches in a Redis that is none', `${MINIMAL}batch: { store: redis }\n`, /^paceline\.yaml:6: batch\.store: got 'redis', but there is no `store` that says which; want one, or a file: \{ sqlite: PATH \}$/],
  ['batches in a store that there is not', `${MINIMAL}batch: { store: memory }\n`, /^paceline\.yaml:6: batch\.store: .*memory/],
  ['two ways to Redis', `${MINIMAL}store: { redisUrl: 'redis://a', cluster: { nodes: ['a:1'] } }\n`, /^paceline\.yaml:6: store: .*want either redisUrl or redisUrlEnv, or sentinel, or cluster; one of them$/],
  ['a node of Redis without a port', `${MINIMAL}store: { cluster: { nodes: [a] } }\n`, /^paceline\.yaml:6: store\.cluster\.nodes\[0\]: got "a", want host:port, such as 10\.0\.0\.7:6379$/],
  ['a port that there is not', `${MINIMAL}store: { sentinel: { name: m, nodes: ['a:1', 'a:65536'] } }\n`, /^paceline\.yaml:6: store\.sentinel\.nodes\[1\]: got port 65536, want 1 to 65535$/],
  ['a CA without TLS', `${MINIMAL}store: { redisUrl: 'redis://a', caFile: ca.pem }\n`, /^paceline\.yaml:6: store\.caFile: only with TLS: a URL that begins with rediss:\/\/$/],
  ['a limit of each gateway where there is but one', `${MINIMAL}tenants:\n  - { name: t, apiKeySha256: ['${'0'.repeat(64)}'], limits: { requestsPerMinute: 1, scope: gateway } }\n`, /limits\.scope: got 'gateway', but without a `store`/],
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

test('Redis is one server, a group that Sentinels watch, or a Cluster', () => {
  const environment = { PASSWORD: 'pw', SENTINELS: 'spw' };
  const target = (store: string) => parse(`${MINIMAL}store: ${store}\n`, environment).store;
  expect(target("{ redisUrl: 'redis://a:1' }")).toEqual({ target: { kind: 'single', url: 'redis://a:1', ca: null }, fleet: 'default', timeoutMs: 15, gatewaysExpected: 1, whenLost: { requests: 'local-share', tokens: 'local-share', concurrency: 'local-share', energy: 'local-share' } });
  expect(target("{ sentinel: { name: m, nodes: ['a:1', '[::1]:2'], passwordEnv: SENTINELS }, passwordEnv: PASSWORD, whenLost: { energy: closed } }")).toMatchObject({
    target: { kind: 'sentinel', name: 'm', nodes: [{ host: 'a', port: 1 }, { host: '::1', port: 2 }], sentinelPassword: 'spw', username: null, password: 'pw', tls: false },
    whenLost: { requests: 'local-share', energy: 'closed' },
  });
  expect(target("{ cluster: { nodes: ['a:1'] }, tls: true, whenLost: open }")).toMatchObject({ target: { kind: 'cluster', nodes: [{ host: 'a', port: 1 }], tls: true }, whenLost: { tokens: 'open' } });
});

test('the published JSON Schema is current (UPDATE_SCHEMAS=1 npx vitest run test/config writes it)', () => {
  const path = 'config/schemas/config.schema.json';
  const current = `${JSON.stringify(configJsonSchema(), null, 2)}\n`;
  if (process.env['UPDATE_SCHEMAS'] !== undefined) writeFileSync(path, current);
  expect(readFileSync(path, 'utf8')).toBe(current);
});
