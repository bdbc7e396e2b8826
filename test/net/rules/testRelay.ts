import { spawn } from 'node:child_process'
import { chownSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'

import { findPlaces } from '#probe/places.ts'
import type { Lab } from '#test/lab/makeLab.ts'
import { defaultMarks } from '#core/plan/plan.ts'
import { holdGroup } from '#core/rules/names.ts'

/** The real relay in the laboratory's router, led over its control socket as the helper does it. */
export interface TestRelay {
  readonly port: number
  readonly keptPort: number | undefined
  readonly pid: number
  /** Flows it has taken so far; asked anew, after every relaying thread has passed its loop. */
  total(): Promise<number>
  /** Flows it has now, asked likewise. */
  active(): Promise<number>
  /** Kills it as a crash would. */
  kill(): Promise<void>
  stop(): Promise<void>
}

const person = 65534

export interface RelayChoice {
  readonly hold?: boolean
  /** Held flows keep their clients' ports. */
  readonly keep?: boolean
  readonly udpIdle?: number
  /** Rules redirect to it; without UDP then. */
  readonly redirect?: { readonly everywhere: boolean }
}

export async function startRelay(lab: Lab, { hold = false, keep = false, udpIdle = 60, redirect }: RelayChoice = {}): Promise<TestRelay> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-rules-'))
  chownSync(folder, person, person)
  const [command, ...args] = [...lab.enter('router'), findPlaces().relay]
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe', 'pipe'] })
  const control = child.stdio[3] as Duplex
  let errors = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (errors += text))
  control.on('error', () => undefined)
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()))
  const gone = ended.then(() => Promise.reject(new Error(`the relay is gone: ${errors}`)))
  gone.catch(() => undefined)

  const waiting: { matches: (message: Record<string, unknown>) => boolean; resolve: (message: Record<string, unknown>) => void }[] = []
  let rest = ''
  control.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      const message = JSON.parse(line) as Record<string, unknown>
      const index = waiting.findIndex((each) => each.matches(message))
      if (index >= 0) waiting.splice(index, 1)[0]?.resolve(message)
    }
  })
  const ask = (question: object, matches: (message: Record<string, unknown>) => boolean): Promise<Record<string, unknown>> => {
    const answer = new Promise<Record<string, unknown>>((resolve) => waiting.push({ matches, resolve }))
    control.write(`${JSON.stringify(question)}\n`)
    return Promise.race([answer, gone])
  }

  const ready = await ask(
    {
      type: 'start', uid: person, gid: person, groups: [person], port: 50080, portTries: 20, ipv6: true, threads: 1, uplinkMark: defaultMarks.uplink,
      hold: hold ? { group: holdGroup, releasedMark: (defaultMarks.local | defaultMarks.uplink) >>> 0 } : null,
      ...(keep ? { keep: { mark: defaultMarks.forwarded } } : {}), udp: redirect === undefined, ...(redirect === undefined ? {} : { redirect }), udpIdle: { dns: udpIdle, quic: udpIdle, other: udpIdle }, refuse: [{ from: 5399, to: 5399 }],
      capture: { folder, payload: true, maxBytesPerFlow: null, maxBytes: null }, attribute: false, maxFlows: 1024, version: '0.1.0',
    },
    (message) => message['type'] === 'ready' || message['type'] === 'failed',
  )
  if (ready['type'] !== 'ready' || ready['holds'] !== hold) throw new Error(`the relay did not start: ${JSON.stringify(ready)}`)

  let pings = 0
  const ping = (): Promise<Record<string, unknown>> => {
    const id = ++pings
    return ask({ type: 'ping', id }, (message) => message['type'] === 'pong' && message['id'] === id)
  }
  const finish = async (): Promise<void> => {
    await ended
    rmSync(folder, { recursive: true, force: true })
  }
  return {
    port: Number(ready['port']),
    keptPort: ready['keptPort'] === undefined ? undefined : Number(ready['keptPort']),
    pid: Number(ready['pid']),
    total: async () => Number((await ping())['total']),
    active: async () => Number((await ping())['active']),
    async kill() {
      child.kill('SIGKILL')
      await finish()
    },
    async stop() {
      control.write('{"type":"reset"}\n{"type":"quit"}\n')
      await finish()
    },
  }
}
