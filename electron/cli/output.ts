import type { Writable } from 'node:stream'

import { printable } from './printable.ts'

/**
 * Standard output and error. Neither ever throws: a reader that goes away (`sluice ... | head`) is told through `gone`, and what is
 * written after that is dropped.
 */
export class Output {
  private readonly out: Writable & { readonly isTTY?: boolean; readonly columns?: number; readonly rows?: number }
  private readonly err: Writable
  private readonly leaving = new AbortController()
  private errGone = false

  constructor(out: Writable = process.stdout, err: Writable = process.stderr) {
    this.out = out
    this.err = err
    out.on('error', () => this.leaving.abort())
    err.on('error', () => (this.errGone = true))
  }

  /** Aborted when nobody reads standard output any more. */
  get gone(): AbortSignal {
    return this.leaving.signal
  }
  get isTerminal(): boolean {
    return this.out.isTTY === true
  }
  /** NO_COLOR set to anything but nothing, and there is none. */
  get hasColour(): boolean {
    return this.isTerminal && (process.env['NO_COLOR'] ?? '') === '' && process.env['TERM'] !== 'dumb'
  }
  /** Of the terminal; without one as wide as it takes. */
  get width(): number {
    return this.out.columns ?? Infinity
  }
  get height(): number {
    return this.out.rows ?? 24
  }

  /** Text as it is: the caller has made it safe. Resolves when there is room for more, or nobody reads. */
  async write(text: string): Promise<void> {
    if (this.leaving.signal.aborted || text === '') return
    if (this.out.write(text)) return
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.out.off('drain', done)
        this.leaving.signal.removeEventListener('abort', done)
        resolve()
      }
      this.out.once('drain', done)
      this.leaving.signal.addEventListener('abort', done, { once: true })
    })
  }
  line(text = ''): Promise<void> {
    return this.write(`${text}\n`)
  }
  json(value: unknown): Promise<void> {
    return this.line(JSON.stringify(value))
  }

  /** One line on standard error, made safe. */
  note(text: string): void {
    if (!this.errGone) this.err.write(`${printable(text)}\n`)
  }
  /** Lines on standard error that are already safe. */
  noteRaw(text: string): void {
    if (!this.errGone) this.err.write(text)
  }
}
