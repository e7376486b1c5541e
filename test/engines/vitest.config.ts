import { defineConfig } from 'vitest/config';

// `make test-engines`, after setup.sh: not a part of `make test`, whose own list leaves this directory out.
export default defineConfig({
  test: {
    include: ['test/engines/*.test.ts'],
    // One engine at a time: two would take each other's cores.
    maxWorkers: 1,
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 240_000,
  },
});
