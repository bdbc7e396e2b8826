import type { PlanWish } from '#core/plan/makePlan.ts'
import type { PortRange } from '#core/plan/plan.ts'
import { withoutNetworks } from '#core/plan/withoutNetworks.ts'

/** As much of everything as a plan may have (`planShape`). `named` of each list is what it is about; the rest fills it, of each family half. */
export interface Named {
  readonly exclude?: readonly string[]
  readonly excludeSources?: readonly string[]
  readonly sources?: readonly string[]
  readonly servers?: readonly string[]
  readonly users?: readonly number[]
  readonly groups?: readonly number[]
  readonly cgroups?: readonly string[]
  readonly interfaces?: readonly string[]
}

/** Every sixteenth port of TCP and the one after it (8080 and 8081, not 9000), and of UDP the eighth of these sixteen and the next (9000, not 8080). */
export function longestPlan({ exclude = [], excludeSources = [], sources = [], servers = [], users = [], groups = [], cgroups = [], interfaces = [] }: Named): PlanWish {
  const every16 = (from: number, length: number): PortRange[] => Array.from({ length: 4096 }, (_, index) => ({ from: Math.max(1, 16 * index + from), to: Math.max(1, 16 * index + from + length - 1) }))
  const text = (ranges: readonly PortRange[]): string => ranges.map(({ from, to }) => `${String(from)}-${String(to)}`).join(',')
  const handed = every16(0, 1).filter(({ from }) => from > 1 && from !== 8080)
  return {
    tcp: text(every16(0, 2)),
    udp: text(every16(8, 2)),
    // These ports do not come near those that are asked.
    refuse: text(every16(9, 1)),
    send: Array.from({ length: 64 }, (_, index) => `${text(handed.slice(63 * index, 63 * index + 63))}=tproxy:${String(30_001 + 16 * index)}`),
    scope: ['local', 'forwarded'],
    exclude: filled(exclude, 0),
    excludeSources: filled(excludeSources, 32),
    sources: filled(sources, 64),
    servers: filled(servers, 96),
    users: filledIds(users, 6000),
    groups: filledIds(groups, 7000),
    cgroups,
    interfaces: [...interfaces, ...Array.from({ length: 64 - interfaces.length }, (_, index) => `far${String(index)}x*`)],
  }
}

/** With some that are as uneven as can be: all addresses of a network but one. */
function filled(named: readonly string[], offset: number): string[] {
  const uneven = [...withoutNetworks(['172.16.0.0/12'], ['172.20.3.5']), ...withoutNetworks(['2001:db8:f000::/36'], ['2001:db8:f123::5'])]
  const rest = 4096 - named.length - uneven.length
  return [
    ...named,
    ...uneven,
    ...Array.from({ length: rest }, (_, index) => {
      const [high, low] = [offset + (index >> 9), (index >> 1) & 255]
      return index % 2 === 0 ? `10.${String(high)}.${String(low)}.0/${String(25 + (index % 3))}` : `2001:db8:${(0x8000 + high).toString(16)}:${low.toString(16)}::/${String(65 + (index % 5))}`
    }),
  ]
}

function filledIds(named: readonly number[], from: number): number[] {
  return named.length === 0 ? [] : [...named, ...Array.from({ length: 256 - named.length }, (_, index) => from + 2 * index)]
}
