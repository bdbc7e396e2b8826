const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const longest = 3650 * 86_400_000

/** "30s", "1.5h", "200ms" as milliseconds, at most ten years; a bare number is seconds. Undefined for anything else. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)?$/.exec(text.trim())
  const value = match === null ? 0 : Number(match[1]) * (units[match[2] ?? 's'] as number)
  return value <= 0 || value > longest ? undefined : value
}
