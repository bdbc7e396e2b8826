import { fieldOf } from '../filter/fields.ts'
import { parseValue } from '../filter/parseValue.ts'

/** A number of bytes as a person writes it (500M, 2GiB, "4 GiB"), whole; undefined when it is none, or more than a file can have. */
export function parseSize(text: string): number | undefined {
  const value = parseValue(fieldOf('bytes'), text.trim().replace(/(?<=\d)\s+(?=[A-Za-z])/, ''))
  if (value?.type !== 'number' || value.number < 0) return undefined
  const bytes = Math.floor(value.number)
  return Number.isSafeInteger(bytes) ? bytes : undefined
}
