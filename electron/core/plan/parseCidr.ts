import ipaddr from 'ipaddr.js'

import { Failure } from '../contract/failure.ts'

/** A network in canonical form: host bits zero, IPv6 as in RFC 5952, always with its length. */
export interface Cidr {
  readonly family: 'ipv4' | 'ipv6'
  readonly bytes: readonly number[]
  readonly length: number
  readonly text: string
}

/**
 * `10.0.0.0/8`, `2001:db8::/32` or an address alone (its whole length). IPv4 must be four decimal parts (no octal, no hexadecimal: what a person
 * reads is what is meant); IPv4 mapped into IPv6 becomes IPv4, as that is what such a packet is on the wire.
 * @throws Failure `bad-cidr`
 */
export function parseCidr(text: string): Cidr {
  const bad = (why: string): Failure => new Failure('bad-cidr', `${JSON.stringify(text.slice(0, 64))} ${why}`)
  const parts = /^([0-9a-fA-F:.]+)(?:\/([0-9]{1,3}))?$/.exec(text.trim())
  const address = parts?.[1]
  if (parts === null || address === undefined) throw bad('is no network: write for example 10.0.0.0/8 or 2001:db8::/32')
  const fourPart = ipaddr.IPv4.isValidFourPartDecimal(address)
  let bytes = (fourPart ? ipaddr.IPv4.parse(address) : parseIpv6(address))?.toByteArray()
  if (bytes === undefined) throw bad('is no IPv4 or IPv6 address')
  let width = bytes.length * 8
  let length = parts[2] === undefined ? width : Number(parts[2])
  if (length > width) throw bad(`has a length over ${width}`)
  const mapped = width === 128 && bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff
  if (mapped && length >= 96) {
    bytes = bytes.slice(12)
    width = 32
    length -= 96
  }
  bytes = bytes.map((byte, index) => byte & (0xff << Math.max(0, Math.min(8, (index + 1) * 8 - length)) & 0xff))
  const network = ipaddr.fromByteArray(bytes)
  const shown = network instanceof ipaddr.IPv6 ? network.toRFC5952String() : network.toString()
  return { family: width === 32 ? 'ipv4' : 'ipv6', bytes, length, text: `${shown}/${length}` }
}

/** Once: a plan may have thousands. */
function parseIpv6(text: string): ipaddr.IPv6 | undefined {
  try {
    return text.includes(':') ? ipaddr.IPv6.parse(text) : undefined
  } catch {
    return undefined
  }
}

/** Whether `outer` has every address of `inner`. */
export function holdsCidr(outer: Cidr, inner: Cidr): boolean {
  if (outer.family !== inner.family || outer.length > inner.length) return false
  for (let bit = 0; bit < outer.length; bit++) {
    const mask = 0x80 >> (bit & 7)
    if (((outer.bytes[bit >> 3] ?? 0) & mask) !== ((inner.bytes[bit >> 3] ?? 0) & mask)) return false
  }
  return true
}

/**
 * Sorted, and without those that lie in another one (two networks nest or are apart, so what remains never overlaps: nft's interval sets
 * refuse overlap).
 */
export function mergeCidrs(cidrs: readonly Cidr[]): Cidr[] {
  const sorted = [...cidrs].sort(compareCidrs)
  const kept: Cidr[] = []
  for (const cidr of sorted) {
    // Sorted by first address, then wide before narrow, so only the last one kept can hold this one.
    const last = kept.at(-1)
    if (last === undefined || !holdsCidr(last, cidr)) kept.push(cidr)
  }
  return kept
}

function compareCidrs(a: Cidr, b: Cidr): number {
  if (a.family !== b.family) return a.family === 'ipv4' ? -1 : 1
  for (let index = 0; index < a.bytes.length; index++) {
    const difference = (a.bytes[index] ?? 0) - (b.bytes[index] ?? 0)
    if (difference !== 0) return difference
  }
  return a.length - b.length
}
