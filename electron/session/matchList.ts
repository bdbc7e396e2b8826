import type { IndexStore } from './store/indexStore.ts'
import type { FilterNode } from '#core/filter/filterNode.ts'
import { matchFilter } from '#core/filter/matchFilter.ts'

const batch = 250

/**
 * Ids of the flows a filter matches, ascending, for filters SQL cannot say. Built once in slices, then kept up to date flow by flow.
 * Eight bytes a match; rows are looked at and let go.
 */
export class MatchList {
  private readonly node: FilterNode
  private readonly store: IndexStore
  private scannedTo = 0
  private scanned = false
  private readonly changed = new Set<number>()
  private list: number[] = []
  private temporary: string | null = null

  constructor(node: FilterNode, store: IndexStore) {
    this.node = node
    this.store = store
  }

  /** These flows have changed or come anew. */
  noteChanged(flows: Iterable<number>): void {
    for (const flow of flows) if (this.scanned || flow <= this.scannedTo) this.changed.add(flow)
  }

  /** Goes on until `deadline` (of performance.now()); true when the list says what the index does. */
  step(deadline: number): boolean {
    while (!this.scanned) {
      const rows = this.store.rowsAfter(this.scannedTo, batch)
      for (const row of rows) if (matchFilter(this.node, row)) this.list.push(row.id)
      this.scannedTo = rows.at(-1)?.id ?? this.scannedTo
      if (rows.length < batch) this.scanned = true
      else if (performance.now() >= deadline) return false
    }
    while (this.changed.size > 0) {
      const some: number[] = []
      for (const flow of this.changed) if (some.push(flow) === batch) break
      const rows = new Map(this.store.rows(some).map((row) => [row.id, row]))
      for (const flow of some) {
        this.changed.delete(flow)
        const row = rows.get(flow)
        this.set(flow, row !== undefined && matchFilter(this.node, row))
      }
      if (performance.now() >= deadline) return this.changed.size === 0
    }
    return true
  }

  get ids(): readonly number[] {
    return this.list
  }

  /** Index of the first id not below `flow`. */
  rank(flow: number): number {
    let [low, high] = [0, this.list.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.list[middle]! < flow) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Name of a temporary table of the ids, for sorting by SQL. */
  table(name: string): string {
    if (this.temporary === null) {
      const { database } = this.store
      database.exec(`CREATE TEMP TABLE IF NOT EXISTS ${name} (id INTEGER PRIMARY KEY)`)
      database.transaction(() => {
        database.exec(`DELETE FROM temp.${name}`)
        for (let at = 0; at < this.list.length; at += 500) {
          const some = this.list.slice(at, at + 500)
          database.run(`INSERT INTO temp.${name} (id) VALUES ${some.map(() => '(?)').join(', ')}`, some)
        }
      })
      this.temporary = name
    }
    return this.temporary
  }

  /** The temporary table is another list's now. */
  forgetTable(): void {
    this.temporary = null
  }

  private set(flow: number, matches: boolean): void {
    const at = this.rank(flow)
    const there = this.list[at] === flow
    if (matches === there) return
    this.temporary = null
    if (there) this.list.splice(at, 1)
    else this.list.splice(at, 0, flow)
  }
}
