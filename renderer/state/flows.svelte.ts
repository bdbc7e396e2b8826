import { SvelteMap } from 'svelte/reactivity'

import type { Client } from '#ui/bridge/client.ts'
import type { SortKey } from '#core/contract/inspectorProtocol.ts'
import { toFailureReport, type FailureReport } from '#core/contract/failure.ts'
import type { FlowRow } from '#core/flow/flow.ts'

export const pageSize = 200
/** Pages kept; the rest are fetched again when they are scrolled to. */
const mostPages = 24

interface Page {
  readonly rows: readonly FlowRow[]
  readonly revision: number
}
interface Query {
  readonly filter: string
  readonly sort: SortKey
  readonly descending: boolean
}

/**
 * The flow list as a window onto what the inspector holds: only pages of rows near what is seen are here, each with the revision it was
 * fetched at. A page that is old is shown until its newer self arrives, so nothing flickers while flows come in.
 */
export class FlowList {
  query = $state.raw<Query>({ filter: '', sort: 'id', descending: false })
  total = $state(0)
  matching = $state(0)
  failure = $state.raw<FailureReport | null>(null)
  /** No answer for this query yet. */
  loading = $state(false)
  selectedId = $state<number | null>(null)
  selectedIndex = $state<number | null>(null)
  /** Newest flows are kept in sight. */
  following = $state(true)
  readonly #pages = new SvelteMap<number, Page>()
  readonly #client: Client
  #revision = 0
  /** Rises with each query, so that answers to an older one are dropped. */
  #epoch = 0
  #seen = { first: 0, end: 50 }
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- what was asked for is not shown
  #asked = new Map<number, Promise<void>>()
  #refreshing = false
  #refreshAgain = false

  constructor(client: Client) {
    this.#client = client
  }

  readonly isFiltered = $derived(this.query.filter.trim() !== '')

  rowAt(index: number): FlowRow | undefined {
    return this.#pages.get(Math.floor(index / pageSize))?.rows[index % pageSize]
  }
  /** Rows held here, for tests and for finding what is selected. */
  get heldPages(): number {
    return this.#pages.size
  }
  *heldRows(): Iterable<FlowRow> {
    for (const { rows } of this.#pages.values()) yield* rows
  }
  get selected(): FlowRow | undefined {
    if (this.selectedIndex === null) return undefined
    const row = this.rowAt(this.selectedIndex)
    return row?.id === this.selectedId ? row : undefined
  }

  /** Says which rows are in sight; pages missing or old among them are fetched. */
  see(first: number, end: number): void {
    this.#seen = { first, end }
    for (const page of this.#pagesInSight()) {
      const held = this.#pages.get(page)
      if (held === undefined || held.revision < this.#revision) void this.#fetch(page)
    }
  }

  /** Another filter or order: the old rows stay until the first new page is here. The selection is found again. */
  async ask(change: Partial<Query>): Promise<void> {
    this.query = { ...this.query, ...change }
    await this.#startOver()
  }
  sortBy(sort: SortKey): Promise<void> {
    const same = this.query.sort === sort
    return this.ask({ sort, descending: same ? !this.query.descending : startsDescending(sort) })
  }
  /** Another session. */
  async restart(): Promise<void> {
    this.#revision = 0
    this.selectedId = null
    this.selectedIndex = null
    this.total = 0
    this.matching = 0
    this.#pages.clear()
    await this.#startOver()
  }
  clear(): void {
    this.#epoch += 1
    this.#asked.clear()
    this.#pages.clear()
    this.#revision = 0
    this.total = 0
    this.matching = 0
    this.selectedId = null
    this.selectedIndex = null
    this.failure = null
    this.loading = false
  }

  /** Flows changed: what is in sight is fetched again, one round at a time. */
  async changed(revision: number): Promise<void> {
    this.#revision = Math.max(this.#revision, revision)
    if (this.#refreshing) {
      this.#refreshAgain = true
      return
    }
    this.#refreshing = true
    this.#refreshAgain = false
    try {
      do {
        await Promise.all(this.#pagesInSight().map((page) => this.#fetch(page, true)))
        await this.#keepSelection()
      } while (this.#takeRefreshAgain())
    } finally {
      this.#refreshing = false
    }
  }

  #takeRefreshAgain(): boolean {
    const again = this.#refreshAgain
    this.#refreshAgain = false
    return again
  }

  /** Selects the row at that place, fetching it when it is not here. */
  async select(index: number | null): Promise<void> {
    if (index === null || this.matching === 0) {
      this.selectedIndex = null
      this.selectedId = null
      return
    }
    const place = Math.max(0, Math.min(this.matching - 1, index))
    this.selectedIndex = place
    let row = this.rowAt(place)
    if (row === undefined) {
      const epoch = this.#epoch
      await this.#fetch(Math.floor(place / pageSize))
      if (epoch !== this.#epoch || this.selectedIndex !== place) return
      row = this.rowAt(place)
    }
    if (row !== undefined) this.selectedId = row.id
  }
  move(by: number): Promise<void> {
    return this.select(this.selectedIndex === null ? (by >= 0 ? 0 : this.matching - 1) : this.selectedIndex + by)
  }
  /** Selects the nearest of these flows after (or before) the selected one in the order shown, round the end. Those the filter hides are passed over. */
  async selectNext(ids: readonly number[], by: 1 | -1): Promise<void> {
    const epoch = this.#epoch
    const found = await Promise.all(ids.map((flow) => this.#client.call('position', { flow, ...this.query })))
    if (epoch !== this.#epoch) return
    const places = found.filter((place) => place !== null).sort((a, b) => (a - b) * by)
    const at = this.selectedIndex ?? (by > 0 ? -1 : this.matching)
    const next = places.find((place) => (place - at) * by > 0) ?? places[0]
    if (next === undefined) return
    this.following = false
    await this.select(next)
  }
  /** Shows newest flows as they come: order by number, at the end. */
  async follow(on: boolean): Promise<void> {
    this.following = on
    if (on && (this.query.sort !== 'id' || this.query.descending)) await this.ask({ sort: 'id', descending: false })
  }

  #pagesInSight(): number[] {
    const pages: number[] = []
    for (let page = Math.floor(Math.max(0, this.#seen.first) / pageSize); page * pageSize < Math.max(1, this.#seen.end); page++) pages.push(page)
    return pages
  }

  async #startOver(): Promise<void> {
    this.#epoch += 1
    this.#asked.clear()
    this.#seen = { first: 0, end: this.#seen.end - this.#seen.first }
    this.loading = true
    await this.#fetch(0)
    await this.#keepSelection(true)
  }

  async #fetch(page: number, anew = false): Promise<void> {
    const running = this.#asked.get(page)
    if (running !== undefined) {
      if (anew) this.#refreshAgain = true
      return running
    }
    const fetching = this.#fetchNow(page, this.#epoch)
    this.#asked.set(page, fetching)
    await fetching
    if (this.#asked.get(page) === fetching) this.#asked.delete(page)
  }

  async #fetchNow(page: number, epoch: number): Promise<void> {
    try {
      const answer = await this.#client.call('flows', { ...this.query, offset: page * pageSize, limit: pageSize })
      if (epoch !== this.#epoch) return
      if (this.loading) this.#pages.clear()
      this.loading = false
      this.failure = null
      this.total = answer.total
      this.matching = answer.matching
      this.#revision = Math.max(this.#revision, answer.revision)
      this.#pages.set(page, { rows: answer.rows, revision: answer.revision })
      this.#forgetFar()
    } catch (error) {
      if (epoch !== this.#epoch) return
      this.loading = false
      this.failure = toFailureReport(error)
    }
  }

  #forgetFar(): void {
    if (this.#pages.size <= mostPages) return
    const middle = (this.#seen.first + this.#seen.end) / 2 / pageSize
    const byDistance = [...this.#pages.keys()].sort((a, b) => Math.abs(b - middle) - Math.abs(a - middle))
    for (const page of byDistance.slice(0, this.#pages.size - mostPages)) this.#pages.delete(page)
  }

  /** Rows may have come in before the selected one, or the order changed: look where it stands now. */
  async #keepSelection(always = false): Promise<void> {
    const { selectedId, selectedIndex } = this
    if (selectedId === null) return
    if (!always && selectedIndex !== null && this.rowAt(selectedIndex)?.id === selectedId) return
    const epoch = this.#epoch
    try {
      const place = await this.#client.call('position', { flow: selectedId, ...this.query })
      if (epoch === this.#epoch && this.selectedId === selectedId) this.selectedIndex = place
    } catch {
      if (epoch === this.#epoch) this.selectedIndex = null
    }
  }
}

/** Sizes and durations are looked at largest first. */
function startsDescending(sort: SortKey): boolean {
  return sort === 'bytesUp' || sort === 'bytesDown' || sort === 'duration'
}
