import type { GateEnds } from '#core/contract/bridge.ts'
import { nextEnd } from '#core/plan/timedPorts.ts'
import type { TimedPorts } from '#core/plan/timedPorts.ts'

import { startTimer } from './startTimer.ts'

/** Ports that could not be taken away are tried again after so many milliseconds. */
const again = 5000

export interface EndingActs {
  readonly closeGate: () => void
  /** Takes away the ports whose time is up. Resolves false when it is to be tried again. */
  readonly takeAway: () => Promise<boolean>
  readonly changed: (ends: GateEnds | undefined) => void
}

/** What of an open gate ends by itself, and the one timer for the next of these ends. Kept on the monotonic clock and told on the wall clock. */
export class GateEndings {
  readonly #acts: EndingActs
  readonly #now: () => number
  #ports: readonly TimedPorts[] = []
  #gate: number | undefined
  #stop: () => void = () => undefined

  constructor(acts: EndingActs, now: () => number) {
    this.#acts = acts
    this.#now = now
  }

  /** Times of `performance.now()`. */
  get ports(): readonly TimedPorts[] {
    return this.#ports
  }

  setPorts(ports: readonly TimedPorts[]): void {
    const before = JSON.stringify(this.#ports)
    this.#ports = ports
    this.#arm()
    if (JSON.stringify(ports) !== before) this.#tell()
  }

  setGate(duration: number | null): void {
    this.#gate = duration === null ? undefined : performance.now() + duration
    this.#arm()
    this.#tell()
  }

  /** Does what is due. */
  look(): void {
    const now = performance.now()
    if (this.#gate !== undefined && this.#gate <= now) {
      this.#gate = undefined
      this.#tell()
      this.#acts.closeGate()
    }
    const next = nextEnd(this.#ports)
    if (next !== undefined && next <= now) {
      // Until that is done no timer runs: what was done, or a look after resuming, arms it.
      void this.#acts.takeAway().then((done) => {
        if (!done) this.#startTimer(Math.max(0, Math.min(again, (this.#gate ?? Infinity) - performance.now())))
      })
    } else this.#arm()
  }

  clear(): void {
    this.#stop()
    this.#ports = []
    this.#gate = undefined
  }

  #arm(): void {
    this.#stop()
    const ends = [nextEnd(this.#ports), this.#gate].filter((each) => each !== undefined)
    if (ends.length > 0) this.#startTimer(Math.max(0, Math.min(...ends) - performance.now()))
  }

  #startTimer(milliseconds: number): void {
    this.#stop()
    this.#stop = startTimer(milliseconds, () => this.look())
  }

  #tell(): void {
    const wall = (time: number): number => Math.round(this.#now() + time - performance.now())
    if (this.#ports.length === 0 && this.#gate === undefined) return this.#acts.changed(undefined)
    this.#acts.changed({ ...(this.#gate === undefined ? {} : { gate: wall(this.#gate) }), ports: this.#ports.map((each) => ({ ...each, until: wall(each.until) })) })
  }
}
