import { Failure } from '#core/contract/failure.ts'
import { failureAdvice } from '#core/contract/failureAdvice.ts'

export interface NoticeAction {
  readonly label: string
  readonly run: () => void
}
export interface Notice {
  readonly id: number
  readonly kind: 'done' | 'info' | 'error'
  readonly text: string
  readonly details: readonly string[]
  readonly action?: NoticeAction
  /** How often the same thing was said. */
  readonly times: number
}
export type NewNotice = Omit<Notice, 'id' | 'times' | 'details'> & { readonly details?: readonly string[] }

const atMost = 4

/** Short sentences in the corner of the window. What went wrong stays until it is dismissed; the rest leaves by itself. */
export class Notices {
  items = $state.raw<readonly Notice[]>([])
  #next = 1
  readonly #stay: number

  /** @param stay milliseconds that a notice which is no error stays. */
  constructor(stay = 7000) {
    this.#stay = stay
  }

  add({ details = [], ...rest }: NewNotice): void {
    const same = this.items.find((item) => item.kind === rest.kind && item.text === rest.text)
    const notice: Notice = { ...rest, details, id: this.#next++, times: (same?.times ?? 0) + 1 }
    this.items = [...this.items.filter((item) => item !== same), notice].slice(-atMost)
    if (notice.kind !== 'error' && notice.action === undefined) setTimeout(() => this.dismiss(notice.id), this.#stay)
  }

  /** Any thrown thing as a notice; what the person cancelled needs none. */
  fail(error: unknown): void {
    if (error instanceof Failure) {
      if (error.code === 'cancelled') return
      const advice = failureAdvice[error.code]
      this.add({ kind: 'error', text: error.message, details: [...(advice === null ? [] : [advice]), ...(error.detail === undefined ? [] : [error.detail])] })
    } else {
      this.add({ kind: 'error', text: 'Something went wrong in the window', details: [error instanceof Error ? error.message : String(error)] })
    }
  }

  dismiss(id: number): void {
    this.items = this.items.filter((item) => item.id !== id)
  }

  drop(which: (notice: Notice) => boolean): void {
    this.items = this.items.filter((item) => !which(item))
  }

  /** Runs something that may fail; a failure becomes a notice and `undefined`. */
  async attempt<Value>(run: () => Promise<Value>): Promise<Value | undefined> {
    try {
      return await run()
    } catch (error) {
      this.fail(error)
      return undefined
    }
  }
}
