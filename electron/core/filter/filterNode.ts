import { Failure } from '../contract/failure.ts'

/**
 * A filter, parsed: plain data (it may be kept, compared, sent). Fields stand by their canonical name.
 * Text is compared without regard to ASCII case and to ASCII case alone, so that SQLite's `lower` and this room agree on every string.
 */
export type CompareOperator = '==' | '!=' | '>' | '<' | '>=' | '<='

/** What a field is compared with, by the field's kind: `number` stands for sizes (bytes), durations and times (seconds), and flags (0, 1). */
export type FilterValue =
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'number'; readonly number: number }
  /** `bits` leading bits of `bytes` (4 or 16 of them; an IPv4-mapped address counts as IPv4). */
  | { readonly type: 'network'; readonly bytes: readonly number[]; readonly bits: number; readonly text: string }

export interface FilterRange {
  readonly type: 'range'
  readonly from: number
  readonly to: number
}

export type FilterNode =
  /** The empty filter: every flow. */
  | { readonly kind: 'all' }
  | { readonly kind: 'and' | 'or'; readonly parts: readonly FilterNode[] }
  | { readonly kind: 'not'; readonly part: FilterNode }
  | { readonly kind: 'present'; readonly field: string }
  | { readonly kind: 'compare'; readonly field: string; readonly operator: CompareOperator; readonly value: FilterValue }
  | { readonly kind: 'contains'; readonly field: string; readonly text: string }
  | { readonly kind: 'matches'; readonly field: string; readonly pattern: string }
  | { readonly kind: 'in'; readonly field: string; readonly items: readonly (FilterValue | FilterRange)[] }
  /** A plain word: anywhere in info, name, process or addresses. */
  | { readonly kind: 'word'; readonly text: string }

/** `bad-filter`: where it went wrong (`position`, counted in UTF-16 units from 0) and what could have stood there. */
export class FilterFailure extends Failure {
  readonly position: number
  readonly expected: string
  constructor(position: number, problem: string, expected: string) {
    super('bad-filter', `${problem} (character ${position + 1}); expected ${expected}`)
    this.name = 'FilterFailure'
    this.position = position
    this.expected = expected
  }
}

/** Lower case for A to Z only: what SQLite's `lower` does. */
export function foldCase(text: string): string {
  return text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase())
}
