import type { FlowRow } from '#core/flow/flow.ts'
import type { InspectorClient } from '#session/inspectorClient.ts'

/** Numbers told once; everything up to `below` is in it without being kept. */
class ToldOnce {
  private readonly above = new Set<number>()
  private below = 0
  has(id: number): boolean {
    return id <= this.below || this.above.has(id)
  }
  add(id: number): void {
    this.above.add(id)
    while (this.above.delete(this.below + 1)) this.below++
  }
}

/** 1-3,7 as a filter. */
function idFilter(ids: readonly number[]): string {
  const sorted = [...ids].sort((a, b) => a - b)
  const ranges: [number, number][] = []
  for (const id of sorted) {
    const last = ranges.at(-1)
    if (last !== undefined && id <= last[1] + 1) last[1] = id
    else ranges.push([id, id])
  }
  return `id in {${ranges.map(([from, to]) => (from === to ? String(from) : `${from}-${to}`)).join(',')}}`
}

const page = 1000
/** So that a filter of ids stays far below its limit in characters. */
const most = 400

export interface FlowListener {
  /** Each flow once, when first seen. */
  readonly opened: (row: FlowRow) => void | Promise<void>
  /** Each flow once, when it is over. */
  readonly ended: (row: FlowRow) => void | Promise<void>
  /** Flows that changed, before the above. */
  readonly seen?: (row: FlowRow) => void
}

/** Turns an inspector's `changed` events into each flow's opening and end, once each. Work is done one step after the other. */
export class FlowFollow {
  private readonly inspector: InspectorClient
  private readonly listener: FlowListener
  private readonly opened = new ToldOnce()
  private readonly ended = new ToldOnce()
  private readonly pending = new Set<number>()
  private everything = false
  private working: Promise<void> | undefined

  constructor(inspector: InspectorClient, listener: FlowListener) {
    this.inspector = inspector
    this.listener = listener
  }

  changed(flows: readonly number[], more: boolean): Promise<void> {
    if (more) this.everything = true
    else for (const id of flows) this.pending.add(id)
    // What comes while a step is under way is taken by the next one.
    this.working ??= this.work().finally(() => (this.working = undefined))
    return this.working
  }

  /** Reads every flow once more, so that none is missed. */
  async finish(): Promise<void> {
    await this.working?.catch(() => undefined)
    await this.changed([], true)
  }

  private async work(): Promise<void> {
    while (this.everything || this.pending.size > 0) {
      if (this.everything) {
        this.everything = false
        this.pending.clear()
        await this.read('')
      } else {
        const ids = [...this.pending].slice(0, most)
        for (const id of ids) this.pending.delete(id)
        await this.read(idFilter(ids))
      }
    }
  }

  private async read(filter: string): Promise<void> {
    for (let offset = 0; ; offset += page) {
      const { rows } = await this.inspector.request('flows', { filter, sort: 'id', descending: false, offset, limit: page })
      for (const row of rows) await this.tell(row)
      if (rows.length < page) return
    }
  }

  private async tell(row: FlowRow): Promise<void> {
    this.listener.seen?.(row)
    if (!this.opened.has(row.id)) {
      this.opened.add(row.id)
      await this.listener.opened(row)
    }
    if (row.state !== 'live' && !this.ended.has(row.id)) {
      this.ended.add(row.id)
      await this.listener.ended(row)
    }
  }
}
