// Non-negative least squares for a handful of unknowns. Time and energy never shrink with more work, so no
// coefficient may be negative: an ordinary fit of noisy rows would extrapolate to negative times.

/**
 * The non-negative vector `x` that minimises `|A·x − b|²`. `rows` is A, one array per measurement, all of one length n ≤ 6;
 * `targets` is b. With fewer rows than unknowns, unknowns are left at 0. All zeros when there are no rows.
 * Exact: the optimum is the best ordinary least-squares solution over the subsets of unknowns in which it is non-negative
 * (Karush–Kuhn–Tucker; Lawson and Hanson, Solving Least Squares Problems, 1974, ch. 23), and 2ⁿ subsets are few.
 */
export function nonNegativeLeastSquares(rows: readonly (readonly number[])[], targets: readonly number[]): number[] {
  const unknowns = rows[0]?.length ?? 0;
  let best: number[] = Array.from({ length: unknowns }, () => 0);
  let bestError = targets.reduce((sum, target) => sum + target * target, 0);
  // Columns differ by many powers of ten (1 against tokens squared): scaled to unit length, so that the solve stays accurate.
  const scales = best.map((_, column) => Math.sqrt(rows.reduce((sum, row) => sum + (row[column] as number) ** 2, 0)) || 1);
  const scaled = rows.map((row) => row.map((value, column) => value / (scales[column] as number)));
  for (let subset = 1; subset < 1 << unknowns; subset++) {
    const columns = best.map((_, column) => column).filter((column) => subset & (1 << column));
    if (columns.length > rows.length) continue;
    const solution = ordinaryLeastSquares(scaled, targets, columns);
    if (solution === null || solution.some((value) => value < 0)) continue;
    const error = squaredError(scaled, targets, columns, solution);
    if (error < bestError - 1e-12) {
      bestError = error;
      best = best.map(() => 0);
      columns.forEach((column, index) => {
        best[column] = (solution[index] as number) / (scales[column] as number);
      });
    }
  }
  return best;
}

/** By the normal equations and Gaussian elimination with pivoting; `null` where the columns are linearly dependent. */
function ordinaryLeastSquares(rows: readonly (readonly number[])[], targets: readonly number[], columns: readonly number[]): number[] | null {
  const size = columns.length;
  const matrix = columns.map((left) => [
    ...columns.map((right) => rows.reduce((sum, row) => sum + (row[left] as number) * (row[right] as number), 0)),
    rows.reduce((sum, row, index) => sum + (row[left] as number) * (targets[index] as number), 0),
  ]);
  const at = (row: number, column: number): number => (matrix[row] as number[])[column] as number;
  for (let pivot = 0; pivot < size; pivot++) {
    let largest = pivot;
    for (let row = pivot + 1; row < size; row++) if (Math.abs(at(row, pivot)) > Math.abs(at(largest, pivot))) largest = row;
    if (Math.abs(at(largest, pivot)) < 1e-12) return null;
    [matrix[pivot], matrix[largest]] = [matrix[largest] as number[], matrix[pivot] as number[]];
    for (let row = 0; row < size; row++) {
      if (row === pivot) continue;
      const factor = at(row, pivot) / at(pivot, pivot);
      for (let column = pivot; column <= size; column++) (matrix[row] as number[])[column] = at(row, column) - factor * at(pivot, column);
    }
  }
  return columns.map((_, index) => at(index, size) / at(index, index));
}

function squaredError(rows: readonly (readonly number[])[], targets: readonly number[], columns: readonly number[], solution: readonly number[]): number {
  return rows.reduce((sum, row, index) => {
    const predicted = columns.reduce((total, column, position) => total + (row[column] as number) * (solution[position] as number), 0);
    return sum + (predicted - (targets[index] as number)) ** 2;
  }, 0);
}
