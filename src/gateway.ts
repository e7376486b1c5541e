// Builds everything, joins it, and closes it again. The edges do not know each other; this file does.
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { AgentError, readToken } from './agent/connection.ts';
import { openLimits } from './gateway-limits.ts';
import type { AgentConfig, Config } from './config.ts';
import { UNNAMED_AGENT } from './config.ts';
import { ConfigError } from './config/config-problems.ts';
import { createReloads, restartKeys } from './config/reload.ts';
import { openBatches } from './gateway-batches.ts';
import { openClocks } from './gateway-clocks.ts';
import { openDashboard } from './gateway-dashboard.ts';
import { askFacts } from './gateway-learning.ts';
import { createDriftWatch } from './gateway-drift.ts';
import { openPower } from './gateway-power.ts';
import { openWorkflows } from './gateway-workflows.ts';
import { openReplicas, specsOf } from './gateway-replicas.ts';
import type { ReplicaId } from './core/job.ts';
import { learntProfile } from './core/learnt-profile.ts';
import { openEnergy } from './gateway-energy.ts';
import { createApp, createShortCut } from './http/app.ts';
import { createExchange } from './http/exchange.ts';
import { createModelNames } from './http/model-names.ts';
import { refuseOpenAdmin } from './http/operator-access.ts';
import { createOperatorApp } from './http/operator-app.ts';
import type { Listener } from './http/server.ts';
import { listen } from './http/server.ts';
import type { ProbeListener, ProbePhase } from './probes/probe-listener.ts';
import { openProbes } from './probes/probe-listener.ts';
import { createRuntime } from './runtime.ts';
import type { Runtime } from './runtime.ts';
import type { Scheduler, SchedulerOptions } from './scheduler/scheduler.ts';
import { createScheduler } from './scheduler/scheduler.ts';
import type { Telemetry } from './telemetry/events.ts';
import type { Logger } from 'pino';
import type { FleetLoad, FleetLoadState } from './store/fleet-load.ts';
import { createFleetLoad } from './store/fleet-load.ts';
import type { FleetLearning } from './store/fleet-learning.ts';
import { createFleetLearning } from './store/fleet-learning.ts';
import type { ReplicaLoads } from './store/peer-loads.ts';
import { RedisUrlError } from './store/redis-url.ts';
import { type EnergyReadings, observeEnergy } from './telemetry/energy-metrics.ts';
import { createTelemetry } from './telemetry/events.ts';
import { createLog } from './telemetry/log.ts';
import { findOpenTelemetry } from './telemetry/open-telemetry.ts';
import { createProcessReader } from './telemetry/process-reading.ts';
import { createRequestTraces } from './telemetry/request-traces.ts';

export interface Gateway {
  readonly url: string;
  readonly adminUrl: string;
  /** `null`: no probes are configured. */
  readonly probesUrl: string | null;
  /** Takes a new certificate at once; without TLS there is none. */
  reloadCertificate(): void;
  /** Takes over another configuration for the requests that come from now on, or nothing of it; whether it did. `read` may throw `ConfigError`. */
  reload(read: () => Config): boolean;
  /** Is not ready from now on, serves on for `timeouts.readinessLagMs`, then accepts nothing more, lets requests in flight end within `timeouts.drainMs`, gives the clocks back. */
  close(): Promise<void>;
}

/** What a test may put in place of the real thing. */
export interface GatewayParts {
  readonly createScheduler?: (options: SchedulerOptions) => Scheduler;
}

/** Probes, scrapers and a person or two; more are a fault of theirs, and must not take descriptors from requests. */
const OPERATOR_CONNECTIONS_MAX = 256;

/** Throws `ConfigError` where the configuration and what it points to do not fit, or a port is taken. */
export async function createGateway(config: Config, parts: GatewayParts = {}): Promise<Gateway> {
  const now = (): number => performance.now();
  const startedAtMs = now();
  refuseOpenAdmin(config.admin);
  config.agents.forEach(refuseWithoutToken);
  const specs = specsOf(config, await askFacts(config));
  const log = createLog(config.logging.level);
  const openTelemetry = findOpenTelemetry();
  const telemetry = createTelemetry(log, openTelemetry.meter);
  const traces = createRequestTraces({ tracer: openTelemetry.tracer, accessLog: config.logging.requests ? log : null, serverOf: (replicaId) => new URL(replicas.of(replicaId).config.origin), now });
  const processReader = createProcessReader();
  let phase: 'starting' | 'open' | 'leaving' | 'draining' = 'starting';
  const draining = (): boolean => phase === 'draining';
  const ready = (): boolean => phase === 'open' && runtime.snapshot().replicas.some((replica) => replica.state === 'up');

  const scheduler = (parts.createScheduler ?? createScheduler)({
    replicas: specs,
    policy: config.planner.policy,
    ...(config.planner.routing === undefined ? {} : { routing: config.planner.routing }),
    attainmentTarget: config.planner.attainmentTarget,
    controlPeriodMs: config.planner.controlPeriodMs,
    queuedMax: config.limits.queuedMax,
    slowStartMs: config.health.slowStartMs,
    energyAccounts: true,
    sleep: { awakeMin: config.planner.awakeMin },
    ...batchCapRule(config),
  });
  // Before anything that keeps a process alive: it refuses a store that is none.
  const tenantLimits = openLimits(config, { now, telemetry, log, gatewayId: gatewayId() });
  const energy = openEnergy(config, { runtime: () => runtime, telemetry, now });
  const power = openPower(config, new Map(specs.map(({ replicaId, belief }) => [replicaId, belief])), {
    replicas: () => replicas.configs(),
    beliefs: () => replicas.beliefs(),
    tell: { budgets: (budgets) => runtime.powerBudgets(budgets), prices: (prices) => runtime.energyPrices(prices) },
    uses: () => runtime.snapshot().budgets ?? [],
    telemetry,
    now,
    unixNowMs: Date.now,
  });
  const workflows = openWorkflows({ runtime: () => runtime, now });
  const runtime: Runtime = createRuntime({
    scheduler,
    controlPeriodMs: config.planner.controlPeriodMs,
    now,
    demand: (demand) => {
      dashboard.demanded(demand);
      clocks.demand(demand);
      // Of a disaggregated server the decode group's stands for both, as elsewhere.
      if (demand.group !== 'prefill') traces?.demanded(demand.replicaId, { pointId: demand.point?.id ?? null, binding: demand.why.binding });
    },
    report: (report) => {
      telemetry.jobReported(report);
      traces?.reported(report);
      tenantLimits.reported(report);
      energy.reported(report);
      dashboard.reported(report);
    },
    rest: (replicaId, to) => {
      telemetry.restAsked(replicaId, to);
      replicas.of(replicaId).rest?.goTo(to);
    },
    settled: (settled) => {
      tenantLimits.settled(settled);
      energy.settled(settled);
    },
    workflowEnded: (report) => {
      telemetry.workflowEnded(report);
      workflows.ended(report);
    },
    left: (replicaId, accounts) => {
      replicas.left(replicaId);
      energy.left(replicaId, accounts);
      telemetry.replicaLeft(replicaId);
      traces?.undemanded(replicaId);
      dashboard.undemanded(replicaId);
      fleetChanged();
    },
  });
  const energyReadings = (): EnergyReadings => ({ ...energy.snapshot(), devices: energy.devices() });
  if (openTelemetry.meter !== null) observeEnergy(openTelemetry.meter, energyReadings);
  const clocks = openClocks(config, {
    holder: gatewayId(),
    now,
    runtime,
    telemetry,
    uncontrolled: (replicaId) => {
      traces?.undemanded(replicaId);
      dashboard.undemanded(replicaId);
    },
  });
  const replicas = openReplicas(config, specs, { now, runtime, telemetry });
  const drift = createDriftWatch({ snapshot: runtime.snapshot, warn: telemetry.warning, inform: (message) => log.info(message) });
  const dashboard = openDashboard({
    snapshot: runtime.snapshot,
    warn: telemetry.warning,
    read: () => {
      const { rows, sinceUnixMs } = energy.snapshot();
      const { policy, attainmentTarget } = config.planner;
      return { sinceUnixMs, policy: policy.kind, attainmentTarget, snapshot: runtime.snapshot(), inFlight: runtime.inFlight(), beliefs: replicas.beliefs(), agents: clocks.nodes(), energy: rows, workflows: workflows.snapshot(), draining: phase === 'leaving' || draining() };
    },
  });

  /** What requests read; swapped as a whole by a reload. */
  let live = liveOf(config);
  /** Those of the nodes of all replicas that are here. */
  let agents = config.agents;
  const reloads = createReloads({ now: () => new Date(), telemetry });
  let batches: ReturnType<typeof openBatches> = null;
  let fleetLoad: FleetLoad | null = null;
  let fleetLearning: FleetLearning | null = null;
  try {
    batches = openBatches(config, { gatewayId: gatewayId(), live: () => live.config, snapshot: runtime.snapshot, prices: power.pricesFromNow, warn: telemetry.warning, log });
    fleetLoad = openFleetLoad(config, { now, runtime, telemetry, log });
    fleetLearning = openFleetLearning(config, runtime, log);
  } catch (error) {
    // Replicas are probed and clocks held by now; left so, they would keep the process of a refused configuration alive.
    await closeParts();
    throw error;
  }
  const exchange = createExchange({
    runtime,
    send: (replicaId, request, sink) => replicas.of(replicaId).client.send(request, sink),
    upstream: (replicaId, model) => {
      const { models: names, asksUsage, priority } = replicas.of(replicaId).config;
      return { model: names.get(model) ?? model, asksUsage, priority };
    },
    get models() {
      return live.models;
    },
    get slo() {
      return live.config.slo;
    },
    get access() {
      return batches?.access(live.config) ?? live.config;
    },
    get retriesMax() {
      return live.config.upstream.retriesMax;
    },
    prefixSeed: (model, tenant) => live.prefixSeed(model, tenant),
    limiter: tenantLimits.limiter,
    workflows: workflows.service,
    bodyBytesMax: config.limits.bodyBytesMax,
    stallMs: config.timeouts.stallMs,
    now,
    draining,
    refused: telemetry.requestRefused,
    rejected: (reason, sloClass) => {
      telemetry.jobRejected(reason, sloClass);
      dashboard.rejected(reason, sloClass);
    },
    retried: telemetry.requestRetried,
    fellBack: telemetry.modelFellBack,
    failed: telemetry.upstreamFailed,
    traces,
  });
  const app = createApp({
    get models() {
      return live.models;
    },
    get access() {
      return live.config;
    },
    createdAtS: Math.floor(Date.now() / 1_000),
    refused: telemetry.requestRefused,
    batches: batches?.service ?? null,
    workflows: workflows.service,
    limiter: tenantLimits.limiter,
    get slo() {
      return live.config.slo;
    },
    draining,
  });
  /** Those that leave are driven until they are gone, by the agents they have. */
  function fleetChanged(): void {
    const there = replicas.configs();
    const known = new Map([...agents, ...live.config.agents].map((agent) => [agent.name, agent]));
    agents = [...known.values()].filter(({ name }) => there.some(({ agent }) => agent === name));
    clocks.change({ replicas: there, agents });
    energy.change({ replicas: there, agents });
    power.fleetChanged();
  }
  const operatorApp = createOperatorApp({
    access: config.admin.access,
    ready,
    drain: (id, on) => {
      replicas.find(id)?.watch.drain(on);
      return runtime.snapshot().replicas.find(({ replicaId }) => replicaId === id) ?? null;
    },
    metrics: () => telemetry.render({ snapshot: runtime.snapshot(), inFlight: runtime.inFlight(), clockControl: clocks.state(), agents: clocks.nodes(), tenants: tenantLimits.tenants(), energy: energyReadings(), power: power.snapshot(), workflowsOpen: runtime.openWorkflows(), attainmentTarget: config.planner.attainmentTarget, process: processReader.read() }),
    status: () => ({
      policy: config.planner.policy,
      clockControl: clocks.state(),
      agents: Object.fromEntries(clocks.nodes()),
      fleetLoad: fleetLoad?.state() ?? null,
      config: reloads.state(),
      limits: tenantLimits.state(),
      draining: phase === 'leaving' || draining(),
      uptimeS: Math.round((now() - startedAtMs) / 1_000),
      inFlight: runtime.inFlight(),
      workflows: workflows.snapshot(),
      ...runtime.snapshot(),
    }),
    energy: energy.snapshot,
    power,
    profile: (id) => {
      const learnt = runtime.learntOf(id as ReplicaId);
      return typeof learnt === 'string' ? learnt : learntProfile(learnt, new Date().toISOString());
    },
    dashboard: dashboard.page,
    refused: telemetry.requestRefused,
  });

  async function closeParts(): Promise<void> {
    await batches?.close();
    drift.close();
    replicas.unwatch();
    dashboard.close();
    runtime.close();
    await Promise.all([clocks.close(), energy.close(), fleetLoad?.close(), fleetLearning?.close(), power.close(), tenantLimits.close()]);
    await replicas.close();
    processReader.close();
  }

  const { limits, timeouts } = config;
  const operatorListener = { key: 'admin', address: { kind: 'port', host: config.admin.host, port: config.admin.port }, tls: null, http2: false, limits: { ...limits, connectionsMax: OPERATOR_CONNECTIONS_MAX }, timeouts, telemetry } as const;
  const shortCut = createShortCut({ exchange, get passThrough() { return live.config.passThrough; } });
  const listeners: Listener[] = [];
  let probes: ProbeListener | null = null;
  const probePhase = (): ProbePhase => (phase === 'starting' ? 'starting' : phase !== 'open' ? 'draining' : ready() ? 'ready' : 'not ready');
  try {
    await tenantLimits.ready();
    power.start();
    if (config.probes !== null) probes = await openProbes({ ...config.probes, phase: probePhase, onEnd: (why) => telemetry.warning(`the probes are gone: ${why}`) });
    // One after the other: where the second fails the first is there to be closed.
    listeners.push(await listen(app, { ...config.listen, key: 'listen', limits, timeouts, telemetry }, shortCut));
    listeners.push(await listen(operatorApp, operatorListener));
  } catch (error) {
    await Promise.all(listeners.map((listener) => listener.close(0)));
    await Promise.all([closeParts(), probes?.close()]);
    throw error;
  }
  const [open, admin] = listeners as [Listener, Listener];
  phase = 'open';
  energy.start();
  dashboard.start();
  batches?.start((incoming, outgoing) => shortCut(incoming, outgoing));
  probes?.beat();

  return {
    url: open.url,
    adminUrl: admin.url,
    probesUrl: probes?.url ?? null,
    reloadCertificate: open.reloadCertificate,
    reload: (read) =>
      reloads.take(() => {
        const next = read();
        const bound = restartKeys(config, next);
        if (bound.length > 0) throw new ConfigError(bound.map((key) => `${key}: changed; it is taken over by a restart only`));
        next.agents.forEach(refuseWithoutToken);
        const fleet = replicas.planned(next);
        const changePower = power.planned(next, fleet.beliefs);
        live = liveOf(next);
        fleet.change();
        fleetChanged();
        changePower();
        tenantLimits.reloaded(next);
      }),
    close: async () => {
      phase = 'leaving';
      probes?.beat();
      if (timeouts.readinessLagMs > 0) await delay(timeouts.readinessLagMs);
      // What it has in flight is given back, and not refused by a gateway that drains.
      await batches?.stop();
      phase = 'draining';
      await open.close(config.timeouts.drainMs);
      await closeParts();
      await Promise.all([admin.close(0), probes?.close()]);
    },
  };
}

interface Joined {
  readonly now: () => number;
  readonly runtime: Runtime;
  readonly telemetry: Telemetry;
}

/** What is tried out next is drawn by chance; nothing depends on which. */
function batchCapRule({ planner: { batchCap } }: Config): Pick<SchedulerOptions, 'batchCap'> {
  if (batchCap === 'configured') return {};
  return { batchCap: batchCap === 'plan' ? { kind: 'plan' } : { kind: 'learn', random: Math.random } };
}

/** Later it may be replaced by a newer one; at the start it must be there. */
function refuseWithoutToken({ name, address }: AgentConfig): void {
  if (address.kind === 'socket' || address.tokenPath === null) return;
  try {
    readToken(address.tokenPath);
  } catch (error) {
    if (error instanceof AgentError) throw new ConfigError([`${name === UNNAMED_AGENT ? 'agent' : `agents.${name}`}.tokenFile: ${error.message}`]);
    throw error;
  }
}

/** Other gateways on the same replicas, through Redis; without it the servers' own metrics show their load, later. */
function openFleetLoad(config: Config, { now, runtime, telemetry, log }: Joined & { readonly log: Logger }): FleetLoad | null {
  if (config.store === null) return null;
  const options = {
    target: config.store.target,
    fleet: config.store.fleet,
    gatewayId: gatewayId(),
    read: () => new Map(runtime.snapshot().replicas.map(({ replicaId, runningStreams, waitingPrompts }) => [replicaId, { running: runningStreams, waiting: waitingPrompts }])),
    onPeers: (loads: ReplicaLoads) => {
      for (const [replicaId, load] of loads) runtime.peerLoad({ replicaId, ...load });
    },
    onState: (state: FleetLoadState) => telemetry.fleetLoadState(state.kind),
    log,
    now,
  };
  try {
    return createFleetLoad(options);
  } catch (error) {
    if (error instanceof RedisUrlError) throw new ConfigError([`store: ${error.message}`]);
    throw error;
  }
}

/** Not on anybody's way: what others have learnt comes when it comes. */
function openFleetLearning({ store }: Config, runtime: Runtime, log: Logger): FleetLearning | null {
  return store === null ? null : createFleetLearning({ target: store.target, fleet: store.fleet, gatewayId: gatewayId(), read: runtime.learnt, onPeers: runtime.peersLearnt, log });
}

/** Names this process to the agent and to other gateways. */
function gatewayId(): string {
  return `${hostname().replaceAll(/[^A-Za-z0-9.-]/g, '-').slice(0, 40)}:${process.pid}:${randomBytes(3).toString('hex')}`;
}

/** What a request reads of a configuration. */
function liveOf(config: Config) {
  const served = [...new Set(config.replicas.flatMap((replica) => [...replica.models.keys()]))];
  return { config, models: createModelNames(served, config.models), prefixSeed: prefixSeedOf(config) };
}

/** Prompts are compared only where there is a choice, by cost, of where they go; of different tenants only where the config says so: who shares a cache can tell by the time what others have asked. */
function prefixSeedOf({ planner, replicas }: Config): (model: string, tenant: string) => string | null {
  const { policy, routing = policy.kind === 'paceline' ? 'energy' : 'least-loaded', prefixAffinity } = planner;
  if (prefixAffinity === 'off' || routing !== 'energy') return () => null;
  const serving = new Map<string, number>();
  for (const { models } of replicas) for (const model of models.keys()) serving.set(model, (serving.get(model) ?? 0) + 1);
  return (model, tenant) => ((serving.get(model) ?? 0) < 2 ? null : prefixAffinity === 'per-tenant' ? `${model}\n${tenant}` : model);
}
