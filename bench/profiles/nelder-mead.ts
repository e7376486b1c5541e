// Nelder and Mead's simplex search: for a handful of parameters and an objective without derivatives. Deterministic.

/**
 * The best vector found from `start` in `evaluations` calls of `objective`; `steps` sets the first simplex.
 * Source: Nelder and Mead, A simplex method for function minimization, The Computer Journal 7 (1965); usual coefficients.
 */
export function nelderMead(objective: (x: readonly number[]) => number, start: readonly number[], steps: readonly number[], evaluations: number): { readonly x: readonly number[]; readonly value: number } {
  interface Vertex {
    readonly x: readonly number[];
    readonly value: number;
  }
  const at = (x: readonly number[]): Vertex => ({ x, value: objective(x) });
  const simplex: Vertex[] = [at(start), ...start.map((_, axis) => at(start.map((value, index) => (index === axis ? value + (steps[index] as number) : value))))];
  let used = simplex.length;
  const byValue = (a: Vertex, b: Vertex): number => a.value - b.value;
  while (used < evaluations) {
    simplex.sort(byValue);
    const worst = simplex.at(-1) as Vertex;
    const best = simplex[0] as Vertex;
    const others = simplex.slice(0, -1);
    const centre = start.map((_, index) => others.reduce((sum, vertex) => sum + (vertex.x[index] as number), 0) / others.length);
    const along = (share: number): Vertex => at(centre.map((value, index) => value + share * ((worst.x[index] as number) - value)));
    let next = along(-1);
    used++;
    if (next.value < best.value) {
      const further = along(-2);
      used++;
      if (further.value < next.value) next = further;
    } else if (next.value >= (others.at(-1) as Vertex).value) {
      next = along(next.value < worst.value ? -0.5 : 0.5);
      used++;
    }
    if (next.value < worst.value) {
      simplex[simplex.length - 1] = next;
      continue;
    }
    for (let index = 1; index < simplex.length; index++) {
      simplex[index] = at((simplex[index] as Vertex).x.map((value, axis) => ((best.x[axis] as number) + value) / 2));
      used++;
    }
  }
  simplex.sort(byValue);
  return simplex[0] as Vertex;
}
