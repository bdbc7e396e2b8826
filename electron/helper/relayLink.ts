import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import type { Duplex } from 'node:stream'

import * as v from 'valibot'

import { Failure } from '#core/contract/failure.ts'
import type { HandOver, ProxyTarget } from '#core/plan/handOver.ts'
import type { InterceptionPlan, PortRange, UdpIdle } from '#core/plan/plan.ts'
import { relayAddress } from '#core/rules/names.ts'
import { legMark } from '#core/rules/proxyLegs.ts'

import { readIdentity } from './processIdentity.ts'
import type { ProcessIdentity } from './processIdentity.ts'
import { readLines } from './readLines.ts'

const count = v.pipe(v.number(), v.minValue(0))
const saidShape = v.variant('type', [
  v.object({ type: v.literal('ready'), port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535)), ipv6: v.boolean(), holds: v.boolean(), keptPort: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535))), pid: count, uid: count }),
  v.object({
    type: v.literal('failed'),
    code: v.picklist(['capture-unwritable', 'port-taken', 'no-transparent', 'internal']),
    message: v.pipe(v.string(), v.maxLength(1000)),
    detail: v.optional(v.pipe(v.string(), v.maxLength(1000)), ''),
  }),
  v.object({ type: v.literal('pong'), id: count, active: count, total: count, recording: v.picklist(['on', 'slow', 'stopped', 'off']) }),
  v.object({ type: v.literal('flows'), active: count, total: count, bytes: count }),
  v.object({ type: v.literal('warning'), code: v.pipe(v.string(), v.maxLength(64)), message: v.pipe(v.string(), v.maxLength(1000)) }),
])
type Said = v.InferOutput<typeof saidShape>
export type RelayReady = Extract<Said, { type: 'ready' }>
export type RelayNews = Extract<Said, { type: 'pong' | 'flows' | 'warning' }>

/** First line to the relay (ARCHITECTURE.md, "Relay control"). */
export interface RelayStart {
  readonly uid: number
  readonly gid: number
  readonly groups: readonly number[]
  readonly port: number
  readonly portTries: number
  readonly ipv6: boolean
  readonly threads: number
  readonly uplinkMark: number
  /** Bits that flows of an earlier gate may still bear in conntrack: none of them is this one's. */
  readonly flowMarks?: number
  /** Where the rules put SYNs that wait for their server, and what leads them to the listener when they have waited. null: none waits. */
  readonly hold: { readonly group: number; readonly releasedMark: number } | null
  /** A held flow of a device goes on with the device's own port, and its client comes to a listener of its own whose answers bear that mark. */
  readonly keep?: { readonly mark: number }
  /**
   * Where the rules translate destinations instead of handing packets over: the relay asks conntrack where each connection was going, and bears its own address
   * towards servers. `everywhere`: it listens on every address of this machine, not on loopback alone.
   */
  readonly redirect?: { readonly everywhere: boolean }
  /** Listens for datagrams, too, on the same port. */
  readonly udp: boolean
  /** Seconds. */
  readonly udpIdle: UdpIdle
  /** UDP ports answered with "port unreachable". */
  readonly refuse: readonly PortRange[]
  /** Ports sent to a proxy, TCP. */
  readonly handOver?: readonly RelayHandOver[]
  readonly capture: { readonly folder: string; readonly payload: boolean; readonly maxBytesPerFlow: number | null; readonly maxBytes: number | null; readonly ring?: boolean | undefined; readonly segmentBytes?: number | undefined }
  readonly attribute: boolean
  readonly maxFlows: number
  readonly version: string
}

/** A proxy in TPROXY mode is named once a family: by the address and port the rules look for, and the mark of connections to it. */
export type RelayHandOver = { readonly ports: readonly PortRange[] } & (Exclude<ProxyTarget, { kind: 'tproxy' }> | { readonly kind: 'tproxy'; readonly address: string; readonly port: number; readonly mark: number })

export function relayHandOver({ ports, to }: HandOver, marks: InterceptionPlan['marks']): RelayHandOver[] {
  if (to.kind !== 'tproxy') return [{ ports, ...to }]
  return Object.values(relayAddress).map((address) => ({ ports, ...to, address, mark: legMark(marks) }))
}

/** Of what it says. */
const lineLimit = 64 << 10
/** Of what it is told (native/control/json.h). */
const toldLimit = 512 << 10
/** Of a line, for what is not in the lists: names and numbers, the person's groups, the session's folder. */
const elsewhere = 24 << 10
const mostRefused = 4096
const mostProxies = 128

/**
 * Whether the relay can be told that; a line it cannot take would be its end.
 * @throws Failure `bad-plan`.
 */
export function requireFitting(handOvers: readonly HandOver[], { marks, refuse }: Pick<InterceptionPlan, 'marks' | 'refuse'>): void {
  const wishes = handOvers.flatMap((each) => relayHandOver(each, marks))
  const bytes = Buffer.byteLength(JSON.stringify([wishes, refuse]))
  if (wishes.length > mostProxies || refuse.length > mostRefused || bytes > toldLimit - elsewhere) throw new Failure('bad-plan', 'There are too many ports, one by one, that are refused or sent to proxies: write them as ranges')
}
const readyWithin = 10_000
const quitWithin = 6000
const failureCodes = { 'capture-unwritable': 'cannot-write', 'port-taken': 'port-taken', 'no-transparent': 'no-tproxy', internal: 'relay-failed' } as const

/** The relay's end of life and its control socket (descriptor 3 of the relay). What it says is validated: it runs as the person, and they may be hostile to root. */
export class RelayLink {
  readonly identity: ProcessIdentity
  readonly #child: ChildProcess
  readonly #control: Duplex
  readonly #gone: Promise<void>
  #dead = false
  #ready = false
  #ending = false
  #stderr = ''
  #answer: ((said: Said) => void) | undefined
  #deathListeners: (() => void)[] = []
  #newsListeners: ((news: RelayNews) => void)[] = []

  private constructor(child: ChildProcess, identity: ProcessIdentity) {
    this.#child = child
    this.identity = identity
    this.#control = child.stdio[3] as Duplex
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#stderr = (this.#stderr + text).slice(-4000)))
    this.#gone = new Promise((resolve) => {
      child.once('exit', () => {
        this.#dead = true
        resolve()
        if (!this.#ending) for (const listener of this.#deathListeners) listener()
      })
    })
    this.#control.on('error', () => undefined)
    // A relay that talks nonsense or closes its channel is as good as dead: it can no longer be told to stop.
    readLines(this.#control, lineLimit, { line: (text) => this.#hear(text), tooLong: () => this.kill(), end: () => undefined })
  }

  /** Starts the program; it does nothing before `start`. Fails with `relay-missing`. */
  static async spawn(path: string): Promise<RelayLink> {
    if (!existsSync(path)) throw new Failure('relay-missing', `the relay is not there: ${path}`)
    const child = spawn(path, [], { stdio: ['ignore', 'ignore', 'pipe', 'pipe'], env: {}, cwd: '/', detached: true })
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', (error) => reject(new Failure('relay-missing', `the relay cannot be started: ${path}`, error.message)))
    })
    const identity = readIdentity(child.pid ?? 0)
    if (identity === undefined) throw new Failure('relay-failed', 'the relay ended at once')
    return new RelayLink(child, identity)
  }

  /** Resolves when the relay listens and records. An abort only ends the waiting; `quit` or `kill` ends the relay. */
  start(start: RelayStart, signal: AbortSignal): Promise<RelayReady> {
    return new Promise<RelayReady>((resolve, reject) => {
      const give = (failure: Failure): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', abort)
        this.#answer = undefined
        reject(failure)
      }
      const abort = (): void => give(new Failure('cancelled', 'opening was given up'))
      const timer = setTimeout(() => give(new Failure('relay-failed', 'the relay did not get ready', this.#stderr)), readyWithin)
      signal.addEventListener('abort', abort)
      void this.#gone.then(() => give(new Failure('relay-failed', 'the relay ended while starting', this.#stderr)))
      this.#answer = (said) => {
        if (said.type === 'failed') give(new Failure(failureCodes[said.code], said.message, said.detail || undefined))
        else if (said.type === 'ready') {
          clearTimeout(timer)
          signal.removeEventListener('abort', abort)
          this.#answer = undefined
          this.#ready = true
          resolve(said)
        }
      }
      this.#tell({ type: 'start', ...start })
    })
  }

  ping(id: number): void {
    this.#tell({ type: 'ping', id })
  }
  /** What of UDP is refused from now on, and how long silence may last, also of flows that are there. */
  chooseUdp({ udpIdle, refuse }: Pick<RelayStart, 'udpIdle' | 'refuse'>): void {
    this.#tell({ type: 'udp', udpIdle, refuse })
  }
  /** Where new flows are sent; those that are there go on as they are. */
  chooseHandOver(handOver: readonly RelayHandOver[]): void {
    this.#tell({ type: 'handOver', handOver })
  }
  /** Every flow reset on both sides. */
  reset(): void {
    this.#tell({ type: 'reset' })
  }
  /** The result ends that. */
  onNews(listener: (news: RelayNews) => void): () => void {
    this.#newsListeners.push(listener)
    return () => void (this.#newsListeners = this.#newsListeners.filter((each) => each !== listener))
  }
  onDeath(listener: () => void): () => void {
    this.#deathListeners.push(listener)
    return () => void (this.#deathListeners = this.#deathListeners.filter((each) => each !== listener))
  }
  get stderr(): string {
    return this.#stderr
  }
  get dead(): boolean {
    return this.#dead
  }

  /** Lets it write the rest of the capture and end; SIGKILL when it does not, or had not begun. Resolves when it is gone. Idempotent. */
  async quit(): Promise<void> {
    this.#ending = true
    if (this.#dead) return
    if (this.#ready) this.#tell({ type: 'quit' })
    else this.kill()
    const timer = setTimeout(() => this.kill(), quitWithin)
    await this.#gone
    clearTimeout(timer)
  }
  /** With its group: the witness has nobody left to answer. Its armed lingers make its death a reset on every flow. */
  kill(): void {
    if (this.#dead) return
    try {
      process.kill(-this.identity.pid, 'SIGKILL')
    } catch {
      this.#child.kill('SIGKILL')
    }
  }

  #tell(message: object): void {
    if (!this.#dead && this.#control.writable) this.#control.write(`${JSON.stringify(message)}\n`)
  }

  #hear(text: string): void {
    let said: Said
    try {
      said = v.parse(saidShape, JSON.parse(text))
    } catch {
      this.kill()
      return
    }
    if (said.type === 'ready' || said.type === 'failed') this.#answer?.(said)
    else for (const listener of this.#newsListeners) listener(said)
  }
}
