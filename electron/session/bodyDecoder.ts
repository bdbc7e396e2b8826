import { Buffer } from 'node:buffer'
import type { Transform } from 'node:stream'
import { brotliDecompressSync, constants, createBrotliDecompress, createGunzip, createInflate, createInflateRaw, gunzipSync, inflateRawSync, inflateSync } from 'node:zlib'

import { headerValues } from '#core/dissect/httpHead.ts'
import type { HttpHeader } from '#core/flow/flow.ts'

/** Result bytes a decoded body may have; what is above is cut and said so. */
export const decodedLimit = 64 * 1024 * 1024
const codingLimit = 3

type Coding = 'gzip' | 'deflate' | 'br'

/** Codings to undo, last applied first; a text when one of them cannot be undone here. Empty: there is nothing to do. */
export function codingsOf(headers: readonly HttpHeader[]): readonly Coding[] | string {
  const names = headerValues(headers, 'content-encoding').flatMap((value) => value.split(',')).map((name) => name.trim().toLowerCase())
  const codings: Coding[] = []
  for (const name of names.reverse()) {
    if (name === '' || name === 'identity') continue
    const coding = name === 'x-gzip' ? 'gzip' : name
    if (coding !== 'gzip' && coding !== 'deflate' && coding !== 'br') return 'its content coding is not one that can be undone here'
    codings.push(coding)
  }
  return codings.length > codingLimit ? 'it is encoded more often than makes sense' : codings
}

/** "deflate" is zlib data (RFC 9110 8.4.1.2), and from some servers bare deflate: told by the two header bytes (RFC 1950). */
function isZlib(first: Uint8Array): boolean {
  return (first[0]! & 15) === 8 && ((first[0]! << 8) | (first[1] ?? 0)) % 31 === 0
}

export interface Decoded {
  readonly bytes: Uint8Array
  readonly error?: string
}

const damaged = 'the encoded body is damaged or cut'
const tooBig = `the decoded body is longer than ${String(decodedLimit / 1024 / 1024)} MiB`

/** Undoes codings in one go; for callers that cannot wait. What is too big or damaged comes back empty, with the error. */
export function decodeWhole(bytes: Uint8Array, codings: readonly Coding[]): Decoded {
  let current = bytes
  for (const coding of codings) {
    if (current.length === 0) break
    const options = { maxOutputLength: decodedLimit, finishFlush: constants.Z_SYNC_FLUSH }
    try {
      if (coding === 'br') current = brotliDecompressSync(current, { maxOutputLength: decodedLimit })
      else if (coding === 'gzip') current = gunzipSync(current, options)
      else current = isZlib(current) ? inflateSync(current, options) : inflateRawSync(current, options)
    } catch (error) {
      return { bytes: new Uint8Array(0), error: (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE' ? tooBig : damaged }
    }
  }
  return { bytes: current }
}

function decoderOf(coding: Coding, first: Uint8Array): Transform {
  if (coding === 'br') return createBrotliDecompress()
  if (coding === 'gzip') return createGunzip({ finishFlush: constants.Z_SYNC_FLUSH })
  return isZlib(first) ? createInflate({ finishFlush: constants.Z_SYNC_FLUSH }) : createInflateRaw({ finishFlush: constants.Z_SYNC_FLUSH })
}

async function decodeOne(source: Iterable<Uint8Array> | AsyncIterable<Uint8Array>, coding: Coding): Promise<Decoded> {
  const parts: Buffer[] = []
  let length = 0
  let error: string | undefined
  let decoder: Transform | undefined
  const ended = (transform: Transform): Promise<void> =>
    new Promise((resolve) => {
      transform.on('data', (part: Buffer) => {
        const room = decodedLimit - length
        parts.push(part.subarray(0, room))
        length += Math.min(part.length, room)
        if (part.length <= room) return
        error = tooBig
        transform.destroy()
      })
      transform.on('error', () => { error ??= damaged })
      transform.on('close', resolve)
    })
  let closed: Promise<void> | undefined
  for await (const piece of source) {
    if (piece.length === 0) continue
    if (decoder === undefined) {
      decoder = decoderOf(coding, piece)
      closed = ended(decoder)
    }
    if (decoder.destroyed) break
    if (!decoder.write(piece)) {
      const waiting = decoder
      await Promise.race([closed, new Promise<void>((resolve) => waiting.once('drain', resolve))])
    }
  }
  if (decoder !== undefined && !decoder.destroyed) decoder.end()
  await closed
  return { bytes: Buffer.concat(parts), ...(error === undefined ? {} : { error }) }
}

/** Undoes codings stream by stream; what was decoded before damage, the end of what was recorded, or the limit is kept. */
export async function decodeStreaming(source: Iterable<Uint8Array>, codings: readonly Coding[]): Promise<Decoded> {
  let current: Iterable<Uint8Array> = source
  let error: string | undefined
  let result: Decoded = { bytes: new Uint8Array(0) }
  for (const coding of codings) {
    result = await decodeOne(current, coding)
    error ??= result.error
    current = [result.bytes]
  }
  return { bytes: result.bytes, ...(error === undefined ? {} : { error }) }
}
