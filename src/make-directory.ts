// A directory with all that is missing above it. Node's own `recursive` never returns where a file system answers ENOENT for a
// directory whose parent is there, as /proc does.
import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/** Throws Node's error of the first directory that cannot be made, or where a file stands in its place. `mode`: of those that are made. */
export function makeDirectory(path: string, mode = 0o777): void {
  const missing: string[] = [];
  let at = path;
  while (!exists(at)) {
    missing.push(at);
    at = dirname(at);
  }
  for (const directory of missing.toReversed()) makeOne(directory, mode);
}

function makeOne(path: string, mode: number): void {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    // Another process may have made it a moment ago.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
