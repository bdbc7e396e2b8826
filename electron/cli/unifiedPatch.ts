import { structuredPatch } from 'diff'

import type { ChangePart } from '#core/contract/helperProtocol.ts'

/** `patch -p0` and people know this form. Empty when nothing differs. Tabs stay: nft's listings are indented by them. */
export function unifiedPatch({ title, line, before, after }: ChangePart): string {
  const { hunks } = structuredPatch(title, title, before, after, undefined, undefined, { context: 3 })
  if (hunks.length === 0) return ''
  // Where nothing stood, the place is the line before, which begins at 0.
  const at = (start: number, lines: number): string => `${String(start + line - 1 - (lines === 0 ? 1 : 0))},${String(lines)}`
  const texts = hunks.map(({ oldStart, oldLines, newStart, newLines, lines }) => `@@ -${at(oldStart, oldLines)} +${at(newStart, newLines)} @@\n${lines.map((each) => `${each}\n`).join('')}`)
  return `--- ${title}\tnow\n+++ ${title}\twhile the gate is open\n${texts.join('')}`
}

const colours = { '-': 31, '+': 32, '@': 36 } as const

/** As git colours it. Of a text that is safe for a terminal. */
export function colourPatch(patch: string): string {
  const paint = (code: string, text: string): string => `\u001b[${code}m${text}\u001b[m`
  return patch.split('\n').map((text) => {
    if (/^(?:---|\+\+\+) /.test(text)) return paint('1', text)
    const colour = colours[text[0] as keyof typeof colours] as number | undefined
    return colour === undefined ? text : paint(String(colour), text)
  }).join('\n')
}
