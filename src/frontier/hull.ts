// The lower convex hull of points in any two measures, of which less is better in both: what no mixture of others beats.

/**
 * Of the points those below which no line between two others passes, by falling `cost` along rising `along`: each further one costs less, and ever less of it
 * is saved. Of those that are less than `same` apart the cheaper stands for both. O(n log n).
 */
export function lowerHull<Point>(points: readonly Point[], along: (point: Point) => number, cost: (point: Point) => number, same = 0): Point[] {
  const hull: Point[] = [];
  for (const point of points.toSorted((a, b) => along(a) - along(b) || cost(a) - cost(b))) {
    const last = hull.at(-1);
    if (last !== undefined && cost(point) >= cost(last)) continue;
    if (last !== undefined && along(point) - along(last) < same) hull.pop();
    for (let size = hull.length; size >= 2; size = hull.length) {
      const [before, middle] = [hull[size - 2] as Point, hull[size - 1] as Point];
      const bends = (cost(before) - cost(middle)) * (along(point) - along(middle)) > (cost(middle) - cost(point)) * (along(middle) - along(before));
      if (bends) break;
      hull.pop();
    }
    hull.push(point);
  }
  return hull;
}
