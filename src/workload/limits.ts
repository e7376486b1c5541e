// Bounds of workloads, with their reasons.

/** Requests of one workload. At 100 bytes each they stay in memory; an hour of a large fleet fits, two weeks do not. */
export const WORKLOAD_REQUESTS_MAX = 2_000_000;

/** Tokens of one prompt or answer. No model served today takes more; a larger number is a wrong column. */
export const REQUEST_TOKENS_MAX = 10_000_000;

/** Text of one trace file that is read into memory (V8 strings end at 512 MiB). */
export const TRACE_BYTES_MAX = 400 * 1024 * 1024;

/** SLO classes of one run: each is a row of the report and a label. */
export const SLO_CLASSES_MAX = 32;

/** From a workload's first request to its last. The longest public trace has two weeks; a year between two lines is a wrong unit. */
export const WORKLOAD_SPAN_MAX_MS = 100 * 86_400_000;
