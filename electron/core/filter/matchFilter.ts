import { inNetwork } from './address.ts'
import { endpointText, fieldOf } from './fields.ts'
import { foldCase } from './filterNode.ts'
import type { CompareOperator, FilterNode, FilterRange, FilterValue } from './filterNode.ts'
import { compileSafeRegex } from './safeRegex.ts'
import type { SafeRegex } from './safeRegex.ts'
import type { FlowRow } from '../flow/flow.ts'

/** Regexes are compiled once a node; nodes stay plain data. */
const compiled = new WeakMap<FilterNode, SafeRegex>()
const folded = new WeakMap<FilterNode, string>()

function regexOf(node: FilterNode & { kind: 'matches' }): SafeRegex {
  let regex = compiled.get(node)
  if (regex === undefined) {
    regex = compileSafeRegex(node.pattern)
    compiled.set(node, regex)
  }
  return regex
}
function foldedText(node: FilterNode & { text: string }): string {
  let text = folded.get(node)
  if (text === undefined) {
    text = foldCase(node.text)
    folded.set(node, text)
  }
  return text
}

function equals(actual: string | number, value: FilterValue): boolean {
  switch (value.type) {
    case 'number': return Number(actual) === value.number
    case 'text': return foldCase(String(actual)) === foldCase(value.text)
    case 'network': return inNetwork(String(actual), value)
  }
}

function compare(actual: readonly (string | number)[], operator: CompareOperator, value: FilterValue): boolean {
  if (operator === '==') return actual.some((each) => equals(each, value))
  // As in Wireshark since 3.6: present, and all of its values differ.
  if (operator === '!=') return actual.length > 0 && actual.every((each) => !equals(each, value))
  if (value.type !== 'number') return false
  const { number } = value
  return actual.some((each) => {
    const at = Number(each)
    return operator === '>' ? at > number : operator === '<' ? at < number : operator === '>=' ? at >= number : at <= number
  })
}

const within = (actual: string | number, item: FilterValue | FilterRange): boolean =>
  item.type === 'range' ? Number(actual) >= item.from && Number(actual) <= item.to : equals(actual, item)

/** What plain words are looked for in; with a colon in the word, addresses have their ports. */
function wordMatches(row: FlowRow, word: string): boolean {
  const has = (text: string | undefined): boolean => text !== undefined && foldCase(text).includes(word)
  if (has(row.info) || has(row.name) || has(row.process?.name)) return true
  return word.includes(':') ? has(endpointText(row.client)) || has(endpointText(row.server)) : has(row.client.address) || has(row.server.address)
}

/** Values of a field in a row; a flag answers 0 where others are absent, so that `live == false` works. */
function valuesOf(name: string, row: FlowRow): readonly (string | number)[] {
  const field = fieldOf(name)
  const values = field.read(row)
  return field.kind === 'flag' && values.length === 0 ? [0] : values
}

/** Whether a row passes. Pure; its time is bounded by the sizes of row and filter. */
export function matchFilter(node: FilterNode, row: FlowRow): boolean {
  switch (node.kind) {
    case 'all': return true
    case 'and': return node.parts.every((part) => matchFilter(part, row))
    case 'or': return node.parts.some((part) => matchFilter(part, row))
    case 'not': return !matchFilter(node.part, row)
    case 'present': {
      const field = fieldOf(node.field)
      // Sizes are always there: bare `lost` asks for some.
      return field.kind === 'size' ? field.read(row).some((value) => value !== 0) : field.read(row).length > 0
    }
    case 'compare': return compare(valuesOf(node.field, row), node.operator, node.value)
    case 'contains': return fieldOf(node.field).read(row).some((value) => foldCase(String(value)).includes(foldedText(node)))
    case 'matches': return fieldOf(node.field).read(row).some((value) => regexOf(node).test(String(value)))
    case 'in': return valuesOf(node.field, row).some((value) => node.items.some((item) => within(value, item)))
    case 'word': return wordMatches(row, foldedText(node))
  }
}
