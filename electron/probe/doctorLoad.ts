import { stat } from 'node:fs/promises'

import { filesFor, flowsWithin, readFileLimit, usualFlows } from '#core/contract/flowLimit.ts'
import type { DoctorRow } from '#core/contract/bridge.ts'
import { readText } from './doctorFacts.ts'
import type { Check } from './doctorFacts.ts'

// What a gate meets when it carries much. None of it keeps a gate from opening, so nothing here is worse than a warning.

const counted = (value: number): string => value.toLocaleString('en-US')
const numbersOf = (text: string | undefined): number[] => (text ?? '').split(/\s+/).filter((word) => word !== '').map(Number)

/** A relayed flow is two of conntrack's: the client's and the relay's. What has ended stays there for two minutes, which is not counted here. */
const entriesWanted = 2 * usualFlows

/** The count is this network namespace's, the limit the kernel's for each of them. No row where conntrack was never loaded: its limit is chosen when it is. */
export const checkConntrack: Check = async () => {
  const folder = '/proc/sys/net/netfilter'
  const [[most], [now]] = await Promise.all(['nf_conntrack_max', 'nf_conntrack_count'].map(async (name) => numbersOf(await readText(`${folder}/${name}`)))) as [number[], number[]]
  if (most === undefined || now === undefined) return []
  const row = { id: 'conntrack', title: 'Connection tracking' }
  // nf_conntrack_core.c: 0 is no limit.
  if (most === 0) return [{ ...row, verdict: 'ok', fact: `follows ${counted(now)} ${now === 1 ? 'connection' : 'connections'}, and any number it is given` }]
  const room = Math.max(0, most - now)
  const has = `follows ${counted(now)} ${now === 1 ? 'connection' : 'connections'} and has room for ${counted(room)} more`
  if (room >= entriesWanted) return [{ ...row, verdict: 'ok', fact: `${has}; a relayed one takes two` }]
  // Another namespace than the machine's own sees the limit and may not write it.
  const writable = await stat(`${folder}/nf_conntrack_max`).then(({ mode }) => (mode & 0o200) !== 0, () => false)
  const wanted = 2 ** Math.ceil(Math.log2(now + 2 * entriesWanted))
  const full = room === 0 ? 'is full' : `would be full with ${counted(Math.floor(room / 2))} flows, as each takes two`
  return [{
    ...row, verdict: 'warn', fact: `${has}: it ${full}, and then the kernel drops whatever is new, also what is not Sluice's`,
    mend: `sudo sysctl net.netfilter.nf_conntrack_max=${String(wanted)}${writable ? '' : ', in the machine\'s own network namespace'}`,
  }]
}

/** Ports that connections from an address of this computer's are dealt (ip-sysctl, ip_local_port_range): those without what is reserved. */
export const checkLocalPorts: Check = async () => {
  const [range, reserved] = await Promise.all(['ip_local_port_range', 'ip_local_reserved_ports'].map((name) => readText(`/proc/sys/net/ipv4/${name}`)))
  const [low, high] = numbersOf(range)
  if (low === undefined || high === undefined) return []
  const kept = (reserved ?? '').split(',').filter((part) => part !== '').map((part) => part.split('-').map(Number)).map(([from = 0, to = from]) => Math.max(0, Math.min(to, high) - Math.max(from, low) + 1)).reduce((sum, each) => sum + each, 0)
  const ports = Math.max(0, high - low + 1 - kept)
  const row = { id: 'local-ports', title: 'Ports for connections' }
  // To one server a local program and the relay share an address; a device's flows bear its own. What goes to a proxy, or is redirected, bears this computer's.
  const fact = `${counted(ports)} (${String(low)} to ${String(high)}): at once to one port of one server ${counted(Math.floor(ports / 2))} flows of this computer's programs or ${counted(ports)} of a device; ${counted(ports)} to a proxy`
  if (ports >= 2 * usualFlows) return [{ ...row, verdict: 'ok', fact }]
  return [{ ...row, verdict: 'warn', fact: `${fact}. Further ones fail`, mend: high - low + 1 >= 2 * usualFlows ? 'take ports out of net.ipv4.ip_local_reserved_ports' : 'sudo sysctl net.ipv4.ip_local_port_range="32768 60999"' }]
}

/** What is wanted of a limit of open files: that of a relay with its usual flows, and some for whoever starts it. */
const filesWanted = Math.ceil(filesFor(usualFlows) / 1000) * 1000

export const checkFileLimit: Check = async () => {
  const [limits = '', nrOpen = '', fileNr] = await Promise.all(['/proc/self/limits', '/proc/sys/fs/nr_open', '/proc/sys/fs/file-nr'].map(readText))
  const { hard, tooHigh } = readFileLimit(limits, nrOpen) ?? { hard: Infinity, tooHigh: false }
  const [used = 0, , all = Infinity] = numbersOf(fileNr)
  const flows = (room: number): string => `about ${counted(flowsWithin(room))} flows at once, further ones are refused`
  const may = `a process may open ${hard === Infinity ? 'any number' : counted(hard)}`
  const row = { id: 'files', title: 'Open files' }
  const rows: DoctorRow[] = []
  // Node raised its own soft limit, so that what programs get at first is not known here.
  if (tooHigh) rows.push({ ...row, verdict: 'warn', fact: `${may}, but the kernel (fs.nr_open) lets no limit above ${counted(Number(nrOpen))} be taken, so the relay stays with what programs get at first`, mend: `sudo sysctl fs.nr_open=${hard === Infinity ? '1048576' : String(hard)}` })
  else if (hard >= filesWanted) rows.push({ ...row, verdict: 'ok', fact: may })
  else rows.push({ ...row, verdict: 'warn', fact: `${may}: ${flows(hard)}`, mend: nrOpen !== '' && Number(nrOpen) < filesWanted ? `sudo sysctl fs.nr_open=65536, then raise the limit of open files to 65536` : `echo '* hard nofile 65536' | sudo tee /etc/security/limits.d/sluice.conf, then log in again` })
  const left = all - used
  if (left < filesWanted) rows.push({ id: 'all-files', title: 'Open files of all', verdict: 'warn', fact: `the whole computer may open ${counted(all)} and has opened ${counted(used)}: ${flows(left)}, and no program can open one then`, mend: `sudo sysctl fs.file-max=${String(2 ** Math.ceil(Math.log2(used + 2 * filesWanted)))}` })
  return rows
}

/** What the relay asks for a flow of UDP (native/net/udp_socket.cc) and what every Linux gives without being told to. */
const buffers = { wished: 4 << 20, usual: 212_992 } as const

/** The listeners' buffers are asked for as root and so are not bounded; those of a flow are. */
export const checkBuffers: Check = async () => {
  const [[receive], [send]] = await Promise.all(['rmem_max', 'wmem_max'].map(async (name) => numbersOf(await readText(`/proc/sys/net/core/${name}`)))) as [number[], number[]]
  if (receive === undefined || send === undefined) return []
  const row = { id: 'buffers', title: 'Buffers of UDP' }
  const least = Math.min(receive, send)
  if (least >= buffers.wished) return [{ ...row, verdict: 'ok', fact: 'a flow gets the 4 MiB that the relay wants for bursts' }]
  const kibibytes = (bytes: number): string => `${counted(Math.floor(bytes / 1024))} KiB`
  const mend = [['rmem_max', receive], ['wmem_max', send]].filter(([, value]) => Number(value) < buffers.wished).map(([name]) => `net.core.${String(name)}=${String(buffers.wished)}`).join(' ')
  const fact = `a flow holds ${kibibytes(receive)} that came and ${kibibytes(send)} that go, of the 4 MiB that the relay would take: what a burst has beyond that is lost, and counted`
  return least < buffers.usual
    ? [{ ...row, verdict: 'warn', fact: `${fact}. Linux usually gives ${kibibytes(buffers.usual)}`, mend: `sudo sysctl ${mend}` }]
    : [{ ...row, verdict: 'ok', fact: `${fact}; enough for most`, mend: `sudo sysctl ${mend}, where datagrams are lost` }]
}
