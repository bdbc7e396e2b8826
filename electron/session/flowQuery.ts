import { setImmediate as turn } from 'node:timers/promises'

import { MatchList } from './matchList.ts'
import type { SqlValue } from './store/database.ts'
import type { IndexStore } from './store/indexStore.ts'
import { sortExpressions } from './store/schema.ts'
import type { FlowPage, SortKey } from '#core/contract/inspectorProtocol.ts'
import { filterToSql } from '#core/filter/filterToSql.ts'
import { parseFilter } from '#core/filter/parseFilter.ts'
import type { FilterNode } from '#core/filter/filterNode.ts'

export interface FlowOrder {
  readonly filter: string
  readonly sort: SortKey
  readonly descending: boolean
}
interface Selection {
  /** FROM and WHERE of the matching flows. */
  readonly from: string
  readonly parameters: readonly SqlValue[]
  readonly matching: number
  readonly list?: MatchList
}
const stepTime = 10
const listsKept = 4
/** From so many flows on a sort key gets an index of SQLite's when it is first asked for: each costs every write, and most are never used. */
const indexFrom = 20_000
/** A filter matched so many flows … of so many: counted anew only when the index has changed. */
interface Count {
  readonly revision: number
  readonly matching: number
}

/** Pages of the flow list: filtered and sorted by SQLite where it can say the filter, else by a list of matches. Never all rows in memory. */
export class FlowQuery {
  private readonly store: IndexStore
  private readonly lists = new Map<string, MatchList>()
  private readonly counts = new Map<string, Count>()
  private readonly indexed = new Set<SortKey>(['id'])
  private readonly onIndexed: () => void
  private total = 0
  private revision = 0

  /** `onIndexed`: the index has got another sort index. */
  constructor(store: IndexStore, onIndexed: () => void) {
    this.store = store
    this.onIndexed = onIndexed
    this.recount()
  }

  /** After each flush: the index is another now. */
  changed(revision: number, flows: ReadonlySet<number>): void {
    this.revision = revision
    for (const list of this.lists.values()) list.noteChanged(flows)
    this.recount()
  }

  async page(order: FlowOrder, offset: number, limit: number): Promise<FlowPage> {
    const { from, parameters, matching, list } = await this.select(order)
    this.ensureIndex(order.sort)
    let ids: readonly number[]
    if (list !== undefined && order.sort === 'id') {
      ids = order.descending ? list.ids.slice(Math.max(0, matching - offset - limit), Math.max(0, matching - offset)).reverse() : list.ids.slice(offset, offset + limit)
    } else {
      const source = list === undefined ? from : `FROM ${this.tableOf(list)} JOIN flows USING (id)`
      const sql = `SELECT id ${source} ORDER BY ${orderBy(order)} LIMIT ? OFFSET ?`
      ids = this.store.database.all(sql, [...parameters, limit, offset]).map((row) => row['id'] as number)
    }
    return { total: this.total, matching, rows: this.store.rows(ids), revision: this.revision }
  }

  /** Place of a flow in that order, or null when it does not match. */
  async position(order: FlowOrder, flow: number): Promise<number | null> {
    const { from, parameters, list } = await this.select(order)
    if (list !== undefined && list.ids[list.rank(flow)] !== flow) return null
    if (list !== undefined && order.sort === 'id') return order.descending ? list.ids.length - 1 - list.rank(flow) : list.rank(flow)
    const source = list === undefined ? from : `FROM ${this.tableOf(list)} JOIN flows USING (id) WHERE 1`
    const { database } = this.store
    if (database.get(`SELECT id ${source} AND id = ?`, [...parameters, flow]) === undefined) return null
    const key = sortExpressions[order.sort]
    const than = order.descending ? '>' : '<'
    const own = `(SELECT ${key} FROM flows WHERE id = ?)`
    const sql = `SELECT count(*) AS n ${source} AND (${key} ${than} ${own} OR (${key} = ${own} AND id ${than} ?))`
    return database.get(sql, [...parameters, flow, flow, flow])?.['n'] as number
  }

  /** Rows of matching flows by id, read in batches; for exports, which need no revision. */
  *rows(filter: string): Generator<ReturnType<IndexStore['rows']>[number]> {
    const sql = filterToSql(parseFilter(filter))
    const node = parseFilter(filter)
    const match = sql === null ? new MatchList(node, this.store) : null
    for (let after = 0; ; ) {
      if (match !== null) {
        match.step(Infinity)
        yield* chunked(match.ids, (some) => this.store.rows(some))
        return
      }
      const ids = this.store.database.all(`SELECT id FROM flows WHERE ${sql!.sql} AND id > ? ORDER BY id LIMIT 200`, [...sql!.parameters, after]).map((row) => row['id'] as number)
      if (ids.length === 0) return
      yield* this.store.rows(ids)
      after = ids.at(-1)!
    }
  }

  count(filter: string): number {
    const node = parseFilter(filter)
    const sql = filterToSql(node)
    if (sql !== null) return this.store.database.get(`SELECT count(*) AS n FROM flows WHERE ${sql.sql}`, sql.parameters)?.['n'] as number
    const list = new MatchList(node, this.store)
    list.step(Infinity)
    return list.ids.length
  }

  private async select(order: FlowOrder): Promise<Selection> {
    const node = parseFilter(order.filter)
    const sql = filterToSql(node)
    if (sql === null) {
      const list = await this.listOf(order.filter, node)
      return { from: '', parameters: [], matching: list.ids.length, list }
    }
    const from = `FROM flows WHERE ${sql.sql}`
    if (node.kind === 'all') return { from, parameters: [], matching: this.total }
    const known = this.counts.get(order.filter)
    if (known?.revision === this.revision) return { from, parameters: sql.parameters, matching: known.matching }
    const matching = this.store.database.get(`SELECT count(*) AS n ${from}`, sql.parameters)?.['n'] as number
    this.counts.delete(order.filter)
    if (this.counts.size >= 20) this.counts.delete(this.counts.keys().next().value!)
    this.counts.set(order.filter, { revision: this.revision, matching })
    return { from, parameters: sql.parameters, matching }
  }

  private async listOf(filter: string, node: FilterNode): Promise<MatchList> {
    let list = this.lists.get(filter)
    if (list === undefined) {
      list = new MatchList(node, this.store)
      if (this.lists.size >= listsKept) this.lists.delete(this.lists.keys().next().value!)
    }
    // Newest last, and reachable for `changed` while it is being built.
    this.lists.delete(filter)
    this.lists.set(filter, list)
    while (!list.step(performance.now() + stepTime)) await turn()
    return list
  }

  private tableOf(list: MatchList): string {
    for (const other of this.lists.values()) if (other !== list) other.forgetTable()
    return list.table('matched')
  }

  private recount(): void {
    this.total = this.store.database.get('SELECT count(*) AS n FROM flows')?.['n'] as number
  }

  private ensureIndex(key: SortKey): void {
    if (this.indexed.has(key) || this.total < indexFrom) return
    this.indexed.add(key)
    this.store.database.exec(`CREATE INDEX IF NOT EXISTS flows_by_${key} ON flows (${sortExpressions[key]}, id)`)
    this.onIndexed()
  }
}

function orderBy(order: FlowOrder): string {
  const direction = order.descending ? 'DESC' : 'ASC'
  return order.sort === 'id' ? `id ${direction}` : `${sortExpressions[order.sort]} ${direction}, id ${direction}`
}

function* chunked<T, U>(items: readonly T[], step: (some: readonly T[]) => readonly U[]): Generator<U> {
  for (let at = 0; at < items.length; at += 200) yield* step(items.slice(at, at + 200))
}
