import { SvelteSet } from 'svelte/reactivity'

import { readRemembered, remember } from './remembered.ts'

type Kept = Readonly<Record<string, readonly number[]>>
function isKept(value: unknown): value is Kept {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && Object.values(value).every((ids) => Array.isArray(ids) && ids.every((id) => Number.isSafeInteger(id)))
}
/** Sessions whose marks are remembered, and marks of each. */
const mostSessions = 20
const mostMarks = 1000

/** Flows a person marked, by session; kept in the window, as sessions are never written to after recording. */
export class Marks {
  readonly #ids = new SvelteSet<number>()
  #folder: string | null = null

  /** Another session is on show. */
  use(folder: string | null): void {
    this.#folder = folder
    this.#ids.clear()
    const kept = folder === null ? [] : (readRemembered('marks', isKept)?.[folder] ?? [])
    for (const id of kept) this.#ids.add(id)
  }
  has(id: number): boolean {
    return this.#ids.has(id)
  }
  get count(): number {
    return this.#ids.size
  }
  toggle(id: number): void {
    if (!this.#ids.delete(id)) this.#ids.add(id)
    if (this.#folder === null) return
    const others = Object.entries(readRemembered('marks', isKept) ?? {}).filter(([folder]) => folder !== this.#folder)
    const mine: Kept[string] = this.sorted().slice(0, mostMarks)
    remember('marks', Object.fromEntries([...others, ...(mine.length === 0 ? [] : [[this.#folder, mine] as const])].slice(-mostSessions)))
  }
  sorted(): number[] {
    return [...this.#ids].sort((a, b) => a - b)
  }
}
