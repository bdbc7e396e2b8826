import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest'

import { makeLab } from '#test/lab/makeLab.ts'
import type { Lab } from '#test/lab/makeLab.ts'

import { snapshot } from '../helper/harness.ts'
import { installSluice } from './harness.ts'
import type { Installed } from './harness.ts'

// What most tests of the command stand on. Importing it is enough: each test gets a laboratory anew, and these names are what they are for the test that runs.

/** One for the whole file. */
export let installed: Installed
export let lab: Lab
/** What the router held before anything was done. */
export let before: string

/** Servers of TCP that every test of the file finds. */
let ports: readonly string[] = []
export const withServers = (...numbers: readonly string[]): void => void (ports = numbers)

beforeAll(() => {
  installed = installSluice()
}, 240_000)
afterAll(() => installed.remove())
beforeEach(async () => {
  lab = await makeLab()
  for (const port of ports) await lab.peer('server', 'serve', 'origin', port).event(({ event }) => event === 'listening')
  before = await snapshot(lab)
})
afterEach(() => lab.remove())
