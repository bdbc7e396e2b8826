import ipaddr from 'ipaddr.js'

/** Bytes of an address in text, 4 or 16 of them; a zone ("%eth0") is left aside. Null when it is none. An IPv4-mapped address stays IPv6. */
export function parseAddress(text: string): Uint8Array | null {
  if (text.length > 64 || !ipaddr.isValid(text)) return null
  const bytes = ipaddr.parse(text).toByteArray()
  if (bytes.length === 4 && !ipaddr.IPv4.isValidFourPartDecimal(text)) return null
  return Uint8Array.from(bytes)
}

/** Dotted decimal, or RFC 5952. `bytes` are 4 or 16. */
export function formatAddress(bytes: Uint8Array): string {
  const address = ipaddr.fromByteArray([...bytes])
  return address.kind() === 'ipv6' ? (address as ipaddr.IPv6).toRFC5952String() : address.toString()
}
