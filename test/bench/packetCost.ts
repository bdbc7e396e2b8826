import type { PlanWish } from '#core/plan/makePlan.ts'
import type { Backend } from '#core/plan/plan.ts'
import { labAddresses, type Lab } from '../lab/makeLab.ts'
import { openGate } from './openings.ts'

/** Chosen in each plan, and in none. */
export const takenPort = 7001
export const passedPort = 7003

/** Of one size and another: one port; a thousand of each transport and five hundred networks left alone. */
export const sizes = {
  one: { tcp: String(takenPort), udp: String(takenPort) },
  many: {
    tcp: [takenPort, ...Array.from({ length: 999 }, (_, index) => 10_000 + 3 * index)].join(','),
    udp: [takenPort, ...Array.from({ length: 999 }, (_, index) => 10_000 + 3 * index)].join(','),
    exclude: Array.from({ length: 500 }, (_, index) => `10.${String(index >> 4)}.${String((index & 15) * 16)}.0/${String(21 + (index % 8))}`),
  },
} as const satisfies Readonly<Record<string, PlanWish>>
export type Size = keyof typeof sizes

/** Words of the load generator, and what they say of the rules. */
export const passings = [
  { key: 'datagrams', verb: 'udp-64', lanes: 4, port: passedPort, title: 'datagrams passing by, 1/s' },
  { key: 'passing', verb: 'connect', lanes: 32, port: passedPort, title: 'new connections passing by, 1/s' },
  { key: 'taken', verb: 'connect', lanes: 32, port: takenPort, title: 'new connections taken, 1/s' },
] as const
export type PassingKey = (typeof passings)[number]['key']

/** Forwarded IPv4 through a gate of that size. */
export async function measurePassing(lab: Lab, load: string, backend: Backend, size: Size, folder: string, seconds: number): Promise<ReadonlyMap<PassingKey, number>> {
  const gate = await openGate(lab, { ...sizes[size], backend }, folder, 1)
  const found = new Map<PassingKey, number>()
  for (const { key, verb, lanes, port } of passings) {
    const { stdout } = await lab.exec('client', [load, verb, labAddresses.ipv4.server, String(port), String(seconds), String(lanes)])
    found.set(key, Number(stdout.trim().split(' ')[0]))
  }
  await gate.close()
  return found
}
