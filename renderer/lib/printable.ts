/** A stretch of text as it may be shown; `special` marks what stands for a character that cannot be seen. */
export interface PrintablePart {
  readonly text: string
  readonly special: boolean
}

/**
 * Characters that would not be seen, or would change how their neighbours are seen: C0 and C1 controls, DEL, line and paragraph separators,
 * zero-width characters, byte order marks, directional marks and overrides (which can make "exe.txt" out of "txt.exe"), interlinear
 * annotation, tags, lone surrogates.
 */
const invisible =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]|[\u{e0000}-\u{e01ef}]|[\ud800-\udfff]/gu

function nameOf(character: string): string {
  const code = character.codePointAt(0) ?? 0
  if (code < 0x20) return String.fromCharCode(0x2400 + code)
  if (code === 0x7f) return '\u2421'
  if (code === 0xfeff) return '⟨BOM⟩'
  return `⟨${code.toString(16).toUpperCase().padStart(4, '0')}⟩`
}

/**
 * Captured text as parts that are safe to show: every invisible character stands as a picture of itself (␛, ⟨202E⟩).
 * @param keep characters among them to leave as they are, for text laid out over lines ("\n\t").
 */
export function printableParts(text: string, keep = ''): PrintablePart[] {
  const parts: PrintablePart[] = []
  let from = 0
  for (const match of text.matchAll(invisible)) {
    if (keep.includes(match[0])) continue
    if (match.index > from) parts.push({ text: text.slice(from, match.index), special: false })
    const last = parts.at(-1)
    const picture = nameOf(match[0])
    if (last?.special === true && match.index === from) parts[parts.length - 1] = { text: last.text + picture, special: true }
    else parts.push({ text: picture, special: true })
    from = match.index + match[0].length
  }
  if (from < text.length) parts.push({ text: text.slice(from), special: false })
  return parts
}

/** The same as one string, for titles, labels and what is copied as a summary. */
export function printable(text: string, keep = ''): string {
  return text.replace(invisible, (character) => (keep.includes(character) ? character : nameOf(character)))
}

/** At most `limit` characters of it, with an ellipsis where something was left out; never cuts a surrogate pair. */
export function shorten(text: string, limit: number): string {
  if (text.length <= limit) return text
  const end = /[\ud800-\udbff]/.test(text.charAt(limit - 2)) ? limit - 2 : limit - 1
  return `${text.slice(0, end)}…`
}
