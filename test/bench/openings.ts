import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'

import { compileRules } from '#core/rules/compileRules.ts'
import { makePlan, type PlanWish } from '#core/plan/makePlan.ts'
import { connectHelper } from '#elevate/helperConnection.ts'
import { digestRules } from '#probe/digestRules.ts'
import { findPlaces } from '#probe/places.ts'
import type { Lab } from '../lab/makeLab.ts'

export interface OpenedGate {
  /** From the plan's being told to the helper until the relay listens and the rules take. */
  readonly milliseconds: number
  /** The helper's own words for what it did, with how long each took. */
  readonly steps: ReadonlyMap<string, number>
  close(): Promise<void>
}

let count = 0

/** Opens the gate in the router as an app does whose helper has just been elevated. `threads`: of the relay. */
export async function openGate(lab: Lab, wish: PlanWish, folder: string, threads = 2): Promise<OpenedGate> {
  const { runtime, helper } = findPlaces()
  const [command, ...words] = [...lab.enter('router'), runtime, helper]
  const child = spawn(command, words, { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', SUDO_UID: String(process.getuid?.() ?? 0) }, detached: true })
  const connection = connectHelper(child)
  const steps = new Map<string, number>()
  let step: { readonly text: string; readonly since: number } | undefined
  const turn = (text: string | undefined): void => {
    const now = performance.now()
    if (step !== undefined) steps.set(step.text, (steps.get(step.text) ?? 0) + now - step.since)
    step = text === undefined ? undefined : { text, since: now }
  }
  connection.onEvent((event) => {
    if (event.event === 'step') turn(event.text)
  })
  await connection.request('hello', { protocol: 1 })
  const plan = makePlan(wish)
  const digest = digestRules(compileRules(plan, await connection.request('facts', {})))
  const session = join(folder, `gate-${String(++count)}.sluice`)
  mkdirSync(session, { mode: 0o700 })
  const begun = performance.now()
  await connection.request('open', { plan, digest, capture: { folder: session, payload: true, maxBytesPerFlow: null, maxBytes: null }, threads })
  const milliseconds = performance.now() - begun
  turn(undefined)
  return {
    milliseconds,
    steps,
    async close() {
      await connection.request('close', {})
      await connection.end()
    },
  }
}
