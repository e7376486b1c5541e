// Logs are JSON lines on stderr; stdout is for what a command answers.
import { destination, pino } from 'pino';
import type { Logger } from 'pino';

export function createLog(level: string): Logger {
  return pino({ level, base: null, timestamp: () => `,"time":"${new Date().toISOString()}"` }, destination(2));
}
