import { readFile } from 'node:fs/promises'

import { formatAddress } from '#core/capture/addresses.ts'
import type { PortActivity } from '#core/contract/bridge.ts'
import { programsOf } from './portPrograms.ts'
import { serviceName } from './portServices.ts'

/** One line of /proc/net/{tcp,tcp6,udp,udp6}. */
export interface SocketLine {
  readonly transport: 'tcp' | 'udp'
  readonly localAddress: string
  readonly localPort: number
  readonly remoteAddress: string
  readonly remotePort: number
  /** Kernel's socket state (include/net/tcp_states.h): 1 established, 7 closed (an unconnected UDP socket), 10 listening. */
  readonly state: number
  readonly inode: string
}

const established = 1
const unconnected = 7
const listening = 10
/** More sockets than this are counted no further, more addresses not named. */
const lineLimit = 200_000
const addressLimit = 8
const rowLimit = 2000

/** "0100007F:1F90" (words in this machine's byte order, which is little-endian wherever Sluice runs) as address and port. */
function parseEndpoint(text: string): { address: string; port: number } | undefined {
  const [hex = '', port = ''] = text.split(':')
  if (!/^[0-9A-F]{4}$/i.test(port) || (hex.length !== 8 && hex.length !== 32) || !/^[0-9A-F]+$/i.test(hex)) return undefined
  const bytes = new Uint8Array(hex.length / 2)
  for (let word = 0; word < bytes.length; word += 4) {
    for (let i = 0; i < 4; i++) bytes[word + i] = Number.parseInt(hex.slice((word + 3 - i) * 2, (word + 3 - i) * 2 + 2), 16)
  }
  const mapped = bytes.length === 16 && bytes[10] === 255 && bytes[11] === 255 && bytes.subarray(0, 10).every((byte) => byte === 0)
  return { address: formatAddress(mapped ? bytes.subarray(12) : bytes), port: Number.parseInt(port, 16) }
}

/** Lines of one of the tables; what does not fit is passed over. */
export function parseSockets(text: string, transport: 'tcp' | 'udp'): SocketLine[] {
  const sockets: SocketLine[] = []
  for (const line of text.split('\n').slice(1, lineLimit)) {
    const words = line.trim().split(/\s+/)
    const [local, remote] = [parseEndpoint(words[1] ?? ''), parseEndpoint(words[2] ?? '')]
    if (local === undefined || remote === undefined) continue
    sockets.push({
      transport, localAddress: local.address, localPort: local.port, remoteAddress: remote.address, remotePort: remote.port,
      state: Number.parseInt(words[3] ?? '', 16), inode: words[9] ?? '0',
    })
  }
  return sockets
}

interface Gathered {
  readonly port: number
  readonly transport: 'tcp' | 'udp'
  readonly kind: 'listening' | 'talking'
  count: number
  readonly addresses: Set<string>
  readonly inodes: string[]
}

/** Groups sockets by the server's port: the one listened on here, else the one spoken to. */
export function groupPorts(sockets: readonly SocketLine[]): Gathered[] {
  const rows = new Map<string, Gathered>()
  const add = (kind: 'listening' | 'talking', transport: 'tcp' | 'udp', port: number, address: string, inode: string): void => {
    const key = `${kind} ${transport} ${port}`
    let row = rows.get(key)
    if (row === undefined) {
      if (rows.size >= rowLimit) return
      row = { port, transport, kind, count: 0, addresses: new Set(), inodes: [] }
      rows.set(key, row)
    }
    row.count++
    if (row.addresses.size < addressLimit) row.addresses.add(address)
    if (row.inodes.length < addressLimit && inode !== '0') row.inodes.push(inode)
  }
  const listeners = new Set<string>()
  for (const socket of sockets) {
    if (socket.state !== (socket.transport === 'tcp' ? listening : unconnected) || socket.localPort === 0) continue
    listeners.add(`${socket.transport} ${socket.localPort}`)
    add('listening', socket.transport, socket.localPort, socket.localAddress, socket.inode)
  }
  const speaking = sockets.filter(({ state, remotePort }) => state === established && remotePort !== 0)
  const ends = (at: string, port: number, to: string, toPort: number): string => `${at} ${port} ${to} ${toPort}`
  const here = new Set(speaking.map((one) => ends(one.localAddress, one.localPort, one.remoteAddress, one.remotePort)))
  for (const socket of speaking) {
    const served = listeners.has(`${socket.transport} ${socket.localPort}`)
    // A conversation with both its ends on this machine is one, and its client's program is the one that talks.
    if (served && here.has(ends(socket.remoteAddress, socket.remotePort, socket.localAddress, socket.localPort))) continue
    add('talking', socket.transport, served ? socket.localPort : socket.remotePort, served ? socket.localAddress : socket.remoteAddress, socket.inode)
  }
  return [...rows.values()]
}

/**
 * Ports somebody on this machine listens on or talks to right now, with the program where it may be seen (one's own processes; all of them
 * as root). In this process's network namespace. Bounded in time and memory; never rejects.
 */
export async function listPorts(): Promise<PortActivity[]> {
  const tables = [['tcp', 'tcp'], ['tcp6', 'tcp'], ['udp', 'udp'], ['udp6', 'udp']] as const
  const sockets = (
    await Promise.all(tables.map(async ([file, transport]) => parseSockets(await readFile(`/proc/net/${file}`, 'latin1').catch(() => ''), transport)))
  ).flat()
  const rows = groupPorts(sockets)
  const programs = await programsOf(rows.flatMap((row) => row.inodes))
  const activities = await Promise.all(rows.map(async (row): Promise<PortActivity> => {
    const program = row.inodes.map((inode) => programs.get(inode)).find((name) => name !== undefined)
    const service = await serviceName(row.port, row.transport)
    return {
      port: row.port, transport: row.transport, kind: row.kind, count: row.count, addresses: [...row.addresses],
      ...(program === undefined ? {} : { program }), ...(service === undefined ? {} : { service }),
    }
  }))
  return activities.sort((a, b) => a.port - b.port || a.transport.localeCompare(b.transport) || a.kind.localeCompare(b.kind))
}
