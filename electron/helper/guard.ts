import { rmSync } from 'node:fs'

import * as v from 'valibot'

import { logAction, logFor } from './actionLog.ts'
import { isAlive, killExactly, readProgress } from './processIdentity.ts'
import type { ProcessIdentity } from './processIdentity.ts'
import { readLines } from './readLines.ts'
import { parseJournal, removeJournal, runFolder } from './runFolder.ts'
import type { Journal } from './runFolder.ts'
import { takeBack } from './takeBack.ts'

const identity = v.strictObject({ pid: v.pipe(v.number(), v.integer(), v.minValue(2)), start: v.string() })
const tellShape = v.variant('tell', [
  v.strictObject({ tell: v.literal('watch'), namespace: v.pipe(v.string(), v.regex(/^\d+$/)), journal: v.unknown() }),
  /** A process of the helper's that must not outlive it. */
  v.strictObject({ tell: v.literal('end'), process: identity }),
  v.strictObject({ tell: v.literal('beat') }),
  /** Everything is taken back already. */
  v.strictObject({ tell: v.literal('done') }),
])
export type GuardTell = v.InferInput<typeof tellShape>

/** How long the helper may be silent. Its beats come every second from a timer of their own, however long a step of opening takes. */
const patience = 4000
/** One that is at work (as much as a plan may have, on a machine that has little time for it) is not frozen; but nothing it does takes so long. */
const busyPatience = 30_000

/**
 * The guard's whole life: a process apart that takes everything back when the helper dies or freezes. The owned nft table would go by itself; iptables
 * rules, ip rules, routes, a frozen nft and a frozen relay would not. It sits in a session and, as far as the kernel lets it, a cgroup
 * of its own, so that what ends the app's whole group or service does not end it, and holds the lock so that nobody opens before it is done. A helper that only
 * froze is left alone: without relay and rules it finds its gate closed when it goes on.
 */
export function runGuard(): void {
  for (const signal of ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGPIPE'] as const) process.on(signal, () => undefined)
  // The helper may be gone before we say that we are here: then there is all the more to do.
  process.stdout.on('error', () => undefined)
  let journal: Journal | undefined
  let namespace: string | undefined
  const toEnd: ProcessIdentity[] = []
  let acting = false

  const act = async (): Promise<void> => {
    if (acting) return
    acting = true
    clearInterval(timer)
    logAction({ result: 'note', text: 'the guard takes everything back: the helper died or froze' })
    // The nft holder first: its table goes with it, and no new flow is led to a relay that is about to go.
    for (const process of toEnd) killExactly(process)
    for (let tries = 0; tries < 50 && toEnd.some(isAlive); tries++) await new Promise((resolve) => setTimeout(resolve, 20))
    if (namespace !== undefined && journal !== undefined) {
      await takeBack(journal)
      // A tool may have been held up (xtables lock): nothing must be left, so look again.
      await takeBack(journal)
      removeJournal(namespace)
      rmSync(`${runFolder}/${namespace}.lock`, { force: true })
    }
    process.exit(0)
  }

  // A tick that comes late says that we ourselves were frozen (suspend, freezer): then the helper was, too, and is given its time anew.
  let heard = performance.now()
  let ticked = heard
  let spent = 0
  const timer = setInterval(() => {
    const now = performance.now()
    if (now - ticked > 1500) heard = now
    ticked = now
    // Not looked at for nothing: only of one that has missed some beats.
    if (now - heard < patience / 2) return
    const progress = journal === undefined ? undefined : readProgress(journal.helper)
    const busy = progress !== undefined && (progress.runnable || progress.ticks > spent)
    spent = progress?.ticks ?? spent
    if (now - heard > (busy ? busyPatience : patience)) void act()
  }, 500)

  readLines(process.stdin, 1 << 16, {
    line: (text) => {
      if (acting) return
      heard = performance.now()
      const told = v.safeParse(tellShape, parseJson(text))
      if (!told.success) return
      const { output } = told
      if (output.tell === 'watch') {
        journal = parseJournal(output.journal)
        logFor(journal.person)
        namespace = output.namespace
        process.stdout.write('watching\n')
      } else if (output.tell === 'beat') process.stdout.write('alive\n')
      else if (output.tell === 'end') toEnd.push(output.process)
      else process.exit(0)
    },
    tooLong: () => void act(),
    end: () => void act(),
  })
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
