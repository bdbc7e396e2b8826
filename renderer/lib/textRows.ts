/** Text laid out in rows of at most `columns` characters, so that a list of equal rows can show it however long its lines are. */
export interface TextRows {
  readonly count: number
  /** Where row i begins and ends in the text, without its line break. */
  readonly starts: Uint32Array
  readonly ends: Uint32Array
  /** Number of the line (from 1) that begins with this row; 0 for a continuation. */
  readonly lines: Uint32Array
}

export function textRows(text: string, columns: number): TextRows {
  const width = Math.max(8, Math.floor(columns))
  const starts: number[] = []
  const ends: number[] = []
  const lines: number[] = []
  let line = 0
  let at = 0
  while (at <= text.length) {
    const found = text.indexOf('\n', at)
    const next = found === -1 ? text.length : found
    const end = next > at && text.charCodeAt(next - 1) === 13 ? next - 1 : next
    line += 1
    let from = at
    do {
      let to = Math.min(end, from + width)
      // never between the halves of a surrogate pair
      if (to < end && (text.charCodeAt(to - 1) & 0xfc00) === 0xd800) to -= 1
      starts.push(from)
      ends.push(to)
      lines.push(from === at ? line : 0)
      from = to
    } while (from < end)
    if (found === -1) break
    at = found + 1
  }
  // A break at the very end ends the last line; it begins no new one.
  if (text.endsWith('\n')) {
    starts.pop()
    ends.pop()
    lines.pop()
  }
  return { count: starts.length, starts: Uint32Array.from(starts), ends: Uint32Array.from(ends), lines: Uint32Array.from(lines) }
}
