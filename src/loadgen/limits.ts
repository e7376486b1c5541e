// Bounds of the load generator, with their reasons.
import assert from 'node:assert/strict';

/** Requests awaiting an answer. Each holds a socket; beyond this the machine that sends is what is being measured. */
export const IN_FLIGHT_MAX = 10_000;

/** One event of a stream: a chunk with log probabilities stays well below. */
export const SSE_EVENT_CHARS_MAX = 1024 * 1024;

/** One whole answer: 100,000 tokens at 500 bytes an event, and some. */
export const RESPONSE_BYTES_MAX = 64 * 1024 * 1024;

/** What is kept of an error's body, enough for its message. */
export const ERROR_BODY_BYTES_MAX = 4096;

/** Different failures told apart in the report; further ones are counted as `other`. */
export const FAILURE_KINDS_MAX = 16;

/** One answer of the agent: some hundred devices fit many times over. */
export const AGENT_BODY_BYTES_MAX = 4 * 1024 * 1024;

assert(SSE_EVENT_CHARS_MAX < RESPONSE_BYTES_MAX, 'an answer holds at least one event');
