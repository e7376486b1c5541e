// A bearer token that lies in a file of its own.
import { readFileSync } from 'node:fs';

/** Throws where it cannot be read, or holds something else than one line. What it holds is never told. */
export function tokenIn(path: string): string {
  let token: string;
  try {
    token = readFileSync(path, 'utf8').trim();
  } catch (error) {
    throw new Error(`the token file ${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  if (!/^[\x21-\x7e]{1,4096}$/.test(token)) throw new Error(`the token file ${path} must hold one line of 1 to 4096 printable characters without spaces`);
  return token;
}
