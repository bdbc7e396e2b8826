import { defineConfig } from '@playwright/test'

/**
 * `page` needs no root and opens no gate: the real app on sessions made for the test. `e2e` opens real gates in a laboratory of namespaces, so
 * it needs root. One worker: two applications at once on a small machine only make each other slow.
 */
export default defineConfig({
  workers: 1,
  fullyParallel: false,
  timeout: 120_000,
  // Painting is done by the processor here and may have little of it: an awaited thing may take long, but nothing waits when it is there.
  expect: { timeout: 20_000 },
  outputDir: 'test-results',
  reporter: [['list']],
  forbidOnly: process.env['CI'] !== undefined,
  projects: [
    { name: 'page', testDir: 'test/page' },
    { name: 'e2e', testDir: 'test/e2e' },
    { name: 'screenshots', testDir: 'test/screenshots' },
  ],
})
