// OpenTelemetry as its operator brings it: we use its API only. Where no SDK has been registered before the gateway is built (by
// `node --import`), there is neither tracer nor meter, and nothing is paid for them.
import { createNoopMeter, metrics, ProxyTracerProvider, trace } from '@opentelemetry/api';
import type { Meter, Tracer } from '@opentelemetry/api';

export interface OpenTelemetry {
  /** `null`: nobody listens. */
  readonly tracer: Tracer | null;
  readonly meter: Meter | null;
}

/** Names the instrumentation to the SDK. */
const SCOPE = 'paceline';

export function findOpenTelemetry(): OpenTelemetry {
  const meter = metrics.getMeter(SCOPE);
  // The API has one meter that does nothing, which all get who come before an SDK.
  return { tracer: isTraced() ? trace.getTracer(SCOPE) : null, meter: meter === createNoopMeter() ? null : meter };
}

function isTraced(): boolean {
  const provider = trace.getTracerProvider();
  return !(provider instanceof ProxyTracerProvider) || provider.getDelegateTracer(SCOPE) !== undefined;
}
