import ipaddr from 'ipaddr.js'

/** 4 or 16 bytes, an IPv4-mapped IPv6 address as its 4; undefined when it is no address. Zone ids are left aside. */
export function addressBytes(text: string): readonly number[] | undefined {
  const zone = text.indexOf('%')
  const plain = zone === -1 ? text : text.slice(0, zone)
  if (ipaddr.IPv4.isValidFourPartDecimal(plain)) return ipaddr.IPv4.parse(plain).toByteArray()
  if (!plain.includes(':') || !ipaddr.IPv6.isValid(plain)) return undefined
  const bytes = ipaddr.IPv6.parse(plain).toByteArray()
  return isMapped(bytes) ? bytes.slice(12) : bytes
}

function isMapped(bytes: readonly number[]): boolean {
  return bytes.length === 16 && bytes[10] === 0xff && bytes[11] === 0xff && bytes.slice(0, 10).every((byte) => byte === 0)
}

/** "198.51.100.0/24", "2001:db8::/32" or a bare address (all its bits); undefined when it is neither. */
export function parseNetwork(text: string): { bytes: readonly number[]; bits: number } | undefined {
  const slash = text.indexOf('/')
  const bytes = addressBytes(slash === -1 ? text : text.slice(0, slash))
  if (bytes === undefined) return undefined
  if (slash === -1) return { bytes, bits: bytes.length * 8 }
  const suffix = text.slice(slash + 1)
  if (!/^\d{1,3}$/.test(suffix)) return undefined
  // The bits of ::ffff:198.51.100.0/120 are counted in the long form.
  const long = bytes.length === 4 && text.includes(':')
  const bits = Number(suffix) - (long ? 96 : 0)
  return bits < 0 || bits > bytes.length * 8 ? undefined : { bytes, bits }
}

const known = new Map<string, readonly number[] | null>()
const knownLimit = 4096

/** `addressBytes`, remembered: a list of flows holds few addresses many times. */
function rememberedBytes(text: string): readonly number[] | null {
  const found = known.get(text)
  if (found !== undefined) return found
  if (known.size >= knownLimit) known.clear()
  const bytes = addressBytes(text) ?? null
  known.set(text, bytes)
  return bytes
}

/** Whether an address lies in a network; addresses of the other family never do. */
export function inNetwork(address: string, network: { readonly bytes: readonly number[]; readonly bits: number }): boolean {
  const bytes = rememberedBytes(address)
  if (bytes === null || bytes.length !== network.bytes.length) return false
  const whole = network.bits >> 3
  for (let i = 0; i < whole; i++) if (bytes[i] !== network.bytes[i]) return false
  const rest = network.bits & 7
  if (rest === 0) return true
  const mask = 0xff00 >> rest
  return ((bytes[whole] ?? 0) & mask) === ((network.bytes[whole] ?? 0) & mask)
}
