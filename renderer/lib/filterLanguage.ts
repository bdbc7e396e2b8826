import { completeFilter, type KnownValues } from '#core/filter/completeFilter.ts'
import { describeFilter } from '#core/filter/describeFilter.ts'
import { quoteText } from '#core/filter/filterText.ts'
import { parseFilter } from '#core/filter/parseFilter.ts'
import type { FlowRow } from '#core/flow/flow.ts'
import { printable } from './printable.ts'
import type { FilterLanguage } from '#ui/state/filter.svelte.ts'

/** The filter language of core, as the filter box needs it. @param known values seen in the session, for completion. */
export function filterLanguage(known: () => KnownValues): FilterLanguage {
  return {
    check(text) {
      if (text.trim() === '') return { kind: 'empty' }
      try {
        return { kind: 'valid', says: printable(describeFilter(parseFilter(text))) }
      } catch (error) {
        return { kind: 'invalid', message: printable(error instanceof Error ? error.message : String(error)) }
      }
    },
    complete(text, cursor) {
      const { from, to, suggestions } = completeFilter(text, cursor, known())
      return suggestions.slice(0, 12).map(({ text: label, about, kind }) => {
        const space = text.slice(to).startsWith(' ') || kind === 'value' ? '' : ' '
        const head = text.slice(0, from) + label + space
        return { label, hint: kind === 'value' ? '' : about, text: head + text.slice(to), cursor: head.length }
      })
    },
  }
}

/** Values worth completing, out of the rows at hand. */
export function knownValues(rows: Iterable<FlowRow>): KnownValues {
  const known: Record<string, Set<string>> = {}
  const add = (field: string, value: string | number | undefined) => {
    if (value !== undefined && value !== '') (known[field] ??= new Set()).add(String(value))
  }
  for (const row of rows) {
    add('process', row.process?.name)
    add('user', row.process?.user)
    add('name', row.name)
    add('server', row.server.address)
    add('client', row.client.address)
    add('port', row.server.port)
    add('method', row.http?.method)
    add('status', row.http?.status)
    add('sni', row.tls?.sni)
    add('version', row.tls?.version)
  }
  return Object.fromEntries(Object.entries(known).map(([field, values]) => [field, [...values]]))
}

/** `field == value`, quoted where it must be. */
export function condition(field: string, value: string | number): string {
  return `${field} == ${typeof value === 'number' ? value : quoteText(value)}`
}
