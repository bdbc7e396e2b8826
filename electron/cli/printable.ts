/**
 * Everything that came from outside passes here on its way to a terminal: what a terminal acts upon (C0, DEL and C1 controls, RFC: ECMA-48), what
 * turns the direction of text round (Unicode TR36, bidi controls), line separators, invisible and unpaired units become visible escapes.
 */
const unsafe = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g
const short: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\0': '\\0', '\u001b': '\\e' }

function escapeUnit(unit: string): string {
  const code = unit.charCodeAt(0)
  return short[unit] ?? (code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`)
}

/** One line, safe for a terminal. */
export function printable(text: string): string {
  return text.replace(unsafe, escapeUnit)
}

/** Several lines, each safe; LF and CRLF end them, tabs stay. */
export function printableLines(text: string): string[] {
  return text.split(/\r?\n/).map((line) => line.split('\t').map(printable).join('\t'))
}

/** Columns a text takes on a terminal: wide East Asian and emoji two, combining marks none. Of printable text. */
export function columns(text: string): number {
  // The quick way for ASCII.
  if (/^[\u0000-\u007f]*$/.test(text)) return text.length
  let width = 0
  for (const unit of text) width += columnsOf(unit)
  return width
}
function columnsOf(unit: string): number {
  const code = unit.codePointAt(0) as number
  if (/\p{Mn}|\p{Me}|\p{Cf}/u.test(unit)) return 0
  const wide =
    (code >= 0x1100 && code <= 0x115f) || (code >= 0x2e80 && code <= 0x303e) || (code >= 0x3041 && code <= 0xa4cf) || (code >= 0xac00 && code <= 0xd7a3) ||
    (code >= 0xf900 && code <= 0xfaff) || (code >= 0xfe30 && code <= 0xfe6f) || (code >= 0xff00 && code <= 0xff60) || (code >= 0xffe0 && code <= 0xffe6) || (code >= 0x1f300 && code <= 0x1faff) || (code >= 0x20000 && code <= 0x3fffd)
  return wide ? 2 : 1
}

/** Cut to a width with an ellipsis, or filled up to it. */
export function fit(text: string, width: number, right = false): string {
  const has = columns(text)
  if (has <= width) return right ? ' '.repeat(width - has) + text : text + ' '.repeat(width - has)
  if (width <= 0) return ''
  let out = ''
  let used = 0
  for (const unit of text) {
    const more = columnsOf(unit)
    if (used + more > width - 1) break
    out += unit
    used += more
  }
  return `${out}…${' '.repeat(width - 1 - used)}`
}
