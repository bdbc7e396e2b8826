import { Failure } from '#core/contract/failure.ts'

const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** "30s", "1.5h", "200ms" as milliseconds; a bare number is seconds. Failure `usage`. */
export function parseDuration(text: string): number {
  const match = /^(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)?$/.exec(text.trim())
  const value = match === null ? 0 : Number(match[1]) * (units[match[2] ?? 's'] as number)
  if (match === null || value <= 0 || value > 3650 * 86_400_000) throw new Failure('usage', `--for takes a duration such as 200ms, 30s, 5m, 2h or 1d, not "${text}"`)
  return value
}

/** A timer's longest: 2^31 - 1 milliseconds, almost 25 days. Beyond it `setTimeout` fires at once. */
const longest = 2 ** 31 - 1

/** As setTimeout, for any length. The result ends it. */
export function startTimer(milliseconds: number, done: () => void): () => void {
  // Monotonic: a clock that is set must not end a recording.
  const end = performance.now() + milliseconds
  let timer: NodeJS.Timeout
  const arm = (): void => {
    const left = end - performance.now()
    timer = setTimeout(left > longest ? arm : done, Math.max(0, Math.min(left, longest)))
  }
  arm()
  return () => clearTimeout(timer)
}
