// Tells when files are others than they were. Their times and sizes are compared every so often, no events are waited for:
// those are lost where a directory is swapped under a link, which is how Kubernetes replaces what it mounts.
import { statSync } from 'node:fs';

export interface FileWatch {
  /** They have been read just now; what changes from here on is told. */
  seen(): void;
  close(): void;
}

/** `changed` is called once per change, not before `everyMs`. `paths` are asked for at every look: they may become others. */
export function watchFiles(paths: () => readonly string[], { everyMs, changed }: { readonly everyMs: number; readonly changed: () => void }): FileWatch {
  let known = fingerprint(paths());
  const look = setInterval(() => {
    const now = fingerprint(paths());
    if (now === known) return;
    known = now;
    changed();
  }, everyMs);
  look.unref();
  return {
    seen: () => {
      known = fingerprint(paths());
    },
    close: () => clearInterval(look),
  };
}

function fingerprint(paths: readonly string[]): string {
  return paths
    .map((path) => {
      try {
        const { dev, ino, mtimeNs, size } = statSync(path, { bigint: true });
        return `${dev}:${ino}:${mtimeNs}:${size}`;
      } catch (error) {
        // Gone, a loop of links, no right to look, a file system that is away: whoever reads it says so.
        return String((error as NodeJS.ErrnoException).code);
      }
    })
    .join(' ');
}
