import { formatPorts } from './formatPorts.ts'
import type { ProxyTarget } from './handOver.ts'
import type { InterceptionPlan, PortRange } from './plan.ts'

/** The plan in plain sentences, for a person who decides whether to open the gate. `linkLocal`: link-local addresses of IPv6 can be reached through the relay. */
export function describePlan(plan: InterceptionPlan, linkLocal = plan.scope.includes('local')): string[] {
  const chosen = [...(plan.tcp.length === 0 ? [] : [namedPorts('TCP', plan.tcp)]), ...(plan.udp.length === 0 ? [] : [namedPorts('UDP', plan.udp)])]
  const sentences = [`${chosen.join(' and ')} will be intercepted.`]
  if (plan.refuse.length > 0) {
    sentences.push(`What comes for ${namedPorts('UDP', plan.refuse)} is refused (“port unreachable”), so that programs that can, fall back to TCP.`)
  }
  for (const { ports, to } of plan.handOver) sentences.push(`What is meant for ${namedPorts('TCP', ports)} goes to ${describeTarget(to)} instead, which reaches the servers; what that sends on itself goes straight.`)
  if (plan.scope.includes('local')) sentences.push(describeLocal(plan))
  else sentences.push('Programs on this computer are left alone.')
  if (plan.scope.includes('forwarded')) {
    sentences.push(
      plan.interfaces.length === 0
        ? 'Devices, containers and virtual machines routed through this computer are included, whichever interface they come in by.'
        : `Devices, containers and virtual machines are included when they come in by ${list(plan.interfaces, 'or')}.`,
    )
  } else sentences.push('Devices, containers and virtual machines routed through this computer are left alone.')
  sentences.push(...describeIncoming(plan))
  if (plan.keepPort && plan.scope.includes('forwarded')) sentences.push('Servers see the devices’ own ports, too, where those are free on this computer (TCP).')
  if (plan.sources.length > 0) sentences.push(`Only connections from addresses in ${list(plan.sources, 'or')} are included.`)
  if (plan.excludeSources.length > 0) sentences.push(`Connections from addresses in ${list(plan.excludeSources, 'or')} are left alone.`)
  if (plan.servers.length > 0) sentences.push(`Only connections to servers in ${list(plan.servers, 'or')} are included.`)
  if (plan.exclude.length > 0) sentences.push(`Connections to servers in ${list(plan.exclude, 'or')} are left alone.`)
  if (plan.udp.length > 0) sentences.push(`A UDP flow is over after ${seconds(plan.udpIdle.dns)} of silence (DNS), ${seconds(plan.udpIdle.quic)} (QUIC) or ${seconds(plan.udpIdle.other)} (others).`)
  sentences.push(
    linkLocal
      ? 'For programs here IPv6’s link-local addresses (fe80::/10) are like any other; IPv4’s (169.254.0.0/16) and multicast are left alone.'
      : 'Link-local addresses (169.254.0.0/16, fe80::/10) and multicast are left alone: they mean nothing without their interface.',
  )
  if (plan.scope.includes('local')) sentences.push('What a program binds to one interface (VPN clients do, and curl --interface NAME) goes by as if the gate were closed.')
  sentences.push('Connections that exist already are not touched; closing the gate cuts none.')
  return sentences
}

/** "TCP ports 80, 443". */
export function namedPorts(transport: 'TCP' | 'UDP', ranges: readonly PortRange[]): string {
  const one = ranges.length === 1 && ranges[0]?.from === ranges[0]?.to
  return `${transport} ${one ? 'port' : 'ports'} ${formatPorts(ranges).replaceAll(',', ', ')}`
}

function describeTarget(to: ProxyTarget): string {
  if (to.kind === 'tproxy') return `the proxy in TPROXY mode at port ${to.port} of this computer`
  const kind = to.kind === 'socks5' ? 'the SOCKS server' : 'the proxy (told by PROXY protocol)'
  if ('path' in to) return `${kind} at ${to.path}`
  return `${kind} at ${to.address.includes(':') ? `[${to.address}]` : to.address}:${to.port}`
}

function seconds(count: number): string {
  return count === 1 ? '1 second' : `${count} seconds`
}

function describeIncoming({ scope, interfaces, tcp }: InterceptionPlan): string[] {
  if (!scope.includes('incoming')) return ['What others say to services of this computer itself is left alone.']
  return [
    `What others say to services of this computer itself is included${interfaces.length === 0 ? ', whichever interface it comes in by' : ` when it comes in by ${list(interfaces, 'or')}`}. Services see their clients’ addresses (where somebody masquerades those, as Docker does for containers, this computer’s), but other ports; one that is bound to a single interface cannot be reached meanwhile.`,
    ...(tcp.length === 0 ? [] : ['There a connection is accepted before its service has answered, so a closed port looks open for a moment.']),
  ]
}

function describeLocal({ users, groups, cgroups }: InterceptionPlan): string {
  const as = [...(users.length === 0 ? [] : [`as user ${list(users.map(String), 'or')}`]), ...(groups.length === 0 ? [] : [`in group ${list(groups.map(String), 'or')}`])]
  const who = as.length === 0 ? 'Programs on this computer' : `Programs on this computer that run ${as.join(' and ')}`
  return cgroups.length === 0 ? `${who} are included.` : `${who} are included when they run in the cgroup ${list(cgroups, 'or')}.`
}

/** "a", "a or b", "a, b or c"; long lists are cut so that the sentence stays one. */
function list(words: readonly string[], joint: string): string {
  const shown = words.length > 8 ? [...words.slice(0, 7), `${words.length - 7} more`] : [...words]
  const last = shown.pop() ?? ''
  return shown.length === 0 ? last : `${shown.join(', ')} ${joint} ${last}`
}
