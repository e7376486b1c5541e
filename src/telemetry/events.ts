// What the gateway tells of itself: one function per event, which is where a metric's name, unit and labels live and
// where a log line is worded. Labels come from closed lists; ids stand in logs only.
import type { Meter } from '@opentelemetry/api';
import type { Logger } from 'pino';
import type { ReplicaId } from '../core/job.ts';
import type { LimitKind, LimitScope } from '../core/tenant-limits.ts';
import type { JobReport, RejectReason } from '../scheduler/events.ts';
import type { FleetSnapshot } from '../scheduler/scheduler.ts';
import { createEnergyMetrics, type EnergyReadings } from './energy-metrics.ts';
import { createGenAiMetrics, DURATION_BOUNDS_S, TPOT_BOUNDS_S, TTFT_BOUNDS_S } from './gen-ai-metrics.ts';
import { createPowerMetrics, type PowerReadings } from './power-metrics.ts';
import type { ProcessReading } from './process-reading.ts';
import { createRegistry, type Registry } from './registry.ts';
import { createWorkflowMetrics } from './workflow-metrics.ts';
import type { WorkflowReport } from '../scheduler/workflows.ts';

export interface Telemetry {
  jobReported(report: JobReport): void;
  jobRejected(reason: RejectReason, sloClass: string): void;
  /** Refused before it became a job; `kind` from the closed list of refusals. */
  requestRefused(kind: string, requestId: string): void;
  upstreamFailed(failure: { readonly requestId: string; readonly replicaId: ReplicaId; readonly phase: 'before-answer' | 'mid-answer'; readonly error: Error; /** Of the W3C context that it came with or was given. */ readonly traceId?: string | null }): void;
  /** Refused by a server that could not serve it now, and sent to another. */
  requestRetried(retry: { readonly requestId: string; readonly replicaId: ReplicaId; readonly statusCode: number }): void;
  modelFellBack(fallback: { readonly requestId: string; readonly from: string; readonly to: string }): void;
  replicaHealth(replicaId: ReplicaId, state: 'up' | 'draining' | 'down', why: string): void;
  /** It is out of the fleet: its series end. */
  replicaLeft(replicaId: ReplicaId): void;
  replicaBreaker(replicaId: ReplicaId, state: 'closed' | 'open' | 'half-open', why: string): void;
  /** Its server was told to sleep, or to wake. */
  restAsked(replicaId: ReplicaId, to: 'asleep' | 'awake'): void;
  /** What became of that, or how it was found. */
  replicaRest(replicaId: ReplicaId, state: 'awake' | 'asleep' | 'cannot' | 'lost', why: string): void;
  /** It has refused a request because it has too many. */
  replicaSaturated(replicaId: ReplicaId): void;
  /** Of one node's agent. */
  clockControlState(agent: string, state: string, why: string): void;
  replicaControl(replicaId: ReplicaId, controlled: boolean): void;
  /** The store logs it itself, with the reason. */
  fleetLoadState(kind: string): void;
  /** Whether Redis keeps the limits; logged there, with the reason. */
  storeUp(up: boolean): void;
  /** `limit` is what refused, 'energy' where it changed the class, else 'none'. */
  limitDecided(limit: LimitKind | 'none', decision: 'admitted' | 'refused' | 'class', scope: LimitScope): void;
  /** Closed before a request could be read from it; those answered with 503 count as refused requests. */
  connectionDropped(why: 'connections-max' | 'tls-handshake'): void;
  certificateLoaded(certificate: { readonly certPath: string; readonly subject: string; readonly expiresAtUnixMs: number }): void;
  /** What is wrong with a new one; the old one stays. */
  certificateRefused(why: string): void;
  /** No problems: the new one is in force. Else the old one stays. */
  configReloaded(problems: readonly string[]): void;
  /** Why the energy counters of a replica's devices cannot be read; `null`: they are. */
  energyMeter(group: string, why: string | null): void;
  /** Why the file of accounts cannot be written; `null`: it is again. */
  energyFile(why: string | null): void;
  /** An operator has set a power budget until then; `null`: that is over. */
  powerOverridden(name: string, watts: number | null, until: string | null): void;
  workflowEnded(report: WorkflowReport): void;
  warning(message: string): void;
  /** The page for Prometheus. */
  render(now: { readonly snapshot: FleetSnapshot; readonly inFlight: number; readonly clockControl: string; readonly agents: ReadonlyMap<string, { readonly state: string }>; readonly tenants: readonly { readonly name: string; readonly joulesRemaining: number | null; readonly joulesPerDay?: number | null; readonly concurrent: number }[]; readonly energy?: EnergyReadings; readonly power?: PowerReadings; readonly workflowsOpen?: number; readonly attainmentTarget?: number; readonly process: ProcessReading }): string;
}

/** Actual minus predicted: below zero it came sooner. */
const ERROR_BOUNDS_S = [-2.5, -1, -0.5, -0.25, -0.1, -0.05, -0.02, -0.01, 0, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5];

/** `meter`: of the operator's OpenTelemetry, where there is one. */
export function createTelemetry(log: Logger, meter: Meter | null = null, registry: Registry = createRegistry()): Telemetry {
  const genAi = createGenAiMetrics(registry, meter);
  const energy = createEnergyMetrics(registry);
  const power = createPowerMetrics(registry);
  const workflows = createWorkflowMetrics(registry, meter);
  const requests = registry.counter({ name: 'paceline_requests_total', help: 'Requests that became a job, by how they ended.', labels: ['outcome', 'slo_class'] });
  const refused = registry.counter({ name: 'paceline_requests_refused_total', help: 'Requests answered with an error of our own, by kind.', labels: ['kind'] });
  const ttft = registry.histogram({ name: 'paceline_time_to_first_token_seconds', help: 'From arrival to the first output token.', labels: ['slo_class'], bounds: TTFT_BOUNDS_S });
  const tpot = registry.histogram({ name: 'paceline_time_per_output_token_seconds', help: 'Mean over the tokens after the first, per request.', labels: ['slo_class'], bounds: TPOT_BOUNDS_S });
  const duration = registry.histogram({ name: 'paceline_request_duration_seconds', help: 'From arrival to the last byte.', labels: ['slo_class', 'outcome'], bounds: DURATION_BOUNDS_S });
  const slo = registry.counter({ name: 'paceline_slo_results_total', help: 'Requests with an SLO, by whether all of it was met.', labels: ['slo_class', 'result'] });
  const target = registry.gauge({ name: 'paceline_slo_attainment_target_ratio', help: 'The share of requests with an SLO that is to meet it.' });
  const ttftError = registry.histogram({ name: 'paceline_ttft_prediction_error_seconds', help: 'Actual minus predicted time to first token.', labels: ['slo_class'], bounds: ERROR_BOUNDS_S });
  const infeasible = registry.counter({ name: 'paceline_infeasible_dispatches_total', help: 'Requests sent although some deadline could not be met.', labels: ['slo_class'] });
  const tokens = registry.counter({ name: 'paceline_tokens_total', help: 'Tokens of ended requests; "cached" are those of the input that their server had read before.', labels: ['direction'] });
  const upstreamFailures = registry.counter({ name: 'paceline_upstream_failures_total', help: 'Answers of model servers that failed.', labels: ['replica', 'phase'] });
  const retries = registry.counter({ name: 'paceline_upstream_retries_total', help: 'Requests that a replica refused (429, 503) and another was asked for.', labels: ['replica'] });
  const fallbacks = registry.counter({ name: 'paceline_model_fallbacks_total', help: 'Requests for a model without a replica that went on to another model.', labels: ['from', 'to'] });
  const healthChanges = registry.counter({ name: 'paceline_replica_health_changes_total', help: 'Times a replica came up or went down.', labels: ['replica', 'state'] });
  const restCalls = registry.counter({ name: 'paceline_replica_rest_calls_total', help: 'Times its server was told to sleep (asleep) or to wake (awake).', labels: ['replica', 'to'] });
  const breakerChanges = registry.counter({ name: 'paceline_replica_breaker_changes_total', help: 'Times the breaker of a replica opened, half opened or closed.', labels: ['replica', 'state'] });
  const saturations = registry.counter({ name: 'paceline_replica_saturated_total', help: 'Requests that a replica refused because it had too many (429, or 503 of an overloaded server).', labels: ['replica'] });
  const controlLosses = registry.counter({ name: 'paceline_clock_control_losses_total', help: 'Times the agent or its lease was lost.' });

  const connectionsDropped = registry.counter({ name: 'paceline_connections_dropped_total', help: 'Connections closed before a request could be read.', labels: ['why'] });
  const certificates = registry.counter({ name: 'paceline_tls_certificate_loads_total', help: 'Times the TLS certificate was read, by whether it could be used.', labels: ['result'] });

  const certificateExpiry = registry.gauge({ name: 'paceline_tls_certificate_expiry_timestamp_seconds', help: 'When the TLS certificate in use ends, seconds since 1970.' });
  const configReloads = registry.counter({ name: 'paceline_config_reloads_total', help: 'Times the configuration was read again, by whether it was taken over.', labels: ['result'] });
  const configGood = registry.gauge({ name: 'paceline_config_last_reload_successful', help: '1 while the newest configuration is in force, 0 while an older one is.' });
  configGood.set([], 1);
  const fleetLoadUp = registry.gauge({ name: 'paceline_fleet_load_up', help: '1 while the load of other gateways is known through Redis.' });
  const storeUp = registry.gauge({ name: 'paceline_store_up', help: '1 while Redis keeps the limits of all gateways together.' });
  const limitDecisions = registry.counter({ name: 'paceline_limit_decisions_total', help: 'Decisions on requests of tenants with limits, by the limit that refused, and by where it was decided.', labels: ['limit', 'decision', 'scope'] });
  const energyLeft = registry.gauge({ name: 'paceline_tenant_energy_remaining_joules', help: "What is left of the day's energy budget, as far as this gateway knows.", labels: ['tenant'] });
  const energyBudget = registry.gauge({ name: 'paceline_tenant_energy_budget_joules', help: "The day's energy budget.", labels: ['tenant'] });
  const tenantConcurrent = registry.gauge({ name: 'paceline_tenant_requests_in_flight', help: 'Requests of tenants with limits, through this gateway.', labels: ['tenant'] });
  const queued = registry.gauge({ name: 'paceline_queued_requests', help: 'Requests waiting here for a replica.' });
  const inFlight = registry.gauge({ name: 'paceline_requests_in_flight', help: 'Requests not yet ended, queued ones included.' });
  const replicaUp = registry.gauge({ name: 'paceline_replica_up', help: '1 when the replica takes requests.', labels: ['replica'] });
  const replicaState = registry.gauge({ name: 'paceline_replica_state', help: '1 for the state of each replica: up, draining or down.', labels: ['replica', 'state'] });
  const replicaBreaker = registry.gauge({ name: 'paceline_replica_breaker', help: '1 for the state of its breaker: closed, open or half-open.', labels: ['replica', 'state'] });
  const replicaRest = registry.gauge({ name: 'paceline_replica_rest', help: '1 for the state of a server that may sleep: awake, falling-asleep, asleep, waking or lost (it does not wake).', labels: ['replica', 'state'] });
  const replicaRoom = registry.gauge({ name: 'paceline_replica_room', help: 'Requests that it may have at once now: its concurrency, or less while it starts slowly or is saturated.', labels: ['replica'] });
  const replicaBatchCap = registry.gauge({ name: 'paceline_replica_batch_cap', help: 'Requests at once that its batch should have, where that is planned or learnt.', labels: ['replica'] });
  const replicaRunning = registry.gauge({ name: 'paceline_replica_running_streams', help: 'Our requests that have their first token.', labels: ['replica'] });
  const replicaWaiting = registry.gauge({ name: 'paceline_replica_waiting_prompts', help: 'Our requests sent and without a first token.', labels: ['replica'] });
  const replicaControlled = registry.gauge({ name: 'paceline_replica_controlled', help: '1 when its devices follow our demands.', labels: ['replica'] });
  const replicaPoint = registry.gauge({ name: 'paceline_replica_operating_point', help: '1 for the operating point demanded and why; "default" is default clocks.', labels: ['replica', 'point', 'binding'] });
  const groupControlled = registry.gauge({ name: 'paceline_replica_group_controlled', help: '1 when the devices of this group (prefill, decode) of a disaggregated server follow our demands.', labels: ['replica', 'group'] });
  const groupPoint = registry.gauge({ name: 'paceline_replica_group_operating_point', help: '1 for the operating point demanded of this group and why.', labels: ['replica', 'group', 'point', 'binding'] });
  const drift = registry.gauge({ name: 'paceline_replica_profile_drift_ratio', help: 'Measured over modelled time of a phase in which the replica has left its profile; absent where it has not. Then it should be profiled anew.', labels: ['replica', 'phase'] });
  const stepResidual = registry.gauge({ name: 'paceline_replica_step_time_residual_ratio', help: 'Measured over modelled step time.', labels: ['replica'] });
  const controlUp = registry.gauge({ name: 'paceline_clock_control_up', help: '1 while demands reach the devices of all nodes.' });
  const agentState = registry.gauge({ name: 'paceline_agent_state', help: "1 for the state of each node's agent; held: demands reach its devices.", labels: ['agent', 'state'] });
  const loopDelay = registry.gauge({ name: 'paceline_event_loop_delay_seconds', help: 'Delay of the event loop since the last scrape; the 100th percentile is the longest.', labels: ['percentile'] });
  const memory = registry.gauge({ name: 'process_resident_memory_bytes', help: 'Resident memory.' });
  const cpu = registry.counter({ name: 'process_cpu_seconds_total', help: 'CPU time used, user and system.' });

  return {
    jobReported: (report) => {
      const { sloClass, outcome, prediction } = report;
      requests.add([outcome, sloClass]);
      duration.observe([sloClass, outcome], report.e2eMs / 1_000);
      if (report.ttftMs !== null) ttft.observe([sloClass], report.ttftMs / 1_000);
      if (report.tpotMs !== null) tpot.observe([sloClass], report.tpotMs / 1_000);
      if (report.met !== null) slo.add([sloClass, report.met ? 'met' : 'missed']);
      if (report.ttftMs !== null && prediction !== null) ttftError.observe([sloClass], (report.ttftMs - prediction.ttftMs) / 1_000);
      if (prediction?.feasible === false) infeasible.add([sloClass]);
      tokens.add(['input'], report.promptTokens);
      tokens.add(['cached'], report.cachedTokens);
      tokens.add(['output'], report.outputTokens);
      genAi.reported(report);
      log.debug(report, 'request ended');
    },
    jobRejected: (reason, sloClass) => {
      requests.add(['rejected', sloClass]);
      log.debug({ reason, sloClass }, 'request rejected');
    },
    requestRefused: (kind, requestId) => {
      refused.add([kind]);
      log.debug({ kind, requestId }, 'request refused');
    },
    upstreamFailed: ({ requestId, replicaId, phase, error, traceId = null }) => {
      upstreamFailures.add([replicaId, phase]);
      log.warn({ requestId, ...(traceId === null ? {} : { traceId }), replicaId, phase, err: error }, `replica ${replicaId} failed a request`);
    },
    requestRetried: ({ requestId, replicaId, statusCode }) => {
      retries.add([replicaId]);
      log.debug({ requestId, replicaId, statusCode }, `replica ${replicaId} refused a request; another one is asked`);
    },
    modelFellBack: ({ requestId, from, to }) => {
      fallbacks.add([from, to]);
      log.debug({ requestId, from, to }, `no replica of ${from} is up; ${to} is asked`);
    },
    replicaHealth: (replicaId, state, why) => {
      healthChanges.add([replicaId, state]);
      if (state === 'up') log.info({ replicaId, why }, `replica ${replicaId} is up`);
      else log.warn({ replicaId, why }, `replica ${replicaId} is ${state}`);
    },
    replicaLeft: (replicaId) => {
      registry.forget('replica', replicaId);
      log.info({ replicaId }, `replica ${replicaId} is out of the fleet`);
    },
    replicaBreaker: (replicaId, state, why) => {
      breakerChanges.add([replicaId, state]);
      if (state === 'open') log.warn({ replicaId, why }, `the breaker of replica ${replicaId} is open: it gets requests only where no other serves their model`);
      else log.info({ replicaId, why }, `the breaker of replica ${replicaId} is ${state}`);
    },
    restAsked: (replicaId, to) => {
      restCalls.add([replicaId, to]);
      log.info({ replicaId }, to === 'asleep' ? `replica ${replicaId} is not needed: it is put to sleep` : `replica ${replicaId} is woken`);
    },
    replicaRest: (replicaId, state, why) => {
      if (state === 'cannot') log.warn({ replicaId, why }, `replica ${replicaId} cannot be put to sleep, and stays awake: ${why}. vLLM has its sleep mode with VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode`);
      else if (state === 'lost') log.warn({ replicaId, why }, `replica ${replicaId} does not wake: ${why}. It counts as down until it does`);
      else log.debug({ replicaId, why }, `replica ${replicaId} is ${state}`);
    },
    replicaSaturated: (replicaId) => {
      saturations.add([replicaId]);
      log.debug({ replicaId }, `replica ${replicaId} is saturated`);
    },
    clockControlState: (agent, state, why) => {
      if (state === 'lost') {
        controlLosses.add([]);
        log.warn({ agent, state, why }, `clock control is lost; devices are at default clocks, requests are served${/ENOENT|ECONNREFUSED/.test(why) ? '; is the agent running, and at this place?' : ''}`);
      } else log.info({ agent, state, why }, `clock control: ${state}`);
    },
    replicaControl: (replicaId, controlled) => log.debug({ replicaId, controlled }, `replica ${replicaId} is ${controlled ? 'controlled' : 'at default clocks'}`),
    fleetLoadState: (kind) => fleetLoadUp.set([], kind === 'connected' ? 1 : 0),
    storeUp: (up) => storeUp.set([], up ? 1 : 0),
    limitDecided: (limit, decision, scope) => limitDecisions.add([limit, decision, scope]),
    connectionDropped: (why) => connectionsDropped.add([why]),
    certificateLoaded: ({ certPath, subject, expiresAtUnixMs }) => {
      certificates.add(['loaded']);
      certificateExpiry.set([], expiresAtUnixMs / 1_000);
      const expiresAt = new Date(expiresAtUnixMs).toISOString();
      if (expiresAtUnixMs < Date.now()) log.error({ certPath, subject, expiresAt }, 'the TLS certificate has expired');
      else log.info({ certPath, subject, expiresAt }, 'TLS certificate loaded');
    },
    certificateRefused: (why) => {
      certificates.add(['refused']);
      log.error({ why }, 'the new TLS certificate is not usable; the old one stays');
    },
    configReloaded: (problems) => {
      configReloads.add([problems.length === 0 ? 'taken' : 'refused']);
      configGood.set([], problems.length === 0 ? 1 : 0);
      if (problems.length === 0) log.info('the new configuration is in force');
      else log.error({ problems }, 'the new configuration is not usable; the old one stays');
    },
    energyMeter: (group, why) => {
      if (why === null) log.info({ replicaId: group }, `the energy of replica ${group} is metered`);
      else log.warn({ replicaId: group, why }, `the energy counters of replica ${group} cannot be read; what its requests take is modelled by its profile`);
    },
    energyFile: (why) => {
      if (why === null) log.info('the accounts of energy are written down again');
      else log.error({ why }, 'the accounts of energy cannot be written down; they are kept in memory until they can');
    },
    powerOverridden: (name, watts, until) => {
      if (watts === null) log.info({ budget: name }, `power budget ${name} is as configured again`);
      else log.info({ budget: name, watts, until }, `power budget ${name} was set to ${watts} W by an operator until ${until}`);
    },
    workflowEnded: (report) => {
      workflows.ended(report);
      log.debug(report, `workflow ${report.workflowId}: ${report.outcome}`);
    },
    warning: (message) => log.warn(message),
    render: (now) => {
      for (const gauge of [replicaUp, replicaState, replicaBreaker, replicaRest, replicaBatchCap, replicaRoom, replicaRunning, replicaWaiting, replicaControlled, replicaPoint, groupControlled, groupPoint, stepResidual, drift, agentState, energyLeft, energyBudget, tenantConcurrent]) gauge.clear();
      for (const { name, joulesRemaining, joulesPerDay = null, concurrent } of now.tenants) {
        tenantConcurrent.set([name], concurrent);
        if (joulesRemaining !== null) energyLeft.set([name], joulesRemaining);
        if (joulesPerDay !== null) energyBudget.set([name], joulesPerDay);
      }
      queued.set([], now.snapshot.queued);
      inFlight.set([], now.inFlight);
      if (now.attainmentTarget !== undefined) target.set([], now.attainmentTarget);
      for (const replica of now.snapshot.replicas) {
        const { replicaId } = replica;
        replicaUp.set([replicaId], replica.state === 'up' ? 1 : 0);
        replicaState.set([replicaId, replica.state], 1);
        replicaBreaker.set([replicaId, replica.breaker], 1);
        if (replica.batchCap !== undefined) replicaBatchCap.set([replicaId], replica.batchCap.cap);
        if (replica.rest !== undefined) replicaRest.set([replicaId, replica.rest], 1);
        replicaRoom.set([replicaId], replica.room);
        replicaRunning.set([replicaId], replica.runningStreams);
        replicaWaiting.set([replicaId], replica.waitingPrompts);
        replicaControlled.set([replicaId], replica.controlled ? 1 : 0);
        replicaPoint.set([replicaId, replica.pointId ?? 'default', replica.why.binding], 1);
        for (const [group, { controlled, pointId, why }] of Object.entries(replica.groups ?? {})) {
          groupControlled.set([replicaId, group], controlled ? 1 : 0);
          groupPoint.set([replicaId, group, pointId ?? 'default', why.binding], 1);
        }
        stepResidual.set([replicaId], replica.stepTimeResidual);
        for (const [phase, { ratio }] of Object.entries(replica.drift ?? {})) drift.set([replicaId, phase], ratio);
      }
      controlUp.set([], now.clockControl === 'held' ? 1 : 0);
      for (const [agent, { state }] of now.agents) agentState.set([agent, state], 1);
      for (const [percentile, delayS] of Object.entries(now.process.eventLoopDelayS)) loopDelay.set([percentile], delayS);
      memory.set([], now.process.residentBytes);
      cpu.total([], now.process.cpuS);
      if (now.energy !== undefined) energy.update(now.energy);
      if (now.power !== undefined) power.update(now.power);
      if (now.workflowsOpen !== undefined) workflows.open(now.workflowsOpen);
      return registry.render();
    },
  };
}
