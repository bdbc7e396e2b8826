import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'

import { Failure } from '#core/contract/failure.ts'

import { readIdentity } from './processIdentity.ts'
import type { ProcessIdentity } from './processIdentity.ts'
import { toolEnvironment } from './runTool.ts'

export interface NftHolder {
  readonly identity: ProcessIdentity
  /** Applies one batch, whole or not at all. `rules-failed` with what nft said. A holder that does not answer within `within` milliseconds is killed: then nothing is held. */
  run(text: string, within?: number): Promise<void>
  /** Called once when the process ends without `end()` having been called. */
  onDeath(listener: () => void): void
  /** Ends it; the kernel then removes the table it owns. Resolves when it is gone. Idempotent. */
  end(): Promise<void>
}

/** Enough for tens of thousands of elements on a slow machine. */
const answerWithin = 10_000
const saidLimit = 64 << 10

/**
 * The kept-open `nft -i` whose netlink socket owns our table (`flags owner`): the kernel removes the table when it dies, whatever way, and
 * nobody else can change it meanwhile, so every change goes through here. It reads one command a line; commands joined by `;`
 * are one transaction. It prints nothing on success, so after each batch comes a word it cannot know: its complaint about that word (on
 * standard error, unbuffered) ends the answer, and whatever it complained about before is the failure.
 */
export async function startNftHolder(path: string): Promise<NftHolder> {
  // A session of its own: Ctrl-C in the app's terminal must not end it.
  const child = spawn(path, ['-i'], { stdio: ['pipe', 'ignore', 'pipe'], env: toolEnvironment, cwd: '/', detached: true })
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.once('error', (error) => reject(new Failure('backend-missing', 'nft cannot be started', error.message)))
  })
  const identity = readIdentity(child.pid ?? 0)
  if (identity === undefined) throw new Failure('rules-failed', 'nft ended at once')
  return new Holder(child, identity)
}

class Holder implements NftHolder {
  readonly identity: ProcessIdentity
  readonly #child: ChildProcess
  readonly #gone: Promise<void>
  #said = ''
  #number = 0
  #waiting: { mark: string; settle: (said: string | undefined) => void } | undefined
  #last: Promise<unknown> = Promise.resolve()
  #ending = false
  #dead = false
  readonly #listeners: (() => void)[] = []

  constructor(child: ChildProcess, identity: ProcessIdentity) {
    this.#child = child
    this.identity = identity
    child.stderr?.setEncoding('utf8').on('data', (text: string) => this.#hear(text))
    child.stdin?.on('error', () => undefined)
    this.#gone = new Promise((resolve) => {
      child.once('exit', () => {
        this.#dead = true
        this.#waiting?.settle(undefined)
        resolve()
        if (!this.#ending) for (const listener of this.#listeners) listener()
      })
    })
  }

  onDeath(listener: () => void): void {
    this.#listeners.push(listener)
  }

  run(text: string, within = answerWithin): Promise<void> {
    const result = this.#last.then(() => this.#runNow(text, within))
    this.#last = result.catch(() => undefined)
    return result
  }

  async end(): Promise<void> {
    this.#ending = true
    if (this.#dead) return
    this.#child.stdin?.end()
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 1500)
    await this.#gone
    clearTimeout(timer)
  }

  async #runNow(text: string, within: number): Promise<void> {
    if (this.#dead || this.#ending) throw new Failure('rules-failed', 'the nft process that holds the rules has ended')
    const mark = `sluice-mark-${String(++this.#number)}`
    const batch = text.split('\n').map((line) => line.trim()).filter((line) => line !== '').join('; ')
    this.#said = ''
    const said = await new Promise<string | undefined>((resolve) => {
      const timer = setTimeout(() => {
        this.#child.kill('SIGKILL')
        resolve(undefined)
      }, within)
      this.#waiting = {
        mark,
        settle: (answer) => {
          clearTimeout(timer)
          resolve(answer)
        },
      }
      this.#child.stdin?.write(`${batch}\n${mark}\n`)
    })
    this.#waiting = undefined
    if (said === undefined) {
      // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- it may have died while it was waited for
      throw new Failure('rules-failed', this.#dead ? 'the nft process that holds the rules has ended' : 'nft did not answer')
    }
    if (said !== '') throw new Failure('rules-failed', 'nft refused the rules', said.slice(0, 4000))
  }

  #hear(text: string): void {
    this.#said = (this.#said + text).slice(-saidLimit)
    const waiting = this.#waiting
    if (waiting === undefined) return
    const at = this.#said.indexOf(`${waiting.mark}\n`)
    if (at === -1) return
    // Before the echoed mark stands the complaint about it, one line; before that, whatever the batch got; in front, the caret line of the mark before.
    const lines = this.#said.slice(0, at).split('\n').slice(0, -2)
    waiting.settle(lines.filter((line) => !/^\s*\^*\s*$/.test(line)).join('\n'))
  }
}
