import type { Fact } from './facts.ts'
import { blockTypes, byteOrderMagic, factMagic, factPen, linkTypeRaw, packetFlags, processPen } from './pcapngFormat.ts'
import { encodeUtf8 } from './utf8.ts'
import type { Direction, ProcessInfo } from '../flow/flow.ts'

/** pcapng blocks, little-endian, as the relay writes them. Each function returns one whole block. */
interface Option {
  readonly code: number
  readonly value: Uint8Array
}

const padded = (length: number): number => (length + 3) & ~3

function optionsLength(options: readonly Option[]): number {
  if (options.length === 0) return 0
  return options.reduce((sum, option) => sum + 4 + padded(option.value.length), 4)
}

function block(type: number, fixed: Uint8Array, options: readonly Option[]): Uint8Array {
  const total = 12 + padded(fixed.length) + optionsLength(options)
  const bytes = new Uint8Array(total)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, type, true)
  view.setUint32(4, total, true)
  bytes.set(fixed, 8)
  let at = 8 + padded(fixed.length)
  for (const option of options) {
    view.setUint16(at, option.code, true)
    view.setUint16(at + 2, option.value.length, true)
    bytes.set(option.value, at + 4)
    at += 4 + padded(option.value.length)
  }
  view.setUint32(total - 4, total, true) // opt_endofopt is four zero bytes and already there
  return bytes
}

function number32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value, true)
  return bytes
}

/** Section Header Block: version 1.0, length of the section unknown (-1), as a file that grows must say. */
export function encodeSectionHeader(userApplication: string, os: string): Uint8Array {
  const fixed = new Uint8Array(16)
  const view = new DataView(fixed.buffer)
  view.setUint32(0, byteOrderMagic, true)
  view.setUint16(4, 1, true)
  view.setBigInt64(8, -1n, true)
  return block(blockTypes.sectionHeader, fixed, [
    { code: 3, value: encodeUtf8(os) },
    { code: 4, value: encodeUtf8(userApplication) },
  ])
}

/** Interface Description Block: raw IP, "sluice", nanoseconds, no snap length. */
export function encodeInterface(): Uint8Array {
  const fixed = new Uint8Array(8)
  new DataView(fixed.buffer).setUint16(0, linkTypeRaw, true)
  return block(blockTypes.interfaceDescription, fixed, [
    { code: 2, value: encodeUtf8('sluice') },
    { code: 9, value: Uint8Array.of(9) },
  ])
}

/** Enhanced Packet Block of an IP packet; `time` in nanoseconds since the epoch. */
export function encodePacketBlock(packet: Uint8Array, time: bigint, direction: Direction): Uint8Array {
  const fixed = new Uint8Array(20 + packet.length)
  const view = new DataView(fixed.buffer)
  view.setUint32(4, Number((time >> 32n) & 0xffff_ffffn), true)
  view.setUint32(8, Number(time & 0xffff_ffffn), true)
  view.setUint32(12, packet.length, true)
  view.setUint32(16, packet.length, true)
  fixed.set(packet, 20)
  return block(blockTypes.enhancedPacket, fixed, [{ code: 2, value: number32(direction === 'up' ? packetFlags.outbound : packetFlags.inbound) }])
}

/** Custom Block, copyable; `data` is padded with NULs, as pcapng keeps no length of it. */
export function encodeCustomBlock(pen: number, data: Uint8Array): Uint8Array {
  const fixed = new Uint8Array(4 + data.length)
  fixed.set(number32(pen))
  fixed.set(data, 4)
  return block(blockTypes.custom, fixed, [])
}

export function encodeFact(fact: Fact): Uint8Array {
  const json = encodeUtf8(JSON.stringify(fact))
  const data = new Uint8Array(factMagic.length + json.length)
  data.set(factMagic)
  data.set(json, factMagic.length)
  return encodeCustomBlock(factPen, data)
}

/** The block Wireshark 5.1 reads as a process: entry type 3, pid, then options. */
export function encodeProcessBlock(process: ProcessInfo): Uint8Array {
  const fixed = new Uint8Array(12)
  const view = new DataView(fixed.buffer)
  view.setUint32(0, processPen, true)
  view.setUint32(4, 3, true)
  view.setUint32(8, process.pid, true)
  return block(blockTypes.custom, fixed, [
    { code: 2, value: encodeUtf8(process.name) },
    { code: 3, value: encodeUtf8(process.path) },
    { code: 4, value: encodeUtf8(process.cmdline.join('\0')) },
    { code: 5, value: number32(process.ppid) },
    { code: 6, value: number32(process.uid) },
    { code: 7, value: encodeUtf8(process.user) },
  ])
}
