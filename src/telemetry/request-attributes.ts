// What spans say of a job: OpenTelemetry's names for generative AI where there are some, and names of our own below `paceline.`,
// with their unit at the end.
import type { Attributes } from '@opentelemetry/api';
import type { JobSpec } from '../core/job.ts';
import type { Explanation, JobReport } from '../scheduler/events.ts';
import { PROVIDER } from './gen-ai-metrics.ts';

/** The point that a replica is to run at, and what binds it. */
export interface Decision {
  /** `null`: default clocks. */
  readonly pointId: string | null;
  readonly binding: Explanation['binding'];
}

export function attributesOfJob({ operation = 'chat', model, tenant, sloClass, slo, maxOutputTokens, streaming, workflow }: JobSpec): Attributes {
  return {
    'gen_ai.operation.name': operation,
    'gen_ai.provider.name': PROVIDER,
    'gen_ai.request.model': model,
    'gen_ai.request.stream': streaming,
    ...(maxOutputTokens === undefined ? {} : { 'gen_ai.request.max_tokens': maxOutputTokens }),
    'paceline.tenant': tenant,
    'paceline.slo.class': sloClass,
    ...(slo.ttftMs === undefined ? {} : { 'paceline.slo.ttft_ms': slo.ttftMs }),
    ...(slo.tpotMs === undefined ? {} : { 'paceline.slo.tpot_ms': slo.tpotMs }),
    ...(slo.e2eMs === undefined ? {} : { 'paceline.slo.e2e_ms': slo.e2eMs }),
    ...(workflow === undefined ? {} : { 'paceline.workflow.id': workflow.workflowId, 'paceline.workflow.stage': workflow.stage }),
  };
}

/** Tokens only as its server told them; energy as known at its end. */
export function attributesOfReport({ outcome, met, ttftMs, tpotMs, usageTold, promptTokens, cachedTokens, outputTokens, energy }: JobReport): Attributes {
  return {
    'paceline.outcome': outcome,
    ...(met === null ? {} : { 'paceline.slo.met': met }),
    ...(ttftMs === null ? {} : { 'gen_ai.response.time_to_first_chunk': ttftMs / 1_000 }),
    ...(tpotMs === null ? {} : { 'paceline.tpot_ms': tpotMs }),
    ...(usageTold !== true ? {} : { 'gen_ai.usage.input_tokens': promptTokens, 'gen_ai.usage.cache_read.input_tokens': cachedTokens, 'gen_ai.usage.output_tokens': outputTokens }),
    ...(energy === undefined ? {} : { 'paceline.energy.metered_j': energy.meteredJ, 'paceline.energy.modelled_j': energy.modelledJ, 'paceline.energy.maximum_clock_j': energy.maximumClockJ }),
  };
}
