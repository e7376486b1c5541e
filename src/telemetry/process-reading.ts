// How the process itself does: the delay of its event loop above all, for a gateway that is late cannot pace anybody.
import { monitorEventLoopDelay } from 'node:perf_hooks';

export interface ProcessReading {
  /** Since the last reading, by percentile. */
  readonly eventLoopDelayS: Readonly<Record<'50' | '99' | '100', number>>;
  readonly residentBytes: number;
  readonly cpuS: number;
}

export interface ProcessReader {
  read(): ProcessReading;
  close(): void;
}

const RESOLUTION_MS = 10;

export function createProcessReader(): ProcessReader {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delay.enable();
  return {
    read: () => {
      // The sampler counts its own period in; without samples its quantiles are no numbers.
      const percentileS = (percentile: number): number => Math.max(0, (delay.count === 0 ? 0 : delay.percentile(percentile)) / 1e9 - RESOLUTION_MS / 1_000);
      const reading = {
        eventLoopDelayS: { '50': percentileS(50), '99': percentileS(99), '100': percentileS(100) },
        residentBytes: process.memoryUsage.rss(),
        cpuS: (({ user, system }) => (user + system) / 1e6)(process.cpuUsage()),
      };
      delay.reset();
      return reading;
    },
    close: () => delay.disable(),
  };
}
