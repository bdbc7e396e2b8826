import { defineConfig } from 'vitest/config'

// `unit` needs nothing; `net` makes network namespaces, so it needs root; each file has namespaces of its own, and mostly waits; more than three at a time starve one another.
export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 30_000 } },
      {
        test: {
          name: 'net',
          include: ['test/net/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          maxWorkers: 3,
          pool: 'forks',
          // What is awaited is awaited: a second, as vitest has it, is little on a machine that builds beside its tests.
          expect: { poll: { timeout: 20_000 } },
        },
      },
    ],
  },
})
