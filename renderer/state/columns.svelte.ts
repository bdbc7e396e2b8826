import type { SortKey } from '#core/contract/inspectorProtocol.ts'
import { readRemembered, remember } from './remembered.ts'

export type ColumnId = 'id' | 'time' | 'program' | 'transport' | 'protocol' | 'server' | 'port' | 'info' | 'up' | 'down' | 'duration' | 'state'
export interface Column {
  readonly id: ColumnId
  readonly title: string
  readonly sort: SortKey
  readonly width: number
  readonly least: number
  /** Numbers stand at the right. */
  readonly end?: boolean
  /** Takes what is left of the width. */
  readonly grows?: boolean
}
export const columns: readonly Column[] = [
  { id: 'id', title: 'No.', sort: 'id', width: 62, least: 44, end: true },
  { id: 'time', title: 'Time', sort: 'startedAt', width: 98, least: 60 },
  { id: 'program', title: 'Program', sort: 'process', width: 108, least: 50 },
  { id: 'transport', title: 'Over', sort: 'transport', width: 58, least: 46 },
  { id: 'protocol', title: 'Protocol', sort: 'protocol', width: 74, least: 54 },
  { id: 'server', title: 'Server', sort: 'server', width: 178, least: 70 },
  { id: 'port', title: 'Port', sort: 'port', width: 52, least: 40, end: true },
  { id: 'info', title: 'Info', sort: 'info', width: 220, least: 100, grows: true },
  { id: 'up', title: 'Up', sort: 'bytesUp', width: 66, least: 44, end: true },
  { id: 'down', title: 'Down', sort: 'bytesDown', width: 66, least: 44, end: true },
  { id: 'duration', title: 'Duration', sort: 'duration', width: 78, least: 50, end: true },
  { id: 'state', title: 'State', sort: 'state', width: 112, least: 60 },
]
const widest = 900

interface Kept {
  readonly widths: Readonly<Record<string, number>>
  readonly hidden: readonly string[]
}
function isKept(value: unknown): value is Kept {
  if (typeof value !== 'object' || value === null || !('widths' in value) || !('hidden' in value)) return false
  const { widths, hidden } = value
  return typeof widths === 'object' && widths !== null && Object.values(widths).every((width) => typeof width === 'number') && Array.isArray(hidden) && hidden.every((id) => typeof id === 'string')
}

/** Which columns the list shows, and how wide; remembered between runs. */
export class Columns {
  #kept = $state.raw<Kept>(readRemembered('columns', isKept) ?? { widths: {}, hidden: [] })

  readonly shown = $derived(columns.filter(({ id }) => !this.#kept.hidden.includes(id)))
  /** For `grid-template-columns`. */
  readonly template = $derived(
    this.shown.map((column) => (column.grows === true ? `minmax(${this.widthOf(column)}px, 1fr)` : `${this.widthOf(column)}px`)).join(' '),
  )
  readonly width = $derived(this.shown.reduce((sum, column) => sum + this.widthOf(column), 0))

  widthOf({ id, width, least }: Column): number {
    const kept = this.#kept.widths[id]
    return kept === undefined ? width : Math.min(widest, Math.max(least, Math.round(kept)))
  }
  resize(column: Column, width: number): void {
    this.#keep({ ...this.#kept, widths: { ...this.#kept.widths, [column.id]: Math.min(widest, Math.max(column.least, Math.round(width))) } })
  }
  isShown(id: ColumnId): boolean {
    return !this.#kept.hidden.includes(id)
  }
  /** Shows or hides one; the last one stays. */
  toggle(id: ColumnId): void {
    const hidden = this.isShown(id) ? [...this.#kept.hidden, id] : this.#kept.hidden.filter((other) => other !== id)
    if (hidden.length < columns.length) this.#keep({ ...this.#kept, hidden })
  }
  reset(): void {
    this.#keep({ widths: {}, hidden: [] })
  }

  #keep(kept: Kept): void {
    this.#kept = kept
    remember('columns', kept)
  }
}
