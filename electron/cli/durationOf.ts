import { Failure } from '#core/contract/failure.ts'
import { parseDuration } from '#core/plan/parseDuration.ts'

/** What `--for` was given, in milliseconds. Failure `usage`. */
export function durationOf(text: string): number {
  const value = parseDuration(text)
  if (value === undefined) throw new Failure('usage', `--for takes a duration such as 200ms, 30s, 5m, 2h or 1d, not "${text}"`)
  return value
}
