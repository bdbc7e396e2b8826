export interface WholeChange {
  readonly title: string
  readonly before: string
  readonly after: string
}
export interface TrimmedChange extends WholeChange {
  /** Which line of the whole the texts begin with, from 1. */
  readonly line: number
}

/** Lines round a change, as `diff -u` has them. */
const context = 3

/** Without the equal beginning and end, but for what a unified diff shows of them: other people's rules may be very many. */
export function trimChange({ title, before, after }: WholeChange): TrimmedChange {
  const [old, next] = [linesOf(before), linesOf(after)]
  const shorter = Math.min(old.length, next.length)
  let head = 0
  while (head < shorter && old[head] === next[head]) head++
  let tail = 0
  while (tail < shorter - head && old[old.length - 1 - tail] === next[next.length - 1 - tail]) tail++
  const [from, kept] = [Math.max(0, head - context), Math.max(0, tail - context)]
  const cut = (lines: readonly string[]): string => lines.slice(from, lines.length - kept).map((line) => `${line}\n`).join('')
  return { title, line: from + 1, before: cut(old), after: cut(next) }
}

function linesOf(text: string): string[] {
  return text === '' ? [] : text.replace(/\n$/, '').split('\n')
}
