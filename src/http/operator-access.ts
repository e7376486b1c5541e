// Who may ask what operators ask: whoever has the key, where one is configured; and no listener beyond this machine without one.
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { isIPv4, isIPv6 } from 'node:net';
import type { Config } from '../config.ts';
import { ConfigError } from '../config/config-problems.ts';

export type OperatorAccess = Config['admin']['access'];

/** What supervisors ask before anybody could give them a key; says no more than yes or no. */
const OPEN_PATHS: ReadonlySet<string> = new Set(['/healthz', '/readyz']);

export function mayOperate(access: OperatorAccess, path: string, headers: IncomingHttpHeaders): boolean {
  if (OPEN_PATHS.has(path) || (access?.metricsOpen === true && path === '/metrics')) return true;
  if (access === null) return !isOfAnotherSite(headers) && isOfThisMachine(headers);
  const given = keyOf(headers);
  if (given === null) return false;
  const digest = createHash('sha256').update(given).digest();
  // All of them, each in the same time: neither which key nor how much of it was right can be told from the answer's delay.
  let known = false;
  for (const key of access.keySha256) known = timingSafeEqual(digest, Buffer.from(key, 'hex')) || known;
  return known;
}

/** After all of `admin` is known, the command line's part too. */
export function refuseOpenAdmin({ host, access }: Config['admin']): void {
  if (access !== null || isLoopback(host)) return;
  throw new ConfigError([`admin: listens on ${host}, which others than this machine can reach, and has no key; set admin.keyEnv or admin.keySha256, or listen on 127.0.0.1`]);
}

/**
 * Programs send it as a bearer token, browsers as the password that they ask for. What a browser sends by itself it sends for a page of
 * another site too, so that such a page is refused; a bearer token no page can send that has not been told it.
 */
function keyOf(headers: IncomingHttpHeaders): string | null {
  const { authorization = '' } = headers;
  const bearer = /^Bearer +(\S+)$/i.exec(authorization)?.[1];
  if (bearer !== undefined) return bearer;
  const basic = /^Basic +(\S+)$/i.exec(authorization)?.[1];
  if (basic === undefined || isOfAnotherSite(headers)) return null;
  const pair = Buffer.from(basic, 'base64').toString();
  return pair.includes(':') ? pair.slice(pair.indexOf(':') + 1) : null;
}

/** A page in an operator's browser reaches this machine's ports too; it cannot leave out what the browser says of it. */
function isOfAnotherSite({ origin, 'sec-fetch-site': site }: IncomingHttpHeaders): boolean {
  return origin !== undefined || (site !== undefined && site !== 'none' && site !== 'same-origin');
}

/**
 * Without a key only this machine reaches the listener, a browser of it included, whom another site's name can be made to lead here (DNS rebinding):
 * such a request names that site as its host. Who names none is no browser.
 */
function isOfThisMachine({ host }: IncomingHttpHeaders): boolean {
  if (host === undefined) return true;
  const name = host.replace(/:\d*$/, '').replace(/^\[(.*)\]$/, '$1');
  return isLoopback(name) || name.toLowerCase().endsWith('.localhost');
}

function isLoopback(host: string): boolean {
  if (isIPv4(host)) return host.startsWith('127.');
  return isIPv6(host) ? host === '::1' : host.toLowerCase() === 'localhost';
}
