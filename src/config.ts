// The configuration: one YAML file, read and checked once, refused whole when anything in it is wrong or unknown.
// What a key means stands in `config/config-schema.ts`; this file reads, relates the keys to each other, and resolves.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { LineCounter, parseDocument } from 'yaml';
import type { ReplicaId, Slo } from './core/job.ts';
import type { LimitKind, LimitedTenant, LostWay } from './core/tenant-limits.ts';
import { PHASE_GROUPS, type PhaseGroup } from './core/replica-view.ts';
import type { Routing } from './core/routing.ts';
import type { PlannerPolicy } from './scheduler/scheduler.ts';
import { isGood, type KeyRecord, KeysFileError, readKeys } from './config/keys-file.ts';
import type { RedisTarget } from './store/redis-target.ts';
import type { Path, Places } from './config/config-problems.ts';
import type { Settings } from './frontier/configurations.ts';
import type { Profile, SleepCosts } from './frontier/profile.ts';
import type { SeriesPlace } from './signals/series-source.ts';
import { powerOf, powerProblems } from './config/power-config.ts';
import { storeOf, storeProblems } from './config/store-config.ts';
import { ConfigError, createPlaces, issueLines } from './config/config-problems.ts';
import type { RawAgent, RawConfig } from './config/config-schema.ts';
import { BUILT_IN_CLASSES, configJsonSchema, configSchema, LISTEN_DEFAULT, WORKFLOWS_MAX_DEFAULT } from './config/config-schema.ts';

export interface ReplicaConfig {
  readonly id: ReplicaId;
  /** Scheme, host and port. */
  readonly origin: string;
  /** From the name the clients use to the name the model server knows. */
  readonly models: ReadonlyMap<string, string>;
  /** Empty where it has none. */
  readonly profilePath: string;
  /** Which of its profile's configurations it is; empty where there is but one. */
  readonly settings: Settings;
  /** What is known of one that has no profile, and is learnt; `null`: it has one. */
  readonly learn: LearnConfig | null;
  /** All move together; or those of each phase do. */
  readonly devices: ReplicaDevices;
  /** Name of the agent on its node; `null` where no agent is configured. */
  readonly agent: string | null;
  /** `null`: as many as the profile's engine runs at once. */
  readonly concurrencyMax: number | null;
  /** What is said here of its sleep, which the profile completes; `null`: it never sleeps. */
  readonly sleep: Partial<SleepCosts> | null;
  readonly apiKey: string | null;
  /** It understands `stream_options.include_usage`. */
  readonly asksUsage: boolean;
  /** How its engine orders by a `priority` in the body; `null`: it is sent none of ours. */
  readonly priority: 'lower-first' | 'higher-first' | null;
}

export interface LearnConfig {
  /** `null`: the agent is asked. */
  readonly clocksMhz: readonly number[] | null;
  readonly powerLimitW: number | null;
  readonly serving: Profile['serving'];
}

/** Of a server that is one, or of one that prefills on some of its devices and decodes on the others. */
export type ReplicaDevices = readonly string[] | Readonly<Record<PhaseGroup, readonly string[]>>;

/** One node's daemon that sets clocks. */
export type AgentConfig = {
  readonly name: string;
  readonly address: { readonly kind: 'socket'; readonly path: string } | { readonly kind: 'tcp'; readonly origin: string; readonly tokenPath: string | null };
} & ({ readonly kind: 'paceline'; readonly ttlMs: number } | { readonly kind: 'zeusd'; readonly watchdogMs: number; readonly lowestClockMhz: number | null });

export interface Bound {
  readonly min?: number | undefined;
  readonly max?: number | undefined;
}

/** What an SLO is made of; also the names in headers and in bounds. */
export type Objective = keyof Slo;

export interface TenantConfig {
  readonly name: string;
  readonly sloClass: string | null;
  /** Overrides the common tiers one by one. */
  readonly tiers: Readonly<Record<string, string>>;
  readonly bounds: Readonly<Partial<Record<Objective, Bound | undefined>>>;
  /** The only models it may use; `null`: all. */
  readonly models: ReadonlySet<string> | null;
  /** Its share of the fleet where all want more than there is, relative to the weights of the others. */
  readonly weight: number;
  readonly admission: AdmissionConfig;
  readonly limits: LimitedTenant['limits'];
  /** Workflows that it may have open at once. */
  readonly workflowsMax: number;
  readonly energyBudget: { readonly joulesPerDay: number; readonly atEnd: 'refuse' | { readonly class: string } } | null;
}

/** What becomes of a request for which there is no room in time. */
export interface AdmissionConfig {
  readonly infeasible: 'refuse' | 'best-effort';
  /** Longest time in our queue, from arrival; `null`: as its deadline says. */
  readonly queueTimeoutMs: number | null;
  /** Comments to a stream that waits; `null`: none, and errors keep their status. */
  readonly keepAliveMs: number | null;
}

export interface SloConfig {
  readonly default: string | null;
  readonly models: Readonly<Record<string, string>>;
  readonly classes: Readonly<Record<string, Slo>>;
  /** Of each class: what meeting its deadlines counts for, relative to others. */
  readonly worths: Readonly<Record<string, number>>;
  readonly tiers: Readonly<Record<string, string>>;
}

export interface ModelsConfig {
  /** From another name of a model to the one that replicas serve. */
  readonly aliases: ReadonlyMap<string, string>;
  /** What stands in for a model that no replica serves now, in order. */
  readonly fallbacks: ReadonlyMap<string, readonly string[]>;
}

/** Redis, and what the limits do without it. */
export interface StoreConfig {
  readonly target: RedisTarget;
  readonly fleet: string;
  /** What a request waits for it at most. */
  readonly timeoutMs: number;
  readonly whenLost: Readonly<Record<LimitKind, LostWay>>;
  readonly gatewaysExpected: number;
}

/** A series that somebody else tells, and for how long the last good one counts while it cannot be had. */
export interface SignalConfig {
  readonly place: SeriesPlace;
  readonly staleAfterMs: number;
}

export interface BudgetConfig {
  readonly name: string;
  /** `fallbackW`: where the series has run out or is too old; `null`: its last value is held. */
  readonly watts: { readonly kind: 'fixed'; readonly watts: number } | { readonly kind: 'schedule'; readonly signal: SignalConfig; readonly fallbackW: number | null };
  readonly over: { readonly kind: 'fleet' } | { readonly kind: 'replicas'; readonly replicaIds: readonly ReplicaId[] } | { readonly kind: 'agents'; readonly agents: readonly string[] };
}

export interface PowerConfig {
  readonly budgets: readonly BudgetConfig[];
  readonly prices: SignalConfig | null;
}

export interface ListenConfig {
  readonly address: { readonly kind: 'port'; readonly host: string; readonly port: number } | { readonly kind: 'socket'; readonly path: string; readonly mode: number };
  readonly tls: { readonly certPath: string; readonly keyPath: string } | null;
  readonly http2: boolean;
}

export interface Config {
  readonly listen: ListenConfig;
  readonly admin: {
    readonly host: string;
    readonly port: number;
    /** `null`: no key is wanted. */
    readonly access: { readonly keySha256: readonly string[]; readonly metricsOpen: boolean } | null;
  };
  readonly probes: NonNullable<RawConfig['probes']> | null;
  readonly replicas: readonly ReplicaConfig[];
  readonly models: ModelsConfig;
  readonly upstream: RawConfig['upstream'];
  readonly agents: readonly AgentConfig[];
  readonly slo: SloConfig;
  /** Who comes without a key, where there are no tenants: everybody. `null`: nobody. */
  readonly anonymous: TenantConfig | null;
  /** By the SHA-256 of an API key, lower-case hex. */
  readonly tenantsByKeySha256: ReadonlyMap<string, TenantConfig>;
  /** Of those of them that are not good for ever. */
  readonly keyExpiresAtUnixMs: ReadonlyMap<string, number>;
  /** The file that some of the keys come from. */
  readonly keysPath: string | null;
  readonly planner: { readonly policy: PlannerPolicy; readonly routing?: Routing; readonly prefixAffinity: RawConfig['planner']['prefixAffinity']; readonly attainmentTarget: number; readonly controlPeriodMs: number; readonly awakeMin: number; readonly batchCap: RawConfig['planner']['batchCap'] };
  readonly store: StoreConfig | null;
  /** `null`: no files and batches. */
  readonly batch: (Omit<NonNullable<RawConfig['batch']>, 'store'> & { readonly store: { readonly kind: 'sqlite'; readonly path: string } | /** That of `store`. */ { readonly kind: 'redis' } }) | null;
  /** Paths beside those of `ENDPOINTS` that go on to the model servers. */
  readonly passThrough: readonly string[];
  readonly limits: RawConfig['limits'];
  readonly timeouts: RawConfig['timeouts'];
  readonly health: RawConfig['health'];
  /** `path`: `null` where nothing is written down. */
  readonly accounts: Pick<RawConfig['accounts'], 'meter' | 'readEveryMs' | 'flushEveryMs' | 'retentionDays'> & { readonly path: string | null };
  /** What turns energy into money and carbon; `null`: unknown. */
  readonly intensities: { readonly pricePerKwh: number | null; readonly currency: string; readonly carbonGPerKwh: number | null; readonly pue: number };
  readonly power: PowerConfig;
  readonly logging: RawConfig['logging'];
}

/** Name of the only agent where it is given under `agent`. */
export const UNNAMED_AGENT = 'agent';

/** Whoever comes while no tenants are configured. */
export const ANONYMOUS: TenantConfig = {
  name: 'anonymous',
  sloClass: null,
  tiers: {},
  bounds: {},
  models: null,
  weight: 1,
  admission: { infeasible: 'best-effort', queueTimeoutMs: null, keepAliveMs: null },
  limits: { requestsPerMinute: null, tokensPerMinute: null, concurrencyMax: null, scope: 'fleet' },
  workflowsMax: WORKFLOWS_MAX_DEFAULT,
  energyBudget: null,
};

/** Reads and checks a file. Throws `ConfigError`, which lists every problem with its line. */
export function loadConfig(path: string, environment: NodeJS.ProcessEnv = process.env): Config {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError([`${path}: cannot be read: ${error instanceof Error ? error.message : String(error)}; config/paceline.example.yaml is one to begin with`]);
  }
  return parseConfig(text, { fileName: basename(path), directory: dirname(resolve(path)), environment });
}

/** `directory` is what relative paths in the file start from. */
export function parseConfig(text: string, source: { readonly fileName: string; readonly directory: string; readonly environment: NodeJS.ProcessEnv }): Config {
  const { fileName } = source;
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  if (document.errors.length > 0) throw new ConfigError(document.errors.map((error) => `${fileName}:${lines.linePos(error.pos[0]).line}: ${error.message}`));
  const places = createPlaces(fileName, document, lines);

  let content: unknown;
  try {
    content = document.toJS() ?? {};
  } catch (error) {
    throw new ConfigError([`${fileName}: ${error instanceof Error ? error.message : String(error)}`]);
  }
  const parsed = configSchema.safeParse(content, { reportInput: true });
  if (!parsed.success) throw new ConfigError(parsed.error.issues.flatMap((issue) => issueLines(issue, places, knownKeys)));
  const keys = keysOf(parsed.data, places, source.directory);
  const problems = [...listenProblems(parsed.data, places, source.directory), ...relationProblems(parsed.data, places, source.environment), ...keys.problems];
  if (problems.length > 0) throw new ConfigError(problems);
  return resolved(parsed.data, source, keys.records);
}

/** Those of the keys file that let somebody in now. */
function keysOf(raw: RawConfig, places: Places, directory: string): { readonly records: readonly KeyRecord[]; readonly problems: readonly string[] } {
  if (raw.keysFile === undefined) return { records: [], problems: raw.tenants.flatMap((tenant, index) => (tenant.apiKeySha256.length > 0 ? [] : [places.at(['tenants', index, 'apiKeySha256'], 'got none; nobody could come as this tenant. Name a keysFile, or a hash here')])) };
  try {
    const records = readKeys(resolve(directory, raw.keysFile));
    const names = new Set(raw.tenants.map(({ name }) => name));
    const hashes = new Set(raw.tenants.flatMap(({ apiKeySha256 }) => apiKeySha256));
    const strangers = records.filter((key) => isGood(key, Date.now()) && !names.has(key.tenant)).map(({ id, tenant }) => places.at(['keysFile'], `${id} is of the tenant '${tenant}'; tenants has: ${[...names].join(', ') || 'none'}`));
    const twice = records.filter(({ sha256 }) => hashes.has(sha256)).map(({ id }) => places.at(['keysFile'], `${id} stands in a tenant's apiKeySha256 as well`));
    return { records, problems: [...strangers, ...twice] };
  } catch (error) {
    if (!(error instanceof KeysFileError)) throw error;
    return { records: [], problems: [places.at(['keysFile'], error.message)] };
  }
}

/** `paceline`, `max-clock` or `static:<id of an operating point>`; `null` for anything else. */
export function parsePolicy(text: string): PlannerPolicy | null {
  if (text === 'paceline' || text === 'max-clock') return { kind: text };
  const pointId = /^static:(.+)$/.exec(text)?.[1];
  return pointId === undefined ? null : { kind: 'static', pointId };
}

function resolved(raw: RawConfig, source: { readonly directory: string; readonly environment: NodeJS.ProcessEnv }, keys: readonly KeyRecord[]): Config {
  const { directory, environment } = source;
  const { routing, prefixAffinity, attainmentTarget, controlPeriodMs, awakeMin, batchCap } = raw.planner;
  const policy = parsePolicy(raw.planner.policy);
  if (policy === null) throw new Error(`the schema let the policy ${raw.planner.policy} pass`);
  return {
    listen: listenOf(raw, directory),
    admin: { host: raw.admin.host, port: raw.admin.port, access: operatorAccessOf(raw.admin, environment) },
    probes: raw.probes ?? null,
    replicas: raw.replicas.map((replica) => ({
      id: replica.id as ReplicaId,
      origin: replica.url.replace(/\/$/, ''),
      models: new Map(Array.isArray(replica.models) ? replica.models.map((model) => [model, model]) : Object.entries(replica.models)),
      profilePath: typeof replica.profile === 'string' ? resolve(directory, replica.profile) : '',
      settings: replica.settings,
      learn: typeof replica.profile === 'string' ? null : learnOf(replica.profile.learn),
      devices: replica.devices,
      agent: agentOf(replica, raw),
      concurrencyMax: replica.concurrencyMax ?? null,
      sleep: replica.sleep === undefined ? null : sleepOf(replica.sleep),
      apiKey: replica.apiKeyEnv === undefined ? null : (environment[replica.apiKeyEnv] ?? null),
      asksUsage: replica.asksUsage,
      priority: replica.priority ?? null,
    })),
    batch: raw.batch === undefined ? null : { ...raw.batch, store: raw.batch.store === 'redis' ? { kind: 'redis' } : { kind: 'sqlite', path: resolve(directory, raw.batch.store.sqlite) } },
    models: modelsOf(raw),
    upstream: raw.upstream,
    passThrough: raw.passThrough,
    agents: agentsOf(raw).map(({ name, agent }) => resolvedAgent(name, agent, directory)),
    slo: {
      default: raw.slo.default ?? null,
      models: raw.slo.models,
      classes: Object.fromEntries(Object.entries(raw.slo.classes).map(([name, { worth: _worth, ...slo }]) => [name, slo as Slo])),
      worths: Object.fromEntries(Object.entries(raw.slo.classes).map(([name, { worth }]) => [name, worth])),
      tiers: raw.slo.tiers as Record<string, string>,
    },
    anonymous: raw.tenants.length > 0 ? null : { ...ANONYMOUS, admission: admissionOf(raw.admission, {}) },
    tenantsByKeySha256: tenantsByKey(raw, keys),
    keyExpiresAtUnixMs: new Map(keys.flatMap(({ sha256, expiresAt }) => (expiresAt === undefined ? [] : [[sha256, Date.parse(expiresAt)]]))),
    keysPath: raw.keysFile === undefined ? null : resolve(directory, raw.keysFile),
    planner: { policy, prefixAffinity, attainmentTarget, controlPeriodMs, awakeMin, batchCap, ...(routing === undefined ? {} : { routing }) },
    store: raw.store === undefined ? null : storeOf(raw.store, source),
    limits: raw.limits,
    timeouts: raw.timeouts,
    health: raw.health,
    ...accountsOf(raw.accounts, directory),
    power: powerOf(raw.power, directory),
    logging: raw.logging,
  };
}

function accountsOf({ file, pricePerKwh, currency, carbonGPerKwh, pue, ...accounts }: RawConfig['accounts'], directory: string): Pick<Config, 'accounts' | 'intensities'> {
  return {
    accounts: { ...accounts, path: file === undefined ? null : resolve(directory, file) },
    intensities: { pricePerKwh: pricePerKwh ?? null, currency, carbonGPerKwh: carbonGPerKwh ?? null, pue },
  };
}

function modelsOf({ models }: RawConfig): ModelsConfig {
  const entries = Object.entries(models);
  return {
    aliases: new Map(entries.flatMap(([name, { aliasOf }]) => (aliasOf === undefined ? [] : [[name, aliasOf]]))),
    fallbacks: new Map(entries.flatMap(([name, { fallbacks }]) => (fallbacks === undefined ? [] : [[name, fallbacks]]))),
  };
}

/** Aliases and fallbacks name models of replicas, never each other: a name is resolved in one step. */
function modelProblems({ models }: RawConfig, served: ReadonlySet<string>, places: Places): string[] {
  const problems: string[] = [];
  const there = `there are: ${[...served].join(', ')}`;
  for (const [name, { aliasOf, fallbacks }] of Object.entries(models)) {
    const at = ['models', name] as const;
    if ((aliasOf === undefined) === (fallbacks === undefined)) {
      problems.push(places.atKey(at, `got ${aliasOf === undefined ? 'neither' : 'both'}, want either aliasOf or fallbacks; an alias has those of its model`));
      continue;
    }
    if (aliasOf !== undefined && served.has(name)) problems.push(places.atKey(at, 'a replica serves a model of this name; an alias is another one'));
    if (aliasOf !== undefined && !served.has(aliasOf)) problems.push(places.at([...at, 'aliasOf'], `no replica serves '${aliasOf}'; ${there}`));
    if (fallbacks !== undefined && !served.has(name)) problems.push(places.atKey(at, `no replica serves this model; ${there}`));
    for (const [place, fallback] of (fallbacks ?? []).entries()) {
      if (!served.has(fallback)) problems.push(places.at([...at, 'fallbacks', place], `no replica serves '${fallback}'; ${there}`));
      else if (fallback === name || fallbacks?.indexOf(fallback) !== place) problems.push(places.at([...at, 'fallbacks', place], fallback === name ? 'it is the model itself' : `'${fallback}' is there already`));
    }
  }
  return problems;
}

function tenantsByKey(raw: RawConfig, keys: readonly KeyRecord[]): ReadonlyMap<string, TenantConfig> {
  const tenants = raw.tenants.map((tenant) => ({ tenant, resolved: resolvedTenantOf(tenant, raw) }));
  const byName = new Map(tenants.map(({ tenant, resolved: of }) => [tenant.name, of]));
  const ofFile = keys.filter((key) => isGood(key, Date.now())).flatMap(({ sha256, tenant }) => [[sha256, byName.get(tenant)] as const]);
  return new Map([...tenants.flatMap(({ tenant, resolved: of }) => tenant.apiKeySha256.map((hash) => [hash, of] as const)), ...ofFile.filter((entry): entry is readonly [string, TenantConfig] => entry[1] !== undefined)]);
}

function resolvedTenantOf(tenant: RawConfig['tenants'][number], raw: RawConfig): TenantConfig {
  const { name, bounds, weight, limits, energyBudget } = tenant;
  return {
    name,
    sloClass: tenant.class ?? null,
    tiers: (tenant.tiers ?? {}) as Record<string, string>,
    bounds,
    models: tenant.models === undefined ? null : new Set(tenant.models),
    weight,
    admission: admissionOf(raw.admission, tenant.admission),
    limits: { requestsPerMinute: limits.requestsPerMinute ?? null, tokensPerMinute: limits.tokensPerMinute ?? null, concurrencyMax: limits.concurrencyMax ?? null, scope: limits.scope },
    workflowsMax: limits.workflowsMax,
    energyBudget: energyBudget ?? null,
  };
}

function admissionOf(common: RawConfig['admission'], own: RawConfig['tenants'][number]['admission']): AdmissionConfig {
  return {
    infeasible: own.infeasible ?? common.infeasible,
    queueTimeoutMs: own.queueTimeoutMs ?? common.queueTimeoutMs ?? null,
    keepAliveMs: own.keepAliveMs ?? common.keepAliveMs ?? null,
  };
}

function operatorAccessOf({ keyEnv, keySha256 = [], metricsOpen }: RawConfig['admin'], environment: NodeJS.ProcessEnv): Config['admin']['access'] {
  const key = keyEnv === undefined ? undefined : environment[keyEnv];
  const keys = key === undefined ? keySha256 : [...keySha256, createHash('sha256').update(key).digest('hex')];
  return keys.length === 0 ? null : { keySha256: keys, metricsOpen };
}

function listenOf({ listen }: RawConfig, directory: string): ListenConfig {
  const { host = LISTEN_DEFAULT.host, port = LISTEN_DEFAULT.port, socket, socketMode = '0660', tls, http2 } = listen;
  return {
    address: socket === undefined ? { kind: 'port', host, port } : { kind: 'socket', path: resolve(directory, socket), mode: Number.parseInt(socketMode, 8) },
    tls: tls === undefined ? null : { certPath: resolve(directory, tls.certFile), keyPath: resolve(directory, tls.keyFile) },
    http2,
  };
}

/** What `sun_path` of Linux holds, less its closing zero; a longer path would be cut or refused with EINVAL. */
const SOCKET_PATH_BYTES_MAX = 107;

function listenProblems(raw: RawConfig, places: Places, directory: string): string[] {
  const problems: string[] = [];
  const { socket, socketMode } = raw.listen;
  if (socket === undefined && socketMode !== undefined) problems.push(places.atKey(['listen', 'socketMode'], 'only with a socket'));
  if (socket === undefined) return problems;
  for (const key of ['host', 'port'] as const) if (raw.listen[key] !== undefined) problems.push(places.atKey(['listen', key], 'there is a socket as well; want either socket or host and port'));
  const bytes = Buffer.byteLength(resolve(directory, socket));
  if (bytes > SOCKET_PATH_BYTES_MAX) problems.push(places.at(['listen', 'socket'], `got a path of ${bytes} bytes (${resolve(directory, socket)}), a socket's has at most ${SOCKET_PATH_BYTES_MAX}`));
  return problems;
}

/** By name; the one under `agent` has the name of its key. */
function agentsOf(raw: RawConfig): { readonly name: string; readonly agent: RawAgent; readonly at: Path }[] {
  const named = Object.entries(raw.agents ?? {}).map(([name, agent]) => ({ name, agent, at: ['agents', name] }));
  return raw.agent === undefined ? named : [{ name: UNNAMED_AGENT, agent: raw.agent, at: ['agent'] }, ...named];
}

/** The agent that a replica lives on; where there is only one, it need not be named. */
function agentOf(replica: RawConfig['replicas'][number], raw: RawConfig): string | null {
  const [only, ...more] = agentsOf(raw);
  return replica.agent ?? (more.length === 0 ? (only?.name ?? null) : null);
}

function sleepOf({ level: _level, ...costs }: NonNullable<RawConfig['replicas'][number]['sleep']>): Partial<SleepCosts> {
  return Object.fromEntries(Object.entries(costs).filter(([, value]) => value !== undefined));
}

function learnOf({ clocksMhz, powerLimitW, ...serving }: Exclude<RawConfig['replicas'][number]['profile'], string>['learn']): LearnConfig {
  return { clocksMhz: clocksMhz ?? null, powerLimitW: powerLimitW ?? null, serving };
}

function resolvedAgent(name: string, agent: RawAgent, directory: string): AgentConfig {
  const { kind, socket, url, tokenFile } = agent;
  const address: AgentConfig['address'] =
    socket !== undefined ? { kind: 'socket', path: resolve(directory, socket) } : { kind: 'tcp', origin: (url ?? '').replace(/\/$/, ''), tokenPath: tokenFile === undefined ? null : resolve(directory, tokenFile) };
  if (kind === 'zeusd') return { name, address, kind, watchdogMs: agent.watchdogMs ?? 2_000, lowestClockMhz: agent.lowestClockMhz ?? null };
  return { name, address, kind, ttlMs: agent.ttlMs ?? 3_000 };
}

function agentProblems(raw: RawConfig, places: Places): string[] {
  const problems: string[] = [];
  const agents = agentsOf(raw);
  const names = agents.map(({ name }) => name);
  if (raw.agent !== undefined && raw.agents !== undefined) problems.push(places.atKey(['agent'], 'there is `agents` as well; put it there under a name'));
  for (const { agent, at } of agents) {
    if ((agent.socket === undefined) === (agent.url === undefined)) problems.push(places.at(at, `got ${agent.socket === undefined ? 'neither' : 'both'}, want either socket or url`));
    if (agent.socket !== undefined && agent.url === undefined && agent.tokenFile !== undefined) problems.push(places.at([...at, 'tokenFile'], 'a token goes with a url; who may use a socket is said by its mode and the policy'));
    if (agent.kind === 'paceline' && agent.url !== undefined && agent.tokenFile === undefined) problems.push(places.at([...at, 'tokenFile'], 'missing; the agent wants a bearer token on a port'));
    const foreign = agent.kind === 'zeusd' ? (['ttlMs'] as const) : (['watchdogMs', 'lowestClockMhz'] as const);
    for (const key of foreign) if (agent[key] !== undefined) problems.push(places.atKey([...at, key], agent.kind === 'zeusd' ? 'zeusd has no leases that could run out; want watchdogMs' : 'only with kind: zeusd'));
  }
  raw.replicas.forEach((replica, index) => {
    const at = ['replicas', index] as const;
    if (replica.agent !== undefined && !names.includes(replica.agent)) problems.push(places.at([...at, 'agent'], `no agent '${replica.agent}'; there are: ${names.join(', ') || 'none'}`));
    if (replica.agent === undefined && devicesOf(replica.devices).length > 0 && names.length > 1) problems.push(places.at([...at, 'agent'], `missing; several agents are configured, and one of them has its devices: ${names.join(', ')}`));
    if (replica.agent !== undefined && devicesOf(replica.devices).length === 0) problems.push(places.at([...at, 'devices'], 'got none; a replica that names an agent names its devices there'));
    const home = agents.find(({ name }) => name === agentOf(replica, raw))?.agent;
    for (const { device, at: place } of devicesOf(replica.devices)) {
      const ofZeusd = /^zeusd:(0|[1-9]\d{0,2})$/.test(device);
      if (home?.kind === 'zeusd' && !ofZeusd) problems.push(places.at([...at, 'devices', ...place], `got '${device}'; zeusd knows its GPUs by index, want zeusd:0, zeusd:1, …`));
      if (home?.kind === 'paceline' && ofZeusd) problems.push(places.at([...at, 'devices', ...place], `got '${device}'; its agent is no zeusd, want an id of paceline-agent such as nvml:GPU-…`));
    }
  });
  // Most often the other end of a name that was misspelt, which has been told of then.
  if (raw.agent !== undefined || problems.length > 0) return problems;
  return agents.filter(({ name }) => !raw.replicas.some((replica) => agentOf(replica, raw) === name)).map(({ at }) => places.atKey(at, 'no replica names it'));
}

/** With where each stands below `devices`. */
function devicesOf(devices: ReplicaDevices): readonly { readonly device: string; readonly at: Path }[] {
  if (isOneGroup(devices)) return devices.map((device, position) => ({ device, at: [position] }));
  return PHASE_GROUPS.flatMap((group) => devices[group].map((device, position) => ({ device, at: [group, position] })));
}

/** All of its devices move together. */
export function isOneGroup(devices: ReplicaDevices): devices is readonly string[] {
  return Array.isArray(devices);
}

/** What the schema cannot say: names that must exist or be unique, bounds that must leave room. */
function relationProblems(raw: RawConfig, places: Places, environment: NodeJS.ProcessEnv): string[] {
  const problems: string[] = [];
  const classes = Object.keys(raw.slo.classes);
  const wantClass = (path: Path, name: string | undefined): void => {
    if (name === undefined || Object.hasOwn(raw.slo.classes, name)) return;
    problems.push(places.at(path, `no class '${name}'; slo.classes has: ${classes.length === 0 ? 'none' : classes.join(', ')}`));
  };
  const wantUnique = (what: string): ((path: Path, value: string) => void) => {
    const seen = new Map<string, Path>();
    return (path, value) => {
      const first = seen.get(value);
      if (first === undefined) seen.set(value, path);
      else problems.push(places.at(path, `${what} '${value}' is already used`));
    };
  };

  for (const name of BUILT_IN_CLASSES) {
    if (classes.includes(name)) problems.push(places.atKey(['slo', 'classes', name], `the name '${name}' is built in; choose another`));
  }
  wantClass(['slo', 'default'], raw.slo.default);
  const models = new Set(raw.replicas.flatMap((replica) => (Array.isArray(replica.models) ? replica.models : Object.keys(replica.models))));
  for (const [model, name] of Object.entries(raw.slo.models)) {
    wantClass(['slo', 'models', model], name);
    if (!models.has(model)) problems.push(places.atKey(['slo', 'models', model], `no replica serves this model; there are: ${[...models].join(', ')}`));
  }
  problems.push(...modelProblems(raw, models, places));
  for (const [tier, name] of Object.entries(raw.slo.tiers)) wantClass(['slo', 'tiers', tier], name);

  const replicaId = wantUnique('the id');
  const device = wantUnique('the device');
  raw.replicas.forEach((replica, index) => {
    const at = ['replicas', index] as const;
    replicaId([...at, 'id'], replica.id);
    // An index is a device of its node only.
    const home = agentOf(replica, raw);
    for (const { device: id, at: place } of devicesOf(replica.devices)) device([...at, 'devices', ...place], home === null || home === UNNAMED_AGENT ? id : `${id} of ${home}`);
    if (typeof replica.profile !== 'string' && Object.keys(replica.settings).length > 0) problems.push(places.atKey([...at, 'settings'], 'they choose one of the configurations of a profile, and `profile.learn` says that there is none; want them with the path of a profile'));
    if (replica.sleep !== undefined && raw.store !== undefined) problems.push(places.atKey([...at, 'sleep'], 'there is a `store`, by which other gateways may send to this replica while it sleeps; want only one of the two'));
    if (replica.apiKeyEnv !== undefined && !environment[replica.apiKeyEnv]) problems.push(places.at([...at, 'apiKeyEnv'], `the environment has no ${replica.apiKeyEnv}`));
  });

  problems.push(...agentProblems(raw, places));
  const homes = new Map(raw.replicas.map((replica) => [replica.id, devicesOf(replica.devices).length === 0 ? null : agentOf(replica, raw)]));
  problems.push(...powerProblems(raw, places, { names: agentsOf(raw).map(({ name }) => name), of: (replicaId) => homes.get(replicaId) ?? null }));

  const { keyEnv } = raw.admin;
  if (keyEnv !== undefined && !environment[keyEnv]) problems.push(places.at(['admin', 'keyEnv'], `the environment has no ${keyEnv}`));
  else if (keyEnv !== undefined && /\s/.test(environment[keyEnv] ?? '')) problems.push(places.at(['admin', 'keyEnv'], `${keyEnv} has blanks or line ends in it, which no Authorization header can hold`));

  raw.passThrough.forEach((pattern, index) => {
    const taken = /^\/v1\/(files|batches)(\/|$)/.test(pattern) || pattern === '/v1/*';
    if (raw.batch !== undefined && taken) problems.push(places.at(['passThrough', index], `got '${pattern}', and with \`batch\` /v1/files and /v1/batches are the gateway's own; want only one of the two`));
  });

  if (raw.planner.batchCap === 'learn' && (raw.accounts.meter === 'off' || agentsOf(raw).length === 0)) {
    problems.push(places.at(['planner', 'batchCap'], `got 'learn', and ${raw.accounts.meter === 'off' ? "accounts.meter is 'off'" : 'there is no agent'}: it learns by what the devices' counters say; want an agent, or 'plan'`));
  }
  problems.push(...storeProblems(raw, places, environment));

  const tenantName = wantUnique('the name');
  const apiKey = wantUnique('the key with hash');
  raw.tenants.forEach((tenant, index) => {
    const at = ['tenants', index] as const;
    tenantName([...at, 'name'], tenant.name);
    tenant.apiKeySha256.forEach((hash, position) => apiKey([...at, 'apiKeySha256', position], hash));
    wantClass([...at, 'class'], tenant.class);
    const atEnd = tenant.energyBudget?.atEnd;
    if (typeof atEnd === 'object') wantClass([...at, 'energyBudget', 'atEnd', 'class'], atEnd.class);
    for (const [tier, name] of Object.entries(tenant.tiers ?? {})) wantClass([...at, 'tiers', tier], name);
    for (const [place, model] of (tenant.models ?? []).entries()) {
      if (!models.has(model) && raw.models[model]?.aliasOf === undefined) problems.push(places.at([...at, 'models', place], `no replica serves '${model}'; there are: ${[...models].join(', ')}`));
    }
    for (const [objective, bound] of Object.entries(tenant.bounds)) {
      if (bound?.min !== undefined && bound.max !== undefined && bound.min > bound.max) problems.push(places.at([...at, 'bounds', objective], `min ${bound.min} is above max ${bound.max}`));
    }
  });
  return problems;
}

/** Keys that the schema has at a path; walks the JSON Schema, so that it cannot fall behind. */
function knownKeys(path: Path): readonly string[] {
  interface Shape {
    readonly properties?: Readonly<Record<string, Shape>>;
    readonly propertyNames?: { readonly enum?: readonly string[] };
    readonly additionalProperties?: Shape | boolean;
    readonly items?: Shape;
  }
  let shape: Shape | undefined = configJsonSchema() as Shape;
  for (const part of path) {
    const beyond: Shape | boolean | undefined = shape?.additionalProperties;
    shape = typeof part === 'number' ? shape?.items : (shape?.properties?.[String(part)] ?? (typeof beyond === 'object' ? beyond : undefined));
  }
  return Object.keys(shape?.properties ?? {}).concat(shape?.propertyNames?.enum ?? []);
}
