import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'

import { Failure } from '#core/contract/failure.ts'

import type { GuardTell } from './guard.ts'
import type { Lock } from './acquireLock.ts'
import type { ProcessIdentity } from './processIdentity.ts'
import type { Journal } from './runFolder.ts'
import { toolEnvironment } from './runTool.ts'

const beatEvery = 1000
const readyWithin = 10_000
/** Beats without an answer: a guard that is frozen guards nothing, so it is ended and another one takes its place. */
const silenceLimit = 5

/** The helper's end of its guard. Beats from the moment it watches until `done`, by a timer that no step of opening or closing holds up. */
export class GuardLink {
  readonly #child: ChildProcess
  readonly #gone: Promise<void>
  #dead = false
  #done = false
  #beat: NodeJS.Timeout | undefined
  #unanswered = 0

  private constructor(child: ChildProcess, onDeath: () => void) {
    this.#child = child
    child.stdin?.on('error', () => undefined)
    child.stdout?.on('data', () => (this.#unanswered = 0))
    this.#gone = new Promise((resolve) => {
      child.once('exit', () => {
        this.#dead = true
        clearInterval(this.#beat)
        resolve()
        if (!this.#done) onDeath()
      })
    })
  }

  /**
   * The same bundle once more, detached (a session of its own), with the lock's descriptor. Resolves when it watches.
   * @param program path of the helper's bundle
   */
  static async start(program: string, namespace: string, journal: Journal, lock: Lock, signal: AbortSignal, onDeath: () => void): Promise<GuardLink> {
    const child = spawn(process.execPath, [program, '--guard'], {
      stdio: ['pipe', 'pipe', 'ignore', lock.descriptor],
      env: { ...toolEnvironment, ...('electron' in process.versions ? { ELECTRON_RUN_AS_NODE: '1' } : {}) },
      cwd: '/',
      detached: true,
    })
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', (error) => reject(new Failure('internal', 'the guard cannot be started', error.message)))
    })
    let started = false
    const link = new GuardLink(child, () => started && onDeath())
    link.#tell({ tell: 'watch', namespace, journal })
    link.#beat = setInterval(() => link.#beatOnce(), beatEvery)
    try {
      await new Promise<void>((resolve, reject) => {
        const give = (why: string): void => reject(new Failure('internal', why))
        const timer = setTimeout(() => give('the guard did not get ready'), readyWithin)
        signal.addEventListener('abort', () => reject(new Failure('cancelled', 'opening was given up')), { once: true })
        child.stdout?.once('data', () => {
          clearTimeout(timer)
          resolve()
        })
        void link.#gone.then(() => give('the guard ended at once'))
      })
      signal.throwIfAborted()
    } catch (error) {
      await link.done()
      throw error
    }
    started = true
    return link
  }

  /** A process to end with the helper, whatever happens to the helper. */
  endWith(process: ProcessIdentity): void {
    this.#tell({ tell: 'end', process })
  }

  /** Everything is taken back: the guard has nothing left to do. Resolves when it is gone. Idempotent. */
  async done(): Promise<void> {
    this.#done = true
    clearInterval(this.#beat)
    if (this.#dead) return
    this.#tell({ tell: 'done' })
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 2000)
    await this.#gone
    clearTimeout(timer)
  }

  /** Counted in beats, not by the clock: a suspend freezes both of us. */
  #beatOnce(): void {
    if (++this.#unanswered > silenceLimit) this.#child.kill('SIGKILL')
    else this.#tell({ tell: 'beat' })
  }

  #tell(message: GuardTell): void {
    if (!this.#dead && this.#child.stdin?.writable === true) this.#child.stdin.write(`${JSON.stringify(message)}\n`)
  }
}
