// What OpenTelemetry's conventions for generative AI count of a model server, under their names: on the page for Prometheus, by
// the rules by which OpenTelemetry's names become Prometheus', and to the operator's SDK where there is one.
import type { Meter } from '@opentelemetry/api';
import type { JobReport } from '../scheduler/events.ts';
import type { Registry } from './registry.ts';

export interface GenAiMetrics {
  reported(report: JobReport): void;
}

/** Who answers, as far as the client can tell. */
export const PROVIDER = 'paceline';

/** Of gen_ai.server.*, seconds; the conventions name them. */
export const TTFT_BOUNDS_S = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
export const TPOT_BOUNDS_S = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5];
export const DURATION_BOUNDS_S = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const TOKEN_BOUNDS = [1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864];

const COMMON = ['gen_ai.operation.name', 'gen_ai.provider.name', 'gen_ai.request.model'] as const;

interface Declaration {
  readonly name: string;
  readonly unit: 's' | '{token}';
  readonly help: string;
  readonly bounds: readonly number[];
  /** Beside those that all have. */
  readonly attribute?: string;
}

export function createGenAiMetrics(registry: Registry, meter: Meter | null): GenAiMetrics {
  const duration = histogramOf(registry, meter, { name: 'gen_ai.server.request.duration', unit: 's', help: 'From arrival to the last byte, of requests that became a job and were not rejected; error_type is empty where all went well.', bounds: DURATION_BOUNDS_S, attribute: 'error.type' });
  const ttft = histogramOf(registry, meter, { name: 'gen_ai.server.time_to_first_token', unit: 's', help: 'From arrival to the first output token, of streams that ended well.', bounds: TTFT_BOUNDS_S });
  const tpot = histogramOf(registry, meter, { name: 'gen_ai.server.time_per_output_token', unit: 's', help: 'Mean over the tokens after the first, of streams that ended well.', bounds: TPOT_BOUNDS_S });
  const tokens = histogramOf(registry, meter, { name: 'gen_ai.client.token.usage', unit: '{token}', help: 'Tokens per request, where its server told its usage.', bounds: TOKEN_BOUNDS, attribute: 'gen_ai.token.type' });

  return {
    reported: ({ operation = 'chat', model, outcome, e2eMs, ttftMs, tpotMs, usageTold, promptTokens, outputTokens }) => {
      const finished = outcome === 'finished';
      duration(operation, model, finished ? '' : outcome, e2eMs / 1_000);
      if (finished && ttftMs !== null) ttft(operation, model, '', ttftMs / 1_000);
      if (finished && tpotMs !== null) tpot(operation, model, '', tpotMs / 1_000);
      if (usageTold !== true) return;
      tokens(operation, model, 'input', promptTokens);
      tokens(operation, model, 'output', outputTokens);
    },
  };
}

/** Into both, where both are there. */
function histogramOf(registry: Registry, meter: Meter | null, { name, unit, help, bounds, attribute }: Declaration): (operation: string, model: string, own: string, value: number) => void {
  const names = attribute === undefined ? COMMON : [...COMMON, attribute];
  const page = registry.histogram({ name: `${promName(name)}${unit === 's' ? '_seconds' : ''}`, help, labels: names.map(promName), bounds });
  const told = meter?.createHistogram(name, { unit, description: help, advice: { explicitBucketBoundaries: [...bounds] } });
  return (operation, model, own, value) => {
    page.observe(attribute === undefined ? [operation, PROVIDER, model] : [operation, PROVIDER, model, own], value);
    told?.record(value, { 'gen_ai.operation.name': operation, 'gen_ai.provider.name': PROVIDER, 'gen_ai.request.model': model, ...(attribute === undefined || own === '' ? {} : { [attribute]: own }) });
  };
}

function promName(name: string): string {
  return name.replaceAll('.', '_');
}
