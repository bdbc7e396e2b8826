import dnsPacket from 'dns-packet'
import type { Answer, DecodedPacket } from 'dns-packet'

import type { DnsMessage } from '#core/dissect/datagram.ts'
import { escapeText } from '#core/flow/escapeText.ts'
import type { DnsRecord } from '#core/flow/flow.ts'

/** What resolvers accept over UDP; a longer one is not taken apart, since its name compression could cost time without end. */
const messageLimit = 4096
const answersKept = 32
const dataLimit = 300
const flagNames = [['aa', 0x400], ['tc', 0x200], ['rd', 0x100], ['ra', 0x80], ['ad', 0x20], ['cd', 0x10]] as const

/** A DNS message (RFC 1035), whole; null for anything else. Never throws. */
export function decodeDns(bytes: Uint8Array): DnsMessage | null {
  if (bytes.length < 12 || bytes.length > messageLimit) return null
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const opcode = (buffer[2]! >> 3) & 15
  // Query, notify, update: what is seen. Asking costs nothing, taking apart does.
  if ((opcode !== 0 && opcode !== 4 && opcode !== 5) || buffer.readUInt16BE(4) > 16) return null
  let packet: DecodedPacket
  try {
    packet = dnsPacket.decode(buffer)
  } catch {
    return null
  }
  const flags = buffer.readUInt16BE(2)
  const answers = packet.answers ?? []
  return {
    id: buffer.readUInt16BE(0),
    response: (flags & 0x8000) !== 0,
    rcode: escapeText((packet as { readonly rcode?: string }).rcode ?? String(flags & 15), 20),
    flags: flagNames.flatMap(([name, bit]) => ((flags & bit) === 0 ? [] : [name])),
    questions: (packet.questions ?? []).map(({ name, type }) => ({ name: escapeText(name, 255), type: escapeText(type, 20) })),
    answers: answers.slice(0, answersKept).map(recordOf),
    answerCount: answers.length,
  }
}

function recordOf(answer: Answer): DnsRecord {
  const { name, type } = answer
  const ttl = 'ttl' in answer && typeof answer.ttl === 'number' ? answer.ttl : 0
  return { name: escapeText(name, 255), type: escapeText(type, 20), ttl, data: escapeText(dataText((answer as { readonly data?: unknown }).data), dataLimit) }
}

function dataText(data: unknown, depth = 0): string {
  if (typeof data === 'string') return data
  if (typeof data === 'number' || typeof data === 'boolean') return String(data)
  if (data instanceof Uint8Array) {
    const text = Buffer.from(data.buffer, data.byteOffset, Math.min(data.length, dataLimit))
    return depth > 0 ? JSON.stringify(text.toString('latin1')) : `\\# ${data.length} ${text.toString('hex')}`
  }
  if (depth > 2 || typeof data !== 'object' || data === null) return ''
  const parts: readonly unknown[] = Array.isArray(data) ? data : Object.values(data)
  return parts.slice(0, 20).map((part) => dataText(part, depth + 1)).filter((text) => text !== '').join(' ')
}
