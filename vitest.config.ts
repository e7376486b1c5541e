import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // `make test-engines` runs those of engines; the clients bring tests of their own.
    exclude: ['**/node_modules/**', 'test/engines/**'],
    // Whole-process tests start real agents, engines and gateways; two cores bear two files at a time.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});
