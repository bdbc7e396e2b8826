import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'

import { runSoak } from '../../bench/runSoak.ts'

test.each([true, false])('300 flows with churn, half-closes, stalls and resets; every byte checked at both ends (payload kept: %s)', async (payload) => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-soak-'))
  try {
    const result = await runSoak({ folder, seconds: 10, flows: 300, threads: 2, seed: payload ? 1 : 2, payload, say: () => undefined })
    expect(result.problems).toEqual([])
    expect(result.most).toBe(300)
    expect(result.whole).toBeGreaterThan(300)
    expect(result.broken).toBeGreaterThan(0)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}, 180_000)
