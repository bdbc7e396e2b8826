import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'

import { runSoak, type SoakOptions, type SoakResult } from '../../bench/runSoak.ts'

const soak = async (options: Omit<SoakOptions, 'folder' | 'threads' | 'say'>): Promise<SoakResult> => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-soak-'))
  try {
    return await runSoak({ ...options, folder, threads: 2, say: () => undefined })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

test.each([true, false])('300 flows of TCP and UDP, of both families, of devices and local programs, with churn, half-closes, stalls and resets; every byte checked at both ends (payload kept: %s)', async (payload) => {
  const result = await soak({ seconds: 5, flows: 300, seed: payload ? 1 : 2, payload })
  expect(result.problems).toEqual([])
  expect(result.most).toBe(240)
  expect(result.whole).toBeGreaterThan(240)
  expect(result.udp.whole).toBeGreaterThanOrEqual(60)
  expect(result.broken).toBeGreaterThan(0)
}, 180_000)

test('20,000 short connections, each exact in the record; memory and descriptors stay', async () => {
  const result = await soak({ seconds: 0, short: 20_000, flows: 64, seed: 3, payload: true })
  expect(result.problems).toEqual([])
  expect(result.begun).toBe(20_000)
  expect(result.recorded).toEqual([20_000, 20_000, 20_000])
}, 180_000)
