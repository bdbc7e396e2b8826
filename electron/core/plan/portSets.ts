import { mergePorts } from './mergePorts.ts'
import type { PortRange } from './portRange.ts'

/** The ports of `ranges` that are not in `cut`, canonical. */
export function withoutPorts(ranges: readonly PortRange[], cut: readonly PortRange[]): PortRange[] {
  const holes = mergePorts(cut)
  return mergePorts(ranges).flatMap((range) => {
    const left: PortRange[] = []
    let { from } = range
    for (const hole of holes) {
      if (hole.to < from || hole.from > range.to) continue
      if (hole.from > from) left.push({ from, to: hole.from - 1 })
      from = hole.to + 1
    }
    return from > range.to ? left : [...left, { from, to: range.to }]
  })
}

/** The ports that are in both, canonical. */
export function commonPorts(a: readonly PortRange[], b: readonly PortRange[]): PortRange[] {
  return withoutPorts(a, withoutPorts(a, b))
}
