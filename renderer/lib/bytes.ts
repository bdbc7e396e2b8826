/** Base64 as bytes; what is no base64 gives none, as there is nothing better to show. */
export function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  let binary: string
  try {
    binary = atob(text)
  } catch {
    return new Uint8Array(0)
  }
  const bytes = new Uint8Array(binary.length)
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i)
  return bytes
}

const hexPairs = Array.from({ length: 256 }, (_, value) => value.toString(16).padStart(2, '0'))

export function hexOf(byte: number): string {
  return hexPairs[byte & 0xff] ?? '00'
}

/** The right column of a hex view: printable ASCII as it is, all else a dot. */
export function asciiOf(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '·'
  return text
}

/** "47 45 54 20 2f 20 48 54  54 50": sixteen pairs with a wider gap in the middle. */
export function hexLine(bytes: Uint8Array): string {
  let text = ''
  for (const [i, byte] of bytes.entries()) text += `${i === 0 ? '' : i === 8 ? '  ' : ' '}${hexOf(byte)}`
  return text
}

/** Does this look like text: no zero bytes, few other control characters, and well-formed UTF-8 (a cut at the very end is forgiven)? */
export function looksLikeText(bytes: Uint8Array): boolean {
  const sample = bytes.subarray(0, 2048)
  let controls = 0
  for (const byte of sample) {
    if (byte === 0) return false
    if (byte < 0x20 && byte !== 9 && byte !== 10 && byte !== 13 && byte !== 27) controls += 1
  }
  if (controls > sample.length / 50) return false
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(sample, { stream: true })
    return true
  } catch {
    return false
  }
}

/** Bytes as text in the charset a content type names; an unknown charset, or none, is UTF-8. */
export function decodeText(bytes: Uint8Array, contentType = ''): string {
  const charset = /charset\s*=\s*"?([^\s;"]+)/i.exec(contentType)?.[1] ?? 'utf-8'
  let decoder
  try {
    decoder = new TextDecoder(charset)
  } catch {
    decoder = new TextDecoder('utf-8')
  }
  return decoder.decode(bytes)
}
