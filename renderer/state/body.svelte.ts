import { SvelteMap } from 'svelte/reactivity'

import type { Client } from '#ui/bridge/client.ts'
import { toFailureReport, type FailureReport } from '#core/contract/failure.ts'
import { decodeBase64 } from '#ui/lib/bytes.ts'

export const bodyPage = 65_536
const mostPages = 64

export interface BodyPlace {
  readonly flow: number
  readonly exchange: number
  readonly part: 'request' | 'response'
  readonly decoded: boolean
}

/** One body by pages: the hex view asks for what is in sight, the text view for its beginning. */
export class BodyStore {
  /** Undefined until the first page is here. */
  total = $state<number | undefined>(undefined)
  contentType = $state<string | undefined>(undefined)
  encoding = $state<string | undefined>(undefined)
  /** Why decoding stopped, in the inspector's words. */
  error = $state<string | undefined>(undefined)
  failure = $state.raw<FailureReport | null>(null)
  readonly #pages = new SvelteMap<number, Uint8Array<ArrayBuffer>>()
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- what was asked for is not shown
  readonly #asked = new Set<number>()
  readonly #client: Client
  readonly place: BodyPlace

  constructor(client: Client, place: BodyPlace) {
    this.#client = client
    this.place = place
  }

  /** Fetches the pages that hold these bytes and are not here. */
  async ensure(from: number, end: number): Promise<void> {
    const pages: Promise<void>[] = []
    for (let page = Math.floor(from / bodyPage); page * bodyPage < end && (this.total === undefined || page === 0 || page * bodyPage < this.total); page++) pages.push(this.#fetch(page))
    await Promise.all(pages)
  }
  /** Those of the bytes that are here, from `from` without a hole. */
  bytes(from: number, end: number): Uint8Array<ArrayBuffer> {
    const parts: Uint8Array<ArrayBuffer>[] = []
    let at = from
    while (at < end) {
      const page = this.#pages.get(Math.floor(at / bodyPage))
      const part = page?.subarray(at % bodyPage, (at % bodyPage) + end - at)
      if (part === undefined || part.length === 0) break
      parts.push(part)
      at += part.length
    }
    const only = parts[0]
    if (parts.length === 1 && only !== undefined) return only
    const whole = new Uint8Array(at - from)
    let filled = 0
    for (const part of parts) {
      whole.set(part, filled)
      filled += part.length
    }
    return whole
  }

  async #fetch(page: number): Promise<void> {
    if (this.#pages.has(page) || this.#asked.has(page)) return
    this.#asked.add(page)
    try {
      const answer = await this.#client.call('body', { ...this.place, offset: page * bodyPage, limit: bodyPage })
      this.#pages.set(page, decodeBase64(answer.bytes))
      this.total = answer.total
      this.contentType = answer.contentType
      this.encoding = answer.encoding
      this.error = answer.error
      this.failure = null
      if (this.#pages.size > mostPages) for (const old of [...this.#pages.keys()].slice(0, this.#pages.size - mostPages)) if (old !== page && old > 15) this.#pages.delete(old)
    } catch (error) {
      this.failure = toFailureReport(error)
    } finally {
      this.#asked.delete(page)
    }
  }
}
