import { chmodSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { makeLab } from '#test/lab/makeLab.ts'
import type { Lab } from '#test/lab/makeLab.ts'

import { ask, expectClean, expectDirect, findProcess, makeProgramFolder, makeSession, openArguments, programsIn, snapshot, startTestHelper } from './harness.ts'
import type { TestHelper } from './harness.ts'

let programs: Awaited<ReturnType<typeof makeProgramFolder>>
/** As `programs`, but the relay takes six seconds to begin: longer than a guard's patience. */
let slow: Awaited<ReturnType<typeof makeProgramFolder>>
let lab: Lab
let before: string
const started: TestHelper[] = []
const start = (from = programs): TestHelper => {
  const helper = startTestHelper(lab, from)
  started.push(helper)
  return helper
}

beforeAll(async () => {
  programs = await makeProgramFolder()
  slow = await makeProgramFolder()
  const relay = join(slow.folder, 'sluice-relay')
  renameSync(relay, `${relay}-real`)
  writeFileSync(relay, `#!/bin/sh\n/bin/sleep 6\nexec '${relay}-real'\n`)
  chmodSync(relay, 0o755)
})
afterAll(() => {
  programs.remove()
  slow.remove()
})
beforeEach(async () => {
  lab = await makeLab()
  await lab.peer('server', 'serve', 'origin', '8080').event(({ event }) => event === 'listening')
  before = await snapshot(lab)
})
afterEach(async () => {
  for (const helper of started.splice(0)) helper.kill()
  await lab.remove()
})

/** Nobody but the helper; who was ended may take a moment. */
const expectAlone = (): Promise<void> => expect.poll(() => programsIn(lab), { timeout: 15_000 }).toHaveLength(1)
const steps = ['looking at this machine', 'starting the guard', 'starting the relay', 'adding routes', 'applying rules'] as const
const ways = {
  close: (helper: TestHelper) => helper.request('close', {}),
  'end of input': (helper: TestHelper) => helper.end(),
  SIGTERM: async (helper: TestHelper) => {
    process.kill(helper.pid, 'SIGTERM')
    await helper.ended
  },
  SIGKILL: async (helper: TestHelper) => {
    process.kill(helper.pid, 'SIGKILL')
    await helper.ended
  },
}

describe.each(['nft', 'iptables'] as const)('%s', (backend) => {
  describe.each(steps)('while %s', (step) => {
    const giveUp = async (way: keyof typeof ways): Promise<string> => {
      const helper = start()
      await helper.request('hello', { protocol: 1 })
      const opening = helper.request('open', openArguments(makeSession(programs, 'cancel'), backend)).then(() => 'opened', (error: unknown) => (error as { code: string }).code)
      await helper.event('step', ({ text }) => text === step)
      await ways[way](helper)
      const outcome = await opening
      if (way === 'close') {
        expect(await snapshot(lab)).toBe(before)
        await expectAlone()
        await helper.end()
      }
      if (way === 'SIGKILL') {
        // Killed before its guard watched it had changed nothing; an empty lock file may lie there, and hinders nobody.
        await expect.poll(() => snapshot(lab), { timeout: 15_000 }).toBe(before)
        const next = start()
        await next.request('hello', { protocol: 1 })
        await next.request('open', openArguments(makeSession(programs, 'next'), backend))
        await next.end()
      }
      await expectClean(lab, before)
      return outcome
    }
    test.each(Object.keys(ways) as (keyof typeof ways)[])('%s', async (way) => {
      let outcome = await giveUp(way)
      // A helper that was quicker than we were had opened before it heard of it. Nothing is left of that either, and it is done once more.
      for (let tries = 1; outcome === 'opened' && tries < 6; tries++) outcome = await giveUp(way)
      // Where the helper is gone it could not answer; where it goes on it must say why nothing is open.
      expect(outcome).toBe(way === 'close' || way === 'end of input' || way === 'SIGTERM' ? 'cancelled' : 'helper-died')
    })
  })
})

test('an opening slower than the guard\'s patience is none of the guard\'s business', async () => {
  const helper = start(slow)
  await helper.request('hello', { protocol: 1 })
  await helper.request('open', openArguments(makeSession(slow, 'slow'), 'nft'))
  expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ ok: true, relayed: true })
  expect(findProcess(lab, (line) => line.endsWith('--guard'))).toBeGreaterThan(0)
  await helper.end()
  await expectClean(lab, before)
  await expectDirect(lab)
})

test('given up in the middle of a slow opening, it is given up at once', async () => {
  const helper = start(slow)
  await helper.request('hello', { protocol: 1 })
  const opening = helper.request('open', openArguments(makeSession(slow, 'slow'), 'nft'))
  opening.catch(() => undefined)
  await helper.event('step', ({ text }) => text === 'starting the relay')
  await helper.request('close', {})
  await expect(opening).rejects.toMatchObject({ code: 'cancelled' })
  expect(await snapshot(lab)).toBe(before)
  await expectAlone()
})

test('a relay that dies while it starts is a failed opening', async () => {
  const helper = start(slow)
  await helper.request('hello', { protocol: 1 })
  const opening = helper.request('open', openArguments(makeSession(slow, 'slow'), 'iptables'))
  opening.catch(() => undefined)
  await helper.event('step', ({ text }) => text === 'starting the relay')
  await expect.poll(() => programsIn(lab).some((line) => line.endsWith('/sluice-relay'))).toBe(true)
  process.kill(findProcess(lab, (line) => line.endsWith('/sluice-relay')), 'SIGKILL')
  await expect(opening).rejects.toMatchObject({ code: 'relay-failed' })
  expect(await snapshot(lab)).toBe(before)
})
