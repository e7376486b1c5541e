// Levenberg and Marquardt's damped least squares, with slopes by differences: for a dozen parameters and an objective that
// takes seconds. Deterministic.

/** Difference by which a slope is taken. Wide: a percentile of a simulated test is a staircase when seen from near. */
const DIFFERENCE = 0.03;
/** A step moves no parameter by more: from afar the slopes promise too much. */
const STEP_MAX = 0.5;
const TRIES = 6;
/** A step that gains a smaller share of the sum than this is the last. */
const GAIN_MIN = 1e-4;

/**
 * The vector with the least sum of squared residuals that `iterations` steps from `start` reach.
 * Source: Marquardt, An algorithm for least-squares estimation of nonlinear parameters, J. SIAM 11 (1963).
 */
export function dampedLeastSquares(residuals: (x: readonly number[]) => number[], start: readonly number[], iterations: number): { readonly x: readonly number[]; readonly sum: number } {
  let x = [...start];
  let here = residuals(x);
  let sum = squares(here);
  let damping = 0.01;
  for (let iteration = 0; iteration < iterations; iteration++) {
    const slopes = x.map((_, axis) => {
      const there = residuals(x.map((value, index) => (index === axis ? value + DIFFERENCE : value)));
      return there.map((value, row) => (value - (here[row] as number)) / DIFFERENCE);
    });
    const normal = slopes.map((a) => slopes.map((b) => dot(a, b)));
    const downhill = slopes.map((slope) => -dot(slope, here));
    let gain = 0;
    for (let attempt = 0; attempt < TRIES && gain === 0; attempt++) {
      const damped = normal.map((row, index) => row.map((value, column) => (index === column ? value * (1 + damping) + 1e-9 : value)));
      const step = solved(damped, downhill);
      const scale = Math.min(1, STEP_MAX / Math.max(...step.map(Math.abs)));
      const next = x.map((value, index) => value + scale * (step[index] as number));
      const nextResiduals = residuals(next);
      const nextSum = squares(nextResiduals);
      if (nextSum < sum) {
        gain = (sum - nextSum) / sum;
        x = next;
        here = nextResiduals;
        sum = nextSum;
        damping /= 5;
      } else damping *= 6;
    }
    if (gain < GAIN_MIN) break;
  }
  return { x, sum };
}

/** Gauss and Jordan's elimination with pivots; the matrix is positive definite, so there is a solution. */
function solved(matrix: readonly (readonly number[])[], right: readonly number[]): number[] {
  const rows = matrix.map((row, index) => [...row, right[index] as number]);
  for (let column = 0; column < rows.length; column++) {
    let pivot = column;
    for (let row = column + 1; row < rows.length; row++) if (Math.abs(at(rows, row, column)) > Math.abs(at(rows, pivot, column))) pivot = row;
    [rows[column], rows[pivot]] = [rows[pivot] as number[], rows[column] as number[]];
    const pivotRow = rows[column] as number[];
    rows.forEach((row, index) => {
      if (index === column) return;
      const factor = (row[column] as number) / (pivotRow[column] as number);
      for (let cell = column; cell < row.length; cell++) row[cell] = (row[cell] as number) - factor * (pivotRow[cell] as number);
    });
  }
  return rows.map((row, index) => (row.at(-1) as number) / (row[index] as number));
}

function at(rows: readonly (readonly number[])[], row: number, column: number): number {
  return (rows[row] as readonly number[])[column] as number;
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, index) => sum + value * (b[index] as number), 0);
}

function squares(values: readonly number[]): number {
  return dot(values, values);
}
