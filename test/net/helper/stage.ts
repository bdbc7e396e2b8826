import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest'

import { makeLab } from '#test/lab/makeLab.ts'
import type { Lab, Place } from '#test/lab/makeLab.ts'

import { makeProgramFolder, snapshot, startTestHelper } from './harness.ts'
import type { TestHelper } from './harness.ts'

// What most tests of the helper stand on. Importing it is enough: each test gets it anew, and these names are what they are for the test that runs.

/** An installed Sluice; one for the whole file. */
export let programs: Awaited<ReturnType<typeof makeProgramFolder>>
/** With a server on port 8080. */
export let lab: Lab
/** What the router held before anything was done. */
export let before: string
const started: TestHelper[] = []

/** A helper that ends with the test. `within`: words that start it. */
export function start(within: readonly string[] = [], place: Place = 'router'): TestHelper {
  const helper = startTestHelper(lab, programs, place, undefined, within)
  started.push(helper)
  return helper
}

beforeAll(async () => {
  programs = await makeProgramFolder()
})
afterAll(() => programs.remove())
beforeEach(async () => {
  lab = await makeLab()
  await lab.peer('server', 'serve', 'origin', '8080').event(({ event }) => event === 'listening')
  before = await snapshot(lab)
})
afterEach(async () => {
  for (const helper of started.splice(0)) helper.kill()
  await lab.remove()
})
