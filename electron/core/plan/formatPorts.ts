import type { PortRange } from './plan.ts'

/** Ranges as a person writes them: `80,443,8000-8100`. The inverse of `parsePorts` for canonical ranges. */
export function formatPorts(ranges: readonly PortRange[]): string {
  return ranges.map(({ from, to }) => (from === to ? String(from) : `${from}-${to}`)).join(',')
}
