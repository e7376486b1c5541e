import { expect, test } from 'vitest';
import { RedisUrlError, parseRedisUrl } from '../../src/store/redis-url.ts';

test.each([
  { text: 'redis://cache', address: { host: 'cache', port: 6379, tls: false, username: null, password: null, shown: 'redis://cache:6379' } },
  { text: 'redis://10.0.0.7:6380/', address: { host: '10.0.0.7', port: 6380 } },
  { text: 'rediss://gate:s%40cret@cache.example:6390/0', address: { host: 'cache.example', port: 6390, tls: true, username: 'gate', password: 's@cret', shown: 'rediss://***@cache.example:6390' } },
  { text: 'redis://:secret@[::1]:6380', address: { host: '::1', port: 6380, username: null, password: 'secret', shown: 'redis://***@[::1]:6380' } },
])('$text is understood', ({ text, address }) => {
  expect(parseRedisUrl(text)).toMatchObject(address);
});

test.each([
  { text: 'localhost:6379', says: "'localhost:6379': got protocol 'localhost:'" },
  { text: 'http://u:secret@cache:6379', says: "'http://***@cache:6379': got protocol 'http:'" },
  { text: 'redis//:secret@cache', says: "'***@cache': not a URL" },
  { text: 'redis://u:secret@cache:99999', says: "'redis://***@cache:99999': not a URL" },
  { text: 'redis://u:sec@ret@:6379', says: "'redis://***@:6379'" },
  { text: 'redis://', says: "'redis://': no host" },
  { text: 'redis://u:secret@cache/3', says: "'redis://***@cache/3': got '/3' after the host, but only database 0 is used" },
  { text: 'redis://cache?password=secret', says: "'redis://cache?***': nothing may follow" },
  { text: 'redis://u:secret%zz@cache', says: 'write %25 for %' },
])('$text is refused, without its password', ({ text, says }) => {
  const refusal = refusalOf(text);
  expect(refusal.message).toContain(says);
  expect(JSON.stringify({ ...refusal, message: refusal.message, stack: refusal.stack, cause: refusal.cause })).not.toMatch(/secret|sec@ret/);
});

function refusalOf(text: string): RedisUrlError {
  try {
    parseRedisUrl(text);
  } catch (error) {
    if (error instanceof RedisUrlError) return error;
  }
  throw new Error(`${text} was not refused`);
}
