// How the process itself does: the delay of its event loop above all, for a gateway that is late cannot pace anybody.
import { monitorEventLoopDelay } from 'node:perf_hooks';

export interface ProcessReading {
  /** Since the last reading, by quantile. */
  readonly eventLoopDelayS: Readonly<Record<'0.5' | '0.99' | '1', number>>;
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
      const quantileS = (percentile: number): number => Math.max(0, (delay.count === 0 ? 0 : delay.percentile(percentile)) / 1e9 - RESOLUTION_MS / 1_000);
      const reading = {
        eventLoopDelayS: { '0.5': quantileS(50), '0.99': quantileS(99), '1': quantileS(100) },
        residentBytes: process.memoryUsage.rss(),
        cpuS: (({ user, system }) => (user + system) / 1e6)(process.cpuUsage()),
      };
      delay.reset();
      return reading;
    },
    close: () => delay.disable(),
  };
}
