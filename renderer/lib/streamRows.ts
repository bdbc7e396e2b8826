import type { Direction, Nanoseconds } from '#core/flow/flow.ts'
import type { StreamStretch } from '#ui/state/stream.svelte.ts'
import { textRows } from './textRows.ts'

/** A row of the stream view: the head of a turn, a stretch of text or sixteen bytes, or a statement that bytes are missing. */
export type StreamRow =
  | { readonly kind: 'turn'; readonly direction: Direction; readonly time: Nanoseconds; readonly length: number }
  | { readonly kind: 'text'; readonly direction: Direction; readonly text: string }
  | { readonly kind: 'hex'; readonly direction: Direction; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'gap'; readonly direction: Direction; readonly length: number }

interface Turn {
  readonly direction: Direction
  readonly time: Nanoseconds
  readonly stretches: StreamStretch[]
}

/** Stretches of one direction in a row are one turn of the conversation. */
function turnsOf(stretches: readonly StreamStretch[]): Turn[] {
  const turns: Turn[] = []
  for (const stretch of stretches) {
    const last = turns.at(-1)
    if (last?.direction === stretch.direction) last.stretches.push(stretch)
    else turns.push({ direction: stretch.direction, time: stretch.time, stretches: [stretch] })
  }
  return turns
}

/** `datagrams`: each stretch is one, and stands for itself. */
export function streamRows(stretches: readonly StreamStretch[], as: 'text' | 'hex', columns: number, datagrams = false): StreamRow[] {
  const rows: StreamRow[] = []
  const turns = datagrams ? stretches.map((stretch): Turn => ({ direction: stretch.direction, time: stretch.time, stretches: [stretch] })) : turnsOf(stretches)
  for (const { direction, time, stretches: parts } of turns) {
    rows.push({ kind: 'turn', direction, time, length: parts.reduce((sum, { length }) => sum + length, 0) })
    if (as === 'hex') hexRows(rows, direction, parts)
    else pushText(rows, direction, parts, columns)
  }
  return rows
}

function hexRows(rows: StreamRow[], direction: Direction, parts: readonly StreamStretch[]): void {
  for (const { offset, bytes, length } of parts) {
    if (bytes === null) rows.push({ kind: 'gap', direction, length })
    else for (let at = 0; at < bytes.length; at += 16) rows.push({ kind: 'hex', direction, offset: offset + at, bytes: bytes.subarray(at, at + 16) })
  }
}

function pushText(rows: StreamRow[], direction: Direction, parts: readonly StreamStretch[], columns: number): void {
  let decoder = new TextDecoder()
  let text = ''
  const flush = () => {
    text += decoder.decode()
    decoder = new TextDecoder()
    if (text === '') return
    const { count, starts, ends } = textRows(text, columns)
    for (let i = 0; i < count; i++) rows.push({ kind: 'text', direction, text: text.slice(starts[i], ends[i]) })
    text = ''
  }
  for (const { bytes, length } of parts) {
    if (bytes === null) {
      flush()
      rows.push({ kind: 'gap', direction, length })
    } else text += decoder.decode(bytes, { stream: true })
  }
  flush()
}
