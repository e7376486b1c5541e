// How a run is going, on a terminal as one line that is redrawn, elsewhere as a line every ten seconds.
import { percent } from './format-result.ts';
import type { LoadProgress } from './run-load.ts';

export interface ProgressPrinter {
  readonly show: (progress: LoadProgress) => void;
  /** A line of its own, whatever is being drawn. */
  readonly warn: (message: string) => void;
  readonly end: () => void;
}

const LINE_EVERY_S = 10;
const BAR_CELLS = 20;
const COLUMNS = 80;

export function createProgressPrinter(out: { readonly isTTY?: boolean; readonly columns?: number; readonly write: (text: string) => unknown }): ProgressPrinter {
  let drawn = false;
  let nextLineAtS = LINE_EVERY_S;

  function clear(): void {
    if (drawn) out.write('\r\u001B[K');
    drawn = false;
  }

  return {
    show: (progress) => {
      if (out.isTTY === true) {
        clear();
        // A line that wraps cannot be redrawn. A terminal without a size says 0.
        out.write(`${bar(progress)} ${progressText(progress)}`.slice(0, (out.columns || COLUMNS) - 1));
        drawn = true;
      } else if (progress.elapsedS >= nextLineAtS) {
        out.write(`${progressText(progress)}\n`);
        nextLineAtS = (Math.floor(progress.elapsedS / LINE_EVERY_S) + 1) * LINE_EVERY_S;
      }
    },
    warn: (message) => {
      clear();
      out.write(`paceline: ${message}\n`);
    },
    end: clear,
  };
}

export function progressText({ elapsedS, plannedS, total, sent, inFlight, completed, failed, attainment, powerW }: LoadProgress): string {
  const power = powerW === null ? '' : `, ${Math.round(powerW)} W`;
  return `${Math.round(elapsedS)}/${Math.ceil(plannedS)} s, sent ${sent}/${total}, in flight ${inFlight}, done ${completed}, failed ${failed}, attainment ${percent(attainment)}${power}`;
}

function bar({ elapsedS, plannedS }: LoadProgress): string {
  const filled = Math.round(BAR_CELLS * Math.min(1, plannedS > 0 ? elapsedS / plannedS : 1));
  return `[${'#'.repeat(filled)}${'.'.repeat(BAR_CELLS - filled)}]`;
}
