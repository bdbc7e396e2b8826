import { fieldOf } from './fields.ts'
import type { CompareOperator, FilterNode, FilterRange, FilterValue } from './filterNode.ts'

const words: Readonly<Record<CompareOperator, string>> = { '==': 'is', '!=': 'is not', '>': 'is above', '<': 'is below', '>=': 'is at least', '<=': 'is at most' }

function value(item: FilterValue | FilterRange): string {
  switch (item.type) {
    case 'range': return `${item.from} to ${item.to}`
    case 'number': return String(item.number)
    case 'network': return item.text
    case 'text': return `"${item.text}"`
  }
}

/** A filter in words, for a tooltip: `port is 443 and the name contains "example"`. */
export function describeFilter(node: FilterNode): string {
  switch (node.kind) {
    case 'all': return 'every flow'
    case 'and':
    case 'or':
      return node.parts.map((part) => (part.kind === 'and' || part.kind === 'or' ? `(${describeFilter(part)})` : describeFilter(part))).join(` ${node.kind} `)
    case 'not': return `not (${describeFilter(node.part)})`
    case 'present': return fieldOf(node.field).kind === 'flag' ? fieldOf(node.field).about : `${node.field} is there`
    case 'compare': {
      if (node.value.type === 'network' && node.value.bits < node.value.bytes.length * 8) return `${node.field} ${node.operator === '==' ? 'lies' : 'does not lie'} in ${value(node.value)}`
      if (fieldOf(node.field).kind === 'flag') return `${node.field} ${words[node.operator]} ${value(node.value) === '1' ? 'true' : 'false'}`
      return `${node.field} ${words[node.operator]} ${value(node.value)}`
    }
    case 'contains': return `${node.field} contains "${node.text}"`
    case 'matches': return `${node.field} matches /${node.pattern}/`
    case 'in': return `${node.field} is one of ${node.items.map(value).join(', ')}`
    case 'word': return `anything has "${node.text}"`
  }
}
