import { fieldOf } from './fields.ts'
import { foldCase } from './filterNode.ts'
import type { FilterNode, FilterRange, FilterValue } from './filterNode.ts'

/** A condition over the table `flows`: always 0 or 1, never NULL; values only as parameters, in order. */
export interface FilterSql {
  readonly sql: string
  readonly parameters: readonly (string | number)[]
}

const termLimit = 300

/**
 * The filter as SQL, or null when SQL cannot say exactly what `matchFilter` does (regular expressions, networks, durations, times) or it would be
 * too long for SQLite. Columns are FlowRow's fields in snake case; booleans are 0 and 1.
 */
export function filterToSql(node: FilterNode): FilterSql | null {
  const builder = new SqlBuilder()
  const sql = builder.build(node)
  return sql === null || builder.terms > termLimit ? null : { sql, parameters: builder.parameters }
}

class SqlBuilder {
  readonly parameters: (string | number)[] = []
  terms = 0

  build(node: FilterNode): string | null {
    this.terms++
    if (this.terms > termLimit) return null
    switch (node.kind) {
      case 'all': return '1'
      case 'and':
      case 'or': {
        const parts: string[] = []
        for (const part of node.parts) {
          const sql = this.build(part)
          if (sql === null) return null
          parts.push(sql)
        }
        return `(${parts.join(node.kind === 'and' ? ' and ' : ' or ')})`
      }
      case 'not': {
        const sql = this.build(node.part)
        return sql === null ? null : `(not ${sql})`
      }
      case 'present': {
        const { kind } = fieldOf(node.field)
        return this.any(node.field, (column) => (kind === 'size' ? `(${column} <> 0)` : `(${column} is not null)`))
      }
      case 'compare': return this.comparison(node)
      case 'contains': return this.any(node.field, (column) => this.contains(`cast(${column} as text)`, node.text))
      case 'in': return this.any(node.field, (column) => this.oneOf(column, node.items), fieldOf(node.field).kind === 'flag')
      case 'word': return this.word(node.text)
      case 'matches': return null
    }
  }

  /** True when any of the field's values passes; a flag counts as 0 where it is absent. */
  private any(name: string, test: (column: string) => string | null, zero = false): string | null {
    const { sql } = fieldOf(name)
    if (sql === undefined) return null
    const tests: string[] = []
    for (const column of sql) {
      const text = test(zero ? `coalesce(${column}, 0)` : column)
      if (text === null) return null
      tests.push(`coalesce(${text}, 0)`)
    }
    return `(${tests.join(' or ')})`
  }

  private contains(column: string, text: string): string {
    this.parameters.push(foldCase(text))
    // instr(x, '') is 1 for every x, as ''.includes is true.
    return `instr(lower(${column}), ?) > 0`
  }

  private comparison(node: FilterNode & { kind: 'compare' }): string | null {
    const { kind } = fieldOf(node.field)
    if (node.operator !== '!=') {
      return this.any(node.field, (column) => (node.operator === '==' ? this.oneOf(column, [node.value]) : this.ordered(column, node.operator, node.value)), kind === 'flag')
    }
    const present = this.any(node.field, (column) => `(${column} is not null)`, kind === 'flag')
    const equal = this.any(node.field, (column) => this.oneOf(column, [node.value]), kind === 'flag')
    return present === null || equal === null ? null : `(${present} and not ${equal})`
  }

  private ordered(column: string, operator: string, value: FilterValue): string | null {
    if (value.type !== 'number') return null
    this.parameters.push(value.number)
    return `${column} ${operator} ?`
  }

  private oneOf(column: string, items: readonly (FilterValue | FilterRange)[]): string | null {
    const tests: string[] = []
    for (const item of items) {
      this.terms++
      if (item.type === 'range') {
        this.parameters.push(item.from, item.to)
        tests.push(`${column} between ? and ?`)
      } else if (item.type === 'number') {
        this.parameters.push(item.number)
        tests.push(`${column} = ?`)
      } else if (item.type === 'text') {
        this.parameters.push(foldCase(item.text))
        tests.push(`lower(${column}) = ?`)
      } else return null
    }
    return `(${tests.join(' or ')})`
  }

  private word(word: string): string {
    const text = (column: string): string => `coalesce(${this.contains(column, word)}, 0)`
    const plain = ['info', 'name', 'process'].map(text)
    const ports = word.includes(':')
    const addresses = ['client', 'server'].map((side) =>
      text(ports ? `case when instr(${side}_address, ':') > 0 then '[' || ${side}_address || ']:' else ${side}_address || ':' end || ${side}_port` : `${side}_address`),
    )
    return `(${[...plain, ...addresses].join(' or ')})`
  }
}
