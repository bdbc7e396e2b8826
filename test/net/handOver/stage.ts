import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest'

import { makeLab } from '#test/lab/makeLab.ts'
import type { Lab } from '#test/lab/makeLab.ts'
import { makeProgramFolder, startTestHelper } from '#test/net/helper/harness.ts'
import type { TestHelper } from '#test/net/helper/harness.ts'

// What the tests with real proxies stand on. Importing it is enough: each test gets it anew, and these names are what they are for the test that runs.

/** An installed Sluice; one for the whole file. */
export let programs: Awaited<ReturnType<typeof makeProgramFolder>>
export let lab: Lab
/** On the router; it ends with the test. */
export let helper: TestHelper
/** For the proxies' files, which they may write as whoever they run as. */
export let folder: string

/** A server on port 8080 as well. */
export function withOrigin(): void {
  beforeEach(async () => {
    await lab.peer('server', 'serve', 'origin', '8080').event(({ event }) => event === 'listening')
  })
}

beforeAll(async () => {
  programs = await makeProgramFolder()
})
afterAll(() => programs.remove())
beforeEach(async () => {
  lab = await makeLab()
  folder = mkdtempSync(join(tmpdir(), 'sluice-hand-'))
  chmodSync(folder, 0o777)
  helper = startTestHelper(lab, programs)
})
afterEach(async () => {
  helper.kill()
  await lab.remove()
  rmSync(folder, { recursive: true, force: true })
})
