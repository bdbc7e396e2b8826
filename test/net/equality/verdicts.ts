import { mkdirSync, rmdirSync } from 'node:fs'

import ipaddr from 'ipaddr.js'

import type { FlowRow } from '#core/flow/flow.ts'
import type { InterceptionPlan, PortRange, Scope } from '#core/plan/plan.ts'
import { listCgroups } from '#probe/cgroups.ts'
import { labAddresses, makeLab } from '#test/lab/makeLab.ts'
import type { Lab, Place } from '#test/lab/makeLab.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'

/** Each one's own ports begin here: none that somebody listens on, which no device could keep, nor any the relay deals to flows. */
const firstPorts = [2000, 10_000, 15_000, 19_400, 23_800, 28_200] as const
/** A prime: whoever comes round again asks somebody else from each port, as conntrack remembers whom they asked. */
const portsEach = 4397
const prober = new URL('../../lab/prober.mjs', import.meta.url).pathname
export const ports = [8080, 8081, 9000] as const
/** Nobody listens there. */
export const closedPort = 8082
export const second = {
  client: { ipv4: '198.51.100.3', ipv6: '2001:db8:1::3' },
  server: { ipv4: '203.0.113.9', ipv6: '2001:db8:2::9' },
} as const

interface Who {
  readonly name: string
  readonly place: Place
  readonly uid: number
  readonly gid: number
  readonly cgroup?: string
  readonly source?: typeof second.client
}
export interface Probe {
  readonly who: Who
  readonly family: 'ipv4' | 'ipv6'
  readonly transport: 'tcp' | 'udp'
  readonly port: number
  readonly source: string
  readonly server: string
}
/** `relayed` or `direct` for each probe, by its name; else whom the server took for the client, or what went wrong. */
export type Verdicts = Readonly<Record<string, string>>

/** What a proxy's flows look like to a server, by the proxy's port: where it has no address of its own, programs here look the same by it as without. */
export type ProxyLooks = Readonly<Record<number, (probe: Probe) => string>>

export interface VerdictLab {
  readonly lab: Lab
  readonly cgroup: string
  readonly cgroupPrefix: string
  /** Asks everything at once, in the laboratory as it is. `silence`: milliseconds after which who hears nothing gives up, by the probe's name; undefined where it is to hear something. */
  judge(silence?: (name: string) => number | undefined): Promise<Verdicts>
  /** What a plan means, said anew without the compiler: the table of truth for every backend. */
  meaning(plan: InterceptionPlan, proxies?: ProxyLooks): Verdicts
  /** Both ends of whatever the last judging asked, as `endsOf` writes them, and whether a plan takes it. */
  asked(plan: InterceptionPlan): readonly { readonly ends: string; readonly taken: boolean }[]
  remove(): Promise<void>
}

/**
 * A laboratory with everybody a plan can tell apart: two clients, and in the router a program of root's, of another user, of another group and in a cgroup of its
 * own; two servers, and services of the router itself, three ports, both families, TCP and UDP; where `closed`, also a port where nobody listens.
 */
export async function makeVerdictLab({ udp, closed = false }: { readonly udp: boolean; readonly closed?: boolean }): Promise<VerdictLab> {
  const lab = await makeLab()
  const cgroupPrefix = (await listCgroups())?.prefix ?? ''
  const cgroup = `sluicelab-${String(process.pid)}`
  const cgroupPath = `/sys/fs/cgroup/${cgroupPrefix === '' ? '' : `${cgroupPrefix}/`}${cgroup}`
  mkdirSync(`${cgroupPath}/inner`, { recursive: true })
  const whos: Who[] = [
    { name: 'client', place: 'client', uid: 0, gid: 0 },
    { name: 'second client', place: 'client', uid: 0, gid: 0, source: second.client },
    { name: 'root', place: 'router', uid: 0, gid: 0 },
    { name: 'user 4711', place: 'router', uid: 4711, gid: 4711 },
    { name: 'group 4720', place: 'router', uid: 4712, gid: 4720 },
    { name: 'in the cgroup', place: 'router', uid: 0, gid: 0, cgroup },
  ]
  const probers = new Map<Who, LabProcess>()
  try {
    await lab.exec('client', ['sh', '-ec', `ip addr add ${second.client.ipv4}/24 dev up0; ip addr add ${second.client.ipv6}/64 dev up0 nodad`])
    await lab.exec('server', ['sh', '-ec', `ip addr add ${second.server.ipv4}/24 dev up0; ip addr add ${second.server.ipv6}/64 dev up0 nodad`])
    const servers = ports.map((port) => lab.peer('server', 'serve', 'far', String(port)))
    if (udp) for (const port of ports) for (const host of [labAddresses.ipv4.server, labAddresses.ipv6.server, ...Object.values(second.server)]) servers.push(lab.peer('server', 'serve', 'far', String(port), '--udp', '--host', host))
    for (const port of ports) servers.push(lab.peer('router', 'serve', 'near', String(port)))
    // One service of UDP has its port on every address.
    if (udp) for (const [port, hosts] of [[ports[0], ownServices], [ports[1], ownServices], [ports[2], ['::']]] as const) for (const host of hosts) servers.push(lab.peer('router', 'serve', 'near', String(port), '--udp', '--host', host))
    await Promise.all(servers.map((server) => server.event(({ event }) => event === 'listening', 30_000)))
    for (const [index, who] of whos.entries()) {
      const enter = who.cgroup !== undefined
        ? ['sh', '-c', 'echo $$ > "$0"/inner/cgroup.procs && exec "$@"', cgroupPath]
        : who.uid === 0 ? [] : ['setpriv', `--reuid=${String(who.uid)}`, `--regid=${String(who.gid)}`, '--clear-groups', '--']
      const started = lab.spawn(who.place, [...enter, process.execPath, prober, String(firstPorts[index]), String(portsEach)])
      probers.set(who, started)
    }
    await Promise.all([...probers.values()].map((each) => each.event(({ event }) => event === 'ready', 30_000)))
  } catch (error) {
    await lab.remove()
    throw error
  }

  const probes: Probe[] = whos.flatMap((who) =>
    (['ipv4', 'ipv6'] as const).flatMap((family) =>
      [labAddresses[family].server, second.server[family], ...(who.place === 'client' ? [labAddresses[family].routerToClient] : [])].flatMap((server) =>
        [...ports, ...(closed && server !== second.server[family] ? [closedPort] : [])].flatMap((port) =>
          (udp && port !== closedPort ? (['tcp', 'udp'] as const) : (['tcp'] as const)).map((transport): Probe => ({
            who, family, transport, port, server,
            source: who.source?.[family] ?? (who.place === 'client' ? labAddresses[family].client : labAddresses[family].routerToServer),
          })),
        ),
      ),
    ),
  )
  const nameOf = ({ who, transport, server, port }: Probe): string => `${who.name} ${transport} ${server} ${String(port)}`

  let rounds = 0
  const localPorts = new Map<Probe, number>()
  return {
    lab,
    cgroup,
    cgroupPrefix,
    async judge(silence) {
      const round = ++rounds
      const asked = probes.map(async (probe, index): Promise<[string, string]> => {
        const process = probers.get(probe.who) as LabProcess
        const id = `${String(round)}.${String(index)}`
        process.write(JSON.stringify({ id, host: probe.server, port: probe.port, ...(probe.transport === 'udp' ? { udp: true } : {}), from: probe.source, timeout: silence?.(nameOf(probe)) }))
        // Read once it is found: whoever asks looks through all that was answered before.
        const answer = JSON.parse(await process.line((line) => line.startsWith(`{"id":"${id}"`))) as Record<string, unknown>
        localPorts.set(probe, Number(answer['localPort']))
        const seen = answer['ok'] !== true ? String(answer['error'])
          : answer['seenAddress'] !== probe.source ? `seen as ${String(answer['seenAddress'])}`
            : answer['seenPort'] === answer['localPort'] ? 'direct' : 'relayed'
        return [nameOf(probe), seen]
      })
      return Object.fromEntries(await Promise.all(asked))
    },
    meaning: (plan, proxies = {}) => Object.fromEntries(probes.map((probe) => [nameOf(probe), meaningOf(plan, probe, proxies)])),
    asked: (plan) =>
      [...localPorts].map(([probe, port]) => ({ ends: endsOf({ transport: probe.transport, client: { address: probe.source, port }, server: { address: probe.server, port: probe.port } }), taken: takes(plan, probe) })),
    async remove() {
      await lab.remove()
      // The kernel lets go of a cgroup when its last process has been collected.
      for (const path of [`${cgroupPath}/inner`, cgroupPath]) {
        for (let tries = 0; tries < 50; tries++) {
          try {
            rmdirSync(path)
            break
          } catch {
            await new Promise((resolve) => setTimeout(resolve, 20))
          }
        }
      }
    },
  }
}

const ownServices: readonly string[] = [labAddresses.ipv4.routerToClient, labAddresses.ipv6.routerToClient]

function scopeOf({ place }: Who, server: string): Scope {
  if (place === 'router') return 'local'
  return ownServices.includes(server) ? 'incoming' : 'forwarded'
}

export function endsOf({ transport, client, server }: Pick<FlowRow, 'transport' | 'client' | 'server'>): string {
  return `${transport} ${client.address} ${String(client.port)} ${server.address} ${String(server.port)}`
}

function meaningOf(plan: InterceptionPlan, probe: Probe, proxies: ProxyLooks): string {
  const { transport, port, who, server } = probe
  const among = (ranges: readonly PortRange[]): boolean => ranges.some(({ from, to }) => port >= from && port <= to)
  const taken = takes(plan, probe)
  const scope = scopeOf(who, server)
  if (transport === 'udp') return !taken ? 'direct' : among(plan.refuse) ? 'ECONNREFUSED' : 'relayed'
  // What comes in for a service never waits.
  const waits = plan.hold && scope !== 'incoming'
  if (port === closedPort) return taken && !waits ? 'ECONNRESET' : 'ECONNREFUSED'
  if (!taken) return 'direct'
  const via = plan.handOver.find(({ ports: sent }) => among(sent))?.to
  // A proxy in TPROXY mode would not hear a service's answers.
  if (via !== undefined && 'port' in via && !(via.kind === 'tproxy' && scope === 'incoming')) return proxies[via.port]?.(probe) ?? 'relayed'
  // A kept port looks as if nobody stood between.
  return plan.keepPort && scope === 'forwarded' ? 'direct' : 'relayed'
}

function takes(plan: InterceptionPlan, { who, transport, port, source, server }: Probe): boolean {
  const inRanges = (ranges: readonly PortRange[]): boolean => ranges.some(({ from, to }) => port >= from && port <= to)
  const chosen = <Item>(list: readonly Item[], one: (item: Item) => boolean): boolean => list.length === 0 || list.some(one)
  const local = scopeOf(who, server) === 'local'
  return inRanges(plan[transport])
    && plan.scope.includes(scopeOf(who, server))
    && !plan.exclude.some((network) => within(server, network))
    && !plan.excludeSources.some((network) => within(source, network))
    && chosen(plan.servers, (network) => within(server, network))
    && chosen(plan.sources, (network) => within(source, network))
    && (local
      ? chosen(plan.users, (user) => user === who.uid) && chosen(plan.groups, (group) => group === who.gid) && chosen(plan.cgroups, (path) => path === who.cgroup)
      : chosen(plan.interfaces, (name) => name === 'cl0' || name === 'cl*'))
}

/** Each read once: plans of thousands of networks are asked of each of the probes. */
const addresses = new Map<string, ipaddr.IPv4 | ipaddr.IPv6>()
const networks = new Map<string, [ipaddr.IPv4 | ipaddr.IPv6, number]>()

function within(address: string, network: string): boolean {
  const [base, length] = networks.get(network) ?? ipaddr.parseCIDR(network)
  networks.set(network, [base, length])
  const one = addresses.get(address) ?? ipaddr.parse(address)
  addresses.set(address, one)
  return one.kind() === base.kind() && one.match(base, length)
}
