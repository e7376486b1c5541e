// What the scheduler is told of a request.
import type { TenantConfig } from '../config.ts';
import type { JobSpec } from '../core/job.ts';
import type { Endpoint } from './endpoints.ts';
import type { InferenceRequest } from './openai-request.ts';

export function jobOf(endpoint: Endpoint, request: InferenceRequest, of: Pick<JobSpec, 'jobId' | 'model' | 'operation' | 'slo' | 'sloClass' | 'worth' | 'workflow'> & { readonly tenant: TenantConfig }): JobSpec {
  const { promptBytes, promptTokens, prefix, maxOutputTokens, stream } = request;
  const work = endpoint === 'embeddings' || endpoint === 'prompt' || endpoint === 'opaque' ? 'embed' : 'generate';
  const { name, weight, admission } = of.tenant;
  return {
    ...of,
    tenant: name,
    weight,
    infeasible: admission.infeasible,
    ...(admission.queueTimeoutMs === null ? {} : { queueTimeoutMs: admission.queueTimeoutMs }),
    promptBytes,
    ...(promptTokens === null ? {} : { promptTokens }),
    ...(prefix === undefined ? {} : { prefix }),
    ...(maxOutputTokens === null ? {} : { maxOutputTokens }),
    work,
    streaming: stream && work === 'generate',
  };
}
