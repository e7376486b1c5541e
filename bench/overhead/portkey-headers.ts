// Loaded into Portkey by `--import`. As installed from npm (1.15.2, with any @hono/node-server that it allows) it answers 500 to
// every stream: it appends to the headers of the server's answer, which `fetch` made immutable. Here streams get headers that can
// be appended to; a copy of some headers per stream is all that it costs.
const plainFetch = globalThis.fetch;
const PlainResponse = globalThis.Response;
globalThis.fetch = async (...args) => {
  const answer = await plainFetch(...args);
  return answer.headers.get('content-type')?.startsWith('text/event-stream') === true ? new PlainResponse(answer.body, { status: answer.status, headers: new Headers(answer.headers) }) : answer;
};
