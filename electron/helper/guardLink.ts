import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'

import { Failure } from '#core/contract/failure.ts'

import type { GuardTell } from './guard.ts'
import type { Lock } from './acquireLock.ts'
import type { ProcessIdentity } from './processIdentity.ts'
import type { Journal } from './runFolder.ts'
import { toolEnvironment } from './runTool.ts'
import { standApart } from './standApart.ts'

const beatEvery = 1000
/** Beats without an answer: a guard that is frozen guards nothing, so it is ended and another one takes its place. */
const silenceLimit = 5

/**
 * The helper's end of its guard. Beats from the moment it is told to watch until `done`, by a timer that no step of opening or closing holds up. Nobody waits for it to be up (a runtime
 * takes its time to start): what it was told lies in its pipe, and one that finds it there with the end of the pipe behind it takes everything back. So it guards from the moment it is told.
 */
export class GuardLink {
  readonly #child: ChildProcess
  readonly #gone: Promise<void>
  #dead = false
  #done = false
  #beat: NodeJS.Timeout | undefined
  #unanswered = 0
  #answered = false

  private constructor(child: ChildProcess, onDeath: () => void) {
    this.#child = child
    child.stdin?.on('error', () => undefined)
    child.stdout?.on('data', () => {
      this.#unanswered = 0
      this.#answered = true
    })
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
   * The same bundle once more, detached (a session of its own), with the lock's descriptor. Resolves when it is started.
   * @param program path of the helper's bundle
   */
  static async start(program: string, lock: Lock, onDeath: () => void): Promise<GuardLink> {
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
    // By us, who are up already: it may be needed before it is.
    standApart(child.pid ?? 0)
    return new GuardLink(child, onDeath)
  }

  /** From now on everything is taken back when the helper goes. */
  watch(namespace: string, journal: Journal): void {
    this.#tell({ tell: 'watch', namespace, journal })
    this.#beat ??= setInterval(() => this.#beatOnce(), beatEvery)
  }

  /** It has been seen at work. */
  get answered(): boolean {
    return this.#answered
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
