import type { Client } from '#ui/bridge/client.ts'
import { toFailureReport, type FailureReport } from '#core/contract/failure.ts'
import type { Direction, Nanoseconds } from '#core/flow/flow.ts'
import { decodeBase64 } from '#ui/lib/bytes.ts'

export type StreamDirection = 'both' | Direction
export interface StreamStretch {
  readonly direction: Direction
  readonly offset: number
  readonly time: Nanoseconds
  readonly length: number
  /** Null: relayed but not recorded. */
  readonly bytes: Uint8Array<ArrayBuffer> | null
}
export const streamStep = 131_072
/** Bytes of a flow held here at once; a longer flow is looked at window by window. */
export const streamWindow = 1_048_576

/** The bytes of one flow in order of arrival: a window of at most 1 MiB that grows as one scrolls and can be moved anywhere. */
export class StreamStore {
  stretches = $state.raw<readonly StreamStretch[]>([])
  total = $state<number | undefined>(undefined)
  /** Where the window begins and ends, in bytes of the directions asked for. */
  start = $state(0)
  end = $state(0)
  loading = $state(false)
  failure = $state.raw<FailureReport | null>(null)
  readonly flow: number
  readonly direction: StreamDirection
  readonly #client: Client
  #turn = 0

  constructor(client: Client, flow: number, direction: StreamDirection) {
    this.#client = client
    this.flow = flow
    this.direction = direction
  }

  readonly hasMore = $derived(this.total === undefined || this.end < this.total)
  readonly isFull = $derived(this.end - this.start >= streamWindow)

  async more(): Promise<void> {
    if (this.loading || this.isFull) return
    this.loading = true
    const turn = ++this.#turn
    try {
      const page = await this.#client.call('stream', { flow: this.flow, direction: this.direction, offset: this.end, limit: streamStep })
      if (turn !== this.#turn) return
      this.total = page.total
      this.failure = null
      if (page.chunks.length > 0) {
        this.stretches = [
          ...this.stretches,
          ...page.chunks.map(({ direction, offset, time, length, bytes }) => ({ direction, offset, time, length, bytes: bytes === undefined ? null : decodeBase64(bytes) })),
        ]
        this.end += page.chunks.reduce((sum, { length }) => sum + length, 0)
      }
    } catch (error) {
      if (turn === this.#turn) this.failure = toFailureReport(error)
    } finally {
      if (turn === this.#turn) this.loading = false
    }
  }
  /** Moves the window to begin at that byte. */
  async jump(to: number): Promise<void> {
    this.#turn += 1
    this.loading = false
    this.start = Math.max(0, Math.floor(to))
    this.end = this.start
    this.stretches = []
    await this.more()
  }
  /** New bytes came: fetched when the end was in the window. */
  async changed(): Promise<void> {
    if (!this.isFull) await this.more()
  }
}
