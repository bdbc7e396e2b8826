import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto'

import type { ProtectedInitial } from '#core/dissect/datagram.ts'
import { quicVersion2 } from '#core/dissect/quicHeader.ts'

/** RFC 9001, 5.2; RFC 9369, 3.3.1; drafts 29 to 32 had their own. */
const salts = {
  draft: Buffer.from('afbfec289993d24c9e9786f19c6111e04390a899', 'hex'),
  one: Buffer.from('38762cf7f55934b34d179ae6a4c80cadccbb7f0a', 'hex'),
  two: Buffer.from('0dede3def700a6db819381be6e269dcbf9bd2ed9', 'hex'),
} as const
const tagLength = 16
const sampleLength = 16

/**
 * Takes the protection off an Initial packet of the client (RFC 9001, 5): its keys follow from the connection id alone, so this is no secret, only the way to
 * the hello. Null when the keys do not fit or the packet is cut. Never throws.
 */
export function openInitial({ version, destinationId, packet, numberOffset }: ProtectedInitial): Uint8Array | null {
  if (numberOffset < 7 || numberOffset + 4 + sampleLength > packet.length) return null
  const { key, iv, headerKey } = clientKeys(version, destinationId)
  const mask = createCipheriv('aes-128-ecb', headerKey, null).update(packet.subarray(numberOffset + 4, numberOffset + 4 + sampleLength))
  const first = packet[0]! ^ (mask[0]! & 0x0f)
  const numberLength = (first & 3) + 1
  const header = Buffer.from(packet.subarray(0, numberOffset + numberLength))
  header[0] = first
  const nonce = Buffer.from(iv)
  for (let index = 0; index < numberLength; index++) {
    const place = numberOffset + index
    header[place] = packet[place]! ^ mask[1 + index]!
    nonce[nonce.length - numberLength + index]! ^= header[place]
  }
  const sealed = packet.subarray(numberOffset + numberLength)
  if (sealed.length < tagLength) return null
  const decipher = createDecipheriv('aes-128-gcm', key, nonce)
  decipher.setAAD(header)
  decipher.setAuthTag(sealed.subarray(sealed.length - tagLength))
  const frames = decipher.update(sealed.subarray(0, sealed.length - tagLength))
  try {
    decipher.final()
  } catch {
    return null
  }
  return frames
}

function clientKeys(version: number, destinationId: Uint8Array): { readonly key: Buffer; readonly iv: Buffer; readonly headerKey: Buffer } {
  const two = version === quicVersion2
  const salt = two ? salts.two : version >= 0xff00_001d && version <= 0xff00_0020 ? salts.draft : salts.one
  const secret = expandLabel(hmac(salt, destinationId), 'client in', 32)
  const label = two ? 'quicv2' : 'quic'
  return { key: expandLabel(secret, `${label} key`, 16), iv: expandLabel(secret, `${label} iv`, 12), headerKey: expandLabel(secret, `${label} hp`, 16) }
}

/** HKDF-Expand-Label (RFC 8446, 7.1) with SHA-256 and no context; one block is enough for 32 bytes. */
function expandLabel(secret: Uint8Array, label: string, length: number): Buffer {
  const name = Buffer.from(`tls13 ${label}`, 'latin1')
  return hmac(secret, Buffer.concat([Buffer.from([length >> 8, length & 0xff, name.length]), name, Buffer.from([0, 1])])).subarray(0, length)
}

function hmac(key: Uint8Array, data: Uint8Array): Buffer {
  return createHmac('sha256', key).update(data).digest()
}
