// Where the load goes: reachable, and which model it serves. Asked once, before the first request.
import type { Pool } from 'undici';
import { z } from 'zod';

/** The run cannot start, or its result is worth nothing; the message is for the person who started it. */
export class LoadError extends Error {
  override name = 'LoadError';
}

/** `http://host:port`, with or without `/v1` behind it as SDKs write it. */
export function parseTargetUrl(text: string): { readonly origin: string; readonly basePath: string } {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) throw new LoadError(`--url: got '${text}', want http://HOST:PORT`);
  if (url.username !== '' || url.search !== '' || url.hash !== '') throw new LoadError(`--url: got '${text}', want neither a user nor a query in it (keys go into --api-key)`);
  return { origin: url.origin, basePath: url.pathname.replace(/\/+$/, '').replace(/\/v1$/, '') };
}

const Models = z.looseObject({ data: z.array(z.looseObject({ id: z.string() })) });

/** The wanted model, else the first that `GET /v1/models` names. Asks in either case, so that a wrong address shows at once. */
export async function findModel(pool: Pool, url: string, basePath: string, headers: Readonly<Record<string, string>>, wanted: string | undefined): Promise<string> {
  const path = `${basePath}/v1/models`;
  let statusCode: number;
  let text: string;
  try {
    const response = await pool.request({ path, method: 'GET', headers: { ...headers }, headersTimeout: 10_000, bodyTimeout: 10_000 });
    statusCode = response.statusCode;
    text = await response.body.text();
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new LoadError(`${url}: cannot be reached (${code}); is the server running there?`, { cause });
  }
  if (wanted !== undefined) return wanted;
  if (statusCode === 401 || statusCode === 403) throw new LoadError(`${url}: GET ${path} answered ${statusCode}; give a valid --api-key`);
  const parsed = statusCode === 200 ? Models.safeParse(parseJson(text)) : null;
  const model = parsed?.data?.data[0]?.id;
  if (model === undefined) throw new LoadError(`${url}: GET ${path} answered ${statusCode} and names no model; say --model NAME`);
  return model;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
