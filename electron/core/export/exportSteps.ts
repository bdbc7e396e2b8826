import type { SessionReader } from './sessionReader.ts'

/** What an export did, told when it is through. */
export interface ExportTally {
  readonly flows: number
  /** HAR entries, packets, or lines. */
  readonly entries: number
  /** What was left out and why, one line each. */
  readonly notes: readonly string[]
}
export interface ExportWish {
  readonly filter: string
  /** `of` may be 0 while it is not known. Called often; cheap callers only. */
  readonly onProgress?: (done: number, of: number) => void
}
/**
 * An export is a generator of pieces (text, or bytes that stay valid until the next piece is asked for) that ends with its tally. Whoever
 * takes the pieces decides the pace, and cancels by taking no more. It holds one piece, never a whole body beyond its limit.
 */
export type ExportSteps = Generator<string | Uint8Array, ExportTally, void>
export type Exporter = (reader: SessionReader, wish: ExportWish) => ExportSteps

/** "1 flow", "2 flows". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`
}
