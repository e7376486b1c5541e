// Brings an OpenTelemetry SDK to the gateway, which has the API only. See docs/telemetry.md.
//
//   npm install @opentelemetry/sdk-node@0.223.0                  # beside this file, or above it
//   OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 OTEL_METRICS_EXPORTER=otlp \
//   OTEL_TRACES_SAMPLER=parentbased_traceidratio OTEL_TRACES_SAMPLER_ARG=0.01 \
//     node --import ./otel.mjs /path/to/paceline serve --config paceline.yaml
//
// All of it is configured by OpenTelemetry's own environment variables; nothing is sent anywhere but to the endpoint they name.
import { isMainThread } from 'node:worker_threads';
import { NodeSDK } from '@opentelemetry/sdk-node';

// The gateway answers probes from a thread of its own, which Node starts with the same options.
if (isMainThread) {
  process.env.OTEL_SERVICE_NAME ??= 'paceline';
  process.env.OTEL_LOGS_EXPORTER ??= 'none';
  const sdk = new NodeSDK();
  sdk.start();
  // The gateway takes signals itself and drains; when nothing is left to do, what has not been sent yet is.
  process.once('beforeExit', () => {
    sdk.shutdown().catch((error) => process.stderr.write(`${JSON.stringify({ level: 40, time: new Date().toISOString(), msg: 'the last spans could not be sent', err: String(error) })}\n`));
  });
}
