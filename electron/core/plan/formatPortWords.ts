import { formatPorts } from './formatPorts.ts'
import type { PortWords } from './parsePortWords.ts'
import type { PortRange } from './portRange.ts'

/** The inverse of `parsePortWords` for canonical ranges, to be read: `80, 443, 53/udp`. */
export function formatPortWords({ tcp, udp }: PortWords): string {
  const words = (ranges: readonly PortRange[], end: string): string[] => ranges.map((range) => formatPorts([range]) + end)
  return [...words(tcp, ''), ...words(udp, '/udp')].join(', ')
}
