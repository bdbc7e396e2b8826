import { fieldOf } from './fields.ts'
import type { FilterNode, FilterRange, FilterValue } from './filterNode.ts'

/** A text as the filter language quotes it; without need, without quotes. */
export function quoteText(text: string): string {
  return /^[\w.:/@+-]+$/.test(text) && !/^(and|or|not)$/i.test(text) ? text : `"${text.replace(/["\\]/g, '\\$&')}"`
}

function value(item: FilterValue | FilterRange, field: string): string {
  switch (item.type) {
    case 'range': return `${item.from}-${item.to}`
    case 'number': return fieldOf(field).kind === 'flag' ? (item.number === 1 ? 'true' : 'false') : plainNumber(item.number)
    case 'network': return item.text
    case 'text': return quoteText(item.text)
  }
}
/** Without an exponent, which the language does not read. */
function plainNumber(number: number): string {
  return /e/.test(String(number)) ? number.toFixed(Math.abs(number) < 1 ? 20 : 0) : String(number)
}

/** The filter written out again: `parseFilter(filterText(node))` is the same node. */
export function filterText(node: FilterNode): string {
  const inner = (part: FilterNode): string => (part.kind === 'and' || part.kind === 'or' ? `(${filterText(part)})` : filterText(part))
  switch (node.kind) {
    case 'all': return '~all'
    case 'and':
    case 'or': return node.parts.map(inner).join(` ${node.kind} `)
    case 'not': return `not ${inner(node.part)}`
    case 'present': return node.field
    case 'compare': return `${node.field} ${node.operator} ${value(node.value, node.field)}`
    case 'contains': return `${node.field} contains ${quoteText(node.text)}`
    case 'matches': return `${node.field} matches "${node.pattern.replace(/["\\]/g, '\\$&')}"`
    case 'in': return `${node.field} in {${node.items.map((item) => value(item, node.field)).join(', ')}}`
    case 'word': return `"${node.text.replace(/["\\]/g, '\\$&')}"`
  }
}
