export type JsonKind = 'key' | 'string' | 'number' | 'word'
/** A coloured stretch of the laid out text. */
export interface JsonMark {
  readonly start: number
  readonly end: number
  readonly kind: JsonKind
}
export interface PrettyJson {
  readonly text: string
  readonly marks: readonly JsonMark[]
  /** False: it stopped being JSON somewhere (or was cut); the rest stands there as it came. */
  readonly complete: boolean
}

const deepest = 40
const token = /"(?:[^"\\\u0000-\u001f]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|[[\]{}:,]/y
const space = /[ \t\n\r]*/y

/**
 * JSON with one member a line. It only moves white space: numbers keep all their digits, doubled keys stay, escapes stay as written.
 * What is cut or wrong is laid out as far as it is JSON. Linear in time; indentation stops growing at 40 levels.
 */
export function prettyJson(source: string): PrettyJson {
  const out: string[] = []
  const marks: JsonMark[] = []
  const open: string[] = []
  let length = 0
  let at = 0
  let before = ''
  const put = (text: string) => {
    out.push(text)
    length += text.length
  }
  const line = () => put(`\n${'  '.repeat(Math.min(open.length, deepest))}`)
  const skip = () => {
    space.lastIndex = at
    space.exec(source)
    at = space.lastIndex
  }
  skip()
  while (at < source.length) {
    token.lastIndex = at
    const text = token.exec(source)?.[0]
    if (text === undefined) break
    const top = open.at(-1)
    if (text === '}' || text === ']') {
      if (top !== (text === '}' ? '{' : '[')) break
      open.pop()
      if (before !== '{' && before !== '[') line()
      put(text)
    } else if (text === ':') put(': ')
    else if (text === ',') put(',')
    else {
      if (before === '{' || before === '[' || (before === ',' && top !== undefined)) line()
      else if (before !== '' && before !== ':') line()
      if (text === '{' || text === '[') {
        put(text)
        open.push(text)
      } else {
        const start = length
        put(text)
        const first = text.charCodeAt(0)
        const kind: JsonKind = first !== 34 ? (first === 45 || (first >= 48 && first <= 57) ? 'number' : 'word') : top === '{' && (before === '{' || before === ',') ? 'key' : 'string'
        marks.push({ start, end: length, kind })
      }
    }
    before = text.length === 1 ? text : 'value'
    at += text.length
    skip()
  }
  const rest = source.slice(at)
  if (rest !== '') put(length === 0 ? rest : ` ${rest}`)
  return { text: out.join(''), marks, complete: rest === '' && open.length === 0 && length > 0 }
}

/** The marks that touch [start, end), by binary search. */
export function marksWithin(marks: readonly JsonMark[], start: number, end: number): readonly JsonMark[] {
  let low = 0
  let high = marks.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((marks[middle]?.end ?? 0) <= start) low = middle + 1
    else high = middle
  }
  let last = low
  while (last < marks.length && (marks[last]?.start ?? end) < end) last += 1
  return marks.slice(low, last)
}
