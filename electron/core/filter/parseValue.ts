import { parseNetwork } from './address.ts'
import type { Field } from './fields.ts'
import type { FilterValue } from './filterNode.ts'

const sizeUnits: Readonly<Record<string, number>> = { '': 1, b: 1, k: 1e3, kb: 1e3, m: 1e6, mb: 1e6, g: 1e9, gb: 1e9, t: 1e12, tb: 1e12, ki: 2 ** 10, kib: 2 ** 10, mi: 2 ** 20, mib: 2 ** 20, gi: 2 ** 30, gib: 2 ** 30 }
const durationUnits: Readonly<Record<string, number>> = { '': 1, us: 1e-6, ms: 1e-3, s: 1, m: 60, min: 60, h: 3600, d: 86_400 }

/** What a value of this kind looks like, for a sentence. */
export const kindExamples: Readonly<Record<Field['kind'], string>> = {
  text: 'text, in quotes if it has spaces',
  number: 'a number',
  size: 'a number of bytes (such as 500, 10k or 4MiB)',
  duration: 'a duration (such as 200ms, 1.5s or 2m)',
  time: 'a date (such as 2026-11-25T05:00:00Z) or seconds since 1970',
  address: 'an address or a network (such as 198.51.100.7 or 2001:db8::/32)',
  flag: 'true or false',
}

function scaled(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^(-?(?:\d+(?:\.\d+)?|\.\d+))([a-z]*)$/i.exec(text)
  if (match === null) return undefined
  const unit = units[(match[2] ?? '').toLowerCase()]
  return unit === undefined ? undefined : Number(match[1]) * unit
}

/** One value as this field's kind has it, or undefined. */
export function parseValue(field: Field, text: string): FilterValue | undefined {
  const number = (value: number | undefined): FilterValue | undefined =>
    value === undefined || !Number.isFinite(value) ? undefined : { type: 'number', number: value }
  switch (field.kind) {
    case 'text': return { type: 'text', text }
    case 'number': {
      if (/^0x[0-9a-f]{1,12}$/i.test(text)) return number(Number(text))
      return number(scaled(text, { '': 1 }))
    }
    case 'size': return number(scaled(text, sizeUnits))
    case 'duration': return number(scaled(text, durationUnits))
    case 'flag': {
      const word = text.toLowerCase()
      if (['true', 'yes', '1'].includes(word)) return { type: 'number', number: 1 }
      return ['false', 'no', '0'].includes(word) ? { type: 'number', number: 0 } : undefined
    }
    case 'time': {
      const seconds = scaled(text, { '': 1 })
      if (seconds !== undefined) return number(seconds)
      if (!/^\d{4}-\d\d-\d\d/.test(text)) return undefined
      const parsed = Date.parse(text)
      return Number.isNaN(parsed) ? undefined : number(parsed / 1000)
    }
    case 'address': {
      const network = parseNetwork(text)
      return network === undefined ? undefined : { type: 'network', ...network, text }
    }
  }
}
