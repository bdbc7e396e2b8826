import { fields, findField } from './fields.ts'
import type { Field } from './fields.ts'
import { quoteText } from './filterText.ts'

/** Values seen in the session, by canonical field name (`process`, `name`, `user`, `method`, `port`, …), most telling first. */
export type KnownValues = Readonly<Record<string, readonly string[]>>

export interface Suggestion {
  /** What stands at [from, to) gives way to this. */
  readonly text: string
  readonly about: string
  readonly kind: 'field' | 'operator' | 'value' | 'word'
}
export interface Completion {
  readonly from: number
  readonly to: number
  readonly suggestions: readonly Suggestion[]
}

const suggestionLimit = 40
const operatorWords = /(?:==|!=|>=|<=|=|>|<|~|\b(?:eq|ne|gt|lt|ge|le|contains|matches))\s*$/i

/** The field just before an operator or an opened list that ends `before`, if that is where the cursor is. */
function fieldBefore(before: string): Field | undefined {
  const list = /([\w.]+)\s+in\s*\{[^}]*$/i.exec(before)
  if (list !== null) return findField(list[1] as string)
  const operator = operatorWords.exec(before)
  if (operator === null) return undefined
  const name = /([\w.]+)\s*$/.exec(before.slice(0, operator.index))
  return name === null ? undefined : findField(name[1] as string)
}

function operatorsOf(field: Field): readonly (readonly [string, string])[] {
  if (field.kind === 'flag') return []
  if (field.kind === 'text' || field.kind === 'address') {
    return [['==', 'is'], ['!=', 'is not'], ['contains', 'has the text'], ['matches', 'fits the regular expression'], ['in', 'is one of { }']]
  }
  return [['==', 'is'], ['!=', 'is not'], ['>', 'above'], ['<', 'below'], ['>=', 'at least'], ['<=', 'at most'], ['in', 'is one of { }']]
}

/**
 * What could stand at the cursor: fields at the start of a term, operators after a field, values after an operator (those of `known`, and the
 * fixed ones), and/or after a term. Pure; never throws, whatever the text.
 */
export function completeFilter(text: string, cursor: number, known: KnownValues): Completion {
  const to = Math.max(0, Math.min(cursor, text.length))
  const before = text.slice(0, to)
  if (inQuotes(before)) return { from: to, to, suggestions: [] }
  const typed = /[^\s()"'=!<>&|{},~]*$/.exec(before)?.[0] ?? ''
  const from = to - typed.length
  const head = before.slice(0, from)
  const low = typed.toLowerCase()
  const fits = (suggestions: readonly Suggestion[]): Completion => {
    const starting = suggestions.filter((each) => each.text.toLowerCase().replace(/^"/, '').startsWith(low))
    const holding = suggestions.filter((each) => !starting.includes(each) && low.length > 1 && each.text.toLowerCase().includes(low))
    return { from, to, suggestions: [...starting, ...holding].filter((each) => each.text !== typed).slice(0, suggestionLimit) }
  }

  const valued = fieldBefore(head)
  if (valued !== undefined) {
    const values = [...(valued.values ?? (valued.kind === 'flag' ? ['true', 'false'] : [])), ...(Object.hasOwn(known, valued.name) ? (known[valued.name] ?? []) : [])]
    return fits([...new Set(values)].slice(0, 2000).map((value) => ({ text: quoteText(value), about: valued.about, kind: 'value' as const })))
  }
  const previous = /([\w.]+)\s+$/.exec(head)?.[1]
  const field = previous === undefined ? undefined : findField(previous)
  const starts = /(?:^|[(!&|]|\b(?:and|or|not))\s*$/i.test(head)
  const fieldSuggestions = fields.map((each) => ({ text: each.name, about: each.about, kind: 'field' as const }))
  if (starts) return fits([...fieldSuggestions, { text: 'not', about: 'flows that do not', kind: 'word' }])
  const joins: Suggestion[] = [
    { text: 'and', about: 'both', kind: 'word' },
    { text: 'or', about: 'either', kind: 'word' },
  ]
  if (field === undefined) return fits([...joins, ...fieldSuggestions])
  return fits([...operatorsOf(field).map(([operator, about]) => ({ text: operator, about, kind: 'operator' as const })), ...joins])
}

function inQuotes(text: string): boolean {
  let quote: string | undefined
  for (let i = 0; i < text.length; i++) {
    const unit = text[i]
    if (quote !== undefined && unit === '\\') i++
    else if (unit === quote) quote = undefined
    else if (quote === undefined && (unit === '"' || unit === "'")) quote = unit
  }
  return quote !== undefined
}
