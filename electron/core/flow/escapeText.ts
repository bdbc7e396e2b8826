/**
 * Captured text made safe to show anywhere: C0, DEL, C1, line and paragraph separators, bidirectional controls, zero-width and
 * other format characters, lone surrogates and noncharacters are written as \x1b or \u{202e}. What is over `limit` characters of result
 * is cut with "…". Takes time in proportion to `limit`, not to the text.
 */
export function escapeText(text: string, limit: number): string {
  let out = ''
  for (let at = 0; at < text.length; ) {
    const code = text.codePointAt(at)!
    const length = code > 0xffff ? 2 : 1
    const piece = isUnsafe(code) ? escapeCode(code) : text.slice(at, at + length)
    if (out.length + piece.length > limit || (out.length + piece.length === limit && at + length < text.length)) {
      return `${out.slice(0, Math.max(0, limit - 1)).replace(/[\ud800-\udbff]$/, '')}…`
    }
    out += piece
    at += length
  }
  return out
}

function isUnsafe(code: number): boolean {
  if (code < 0x20 || (code >= 0x7f && code <= 0xa0)) return true
  if (code < 0xad) return false
  return (
    code === 0xad || code === 0x61c || code === 0x180e || code === 0xfeff || (code >= 0x200b && code <= 0x200f) ||
    (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) || (code >= 0xd800 && code <= 0xdfff) ||
    (code >= 0xfff0 && code <= 0xfffb) || (code & 0xfffe) === 0xfffe || (code >= 0xe0000 && code <= 0xe0fff)
  )
}

function escapeCode(code: number): string {
  if (code === 9) return '\\t'
  if (code === 10) return '\\n'
  if (code === 13) return '\\r'
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`
}
