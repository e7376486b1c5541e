// Rows as a table for people: the first column to the left, the others to the right.

export function tableOf<Row>(columns: readonly (readonly [title: string, cell: (row: Row) => string])[], rows: readonly Row[]): string {
  const table = [columns.map(([title]) => title), ...rows.map((row) => columns.map(([, cell]) => cell(row)))];
  const widths = columns.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0)));
  return table.map((row) => row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join('  ')).join('\n');
}
