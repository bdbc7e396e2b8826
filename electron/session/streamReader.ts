import type { CaptureFiles } from './captureFiles.ts'
import type { Chunk } from './store/chunkCodec.ts'
import type { IndexStore } from './store/indexStore.ts'
import type { Part } from '#core/dissect/dissector.ts'
import type { Direction, HttpBody, StreamPiece } from '#core/flow/flow.ts'

/** A stretch of a stream; `offset` counts the bytes of its own direction. `bytes` undefined: not recorded. */
export interface Stretch {
  readonly direction: Direction
  readonly offset: number
  readonly time: bigint
  readonly length: number
  readonly bytes?: Uint8Array
}

/** Bytes of flows, read out of the capture by what the index says of where they lie. */
export class StreamReader {
  private readonly store: IndexStore
  private readonly files: CaptureFiles

  constructor(store: IndexStore, files: CaptureFiles) {
    this.store = store
    this.files = files
  }

  /** Stretches from byte `from` of what was asked for (both: order of arrival, both counted), `limit` bytes at most; a gap counts none of them. `whole`: a chunk is a datagram, which is not cut. */
  *stretches(flow: number, direction: Direction | 'both', from: number, limit: number, whole = false): Generator<Stretch> {
    let left = limit
    for (const run of this.store.chunksFrom(flow, direction, from)) {
      const at = { up: run.up, down: run.down }
      let position = direction === 'both' ? run.position : at[direction]
      for (const chunk of run.chunks) {
        const own = at[chunk.direction]
        at[chunk.direction] += chunk.length
        if (direction !== 'both' && chunk.direction !== direction) continue
        const start = position
        position += chunk.length
        if (position <= from && !(chunk.length === 0 && start === from)) continue
        const skip = Math.max(0, from - start)
        const length = chunk.fileOffset < 0 || whole ? chunk.length - skip : Math.min(chunk.length - skip, left)
        yield this.stretch(chunk, own + skip, skip, length)
        if (chunk.fileOffset >= 0) left -= length
        if (left <= 0) return
      }
    }
  }

  private stretch(chunk: Chunk, offset: number, skip: number, length: number): Stretch {
    const { direction, time } = chunk
    if (chunk.fileOffset < 0) return { direction, offset, time, length }
    const bytes = this.files.at(chunk.fileOffset + skip, length)
    return bytes.length === length ? { direction, offset, time, length, bytes } : { direction, offset, time, length }
  }

  /** Recorded bytes of one direction from `offset`: up to `length`, fewer at a gap or the end. */
  read(flow: number, direction: Direction, offset: number, length: number): Uint8Array {
    const parts: Uint8Array[] = []
    for (const { bytes } of this.stretches(flow, direction, offset, length)) {
      if (bytes === undefined) break
      parts.push(bytes)
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  }

  /** Wire bytes of a body from byte `from` of it on. Ends early, with `missing` set, where part was not recorded. */
  *body(flow: number, exchange: number, part: Part, body: HttpBody, from: number): Generator<{ readonly bytes: Uint8Array; readonly missing: boolean }> {
    const direction: Direction = part === 'request' ? 'up' : 'down'
    for (const { piece, bodyOffset } of this.pieces(flow, exchange, part, body, from)) {
      let at = Math.max(0, from - bodyOffset)
      while (at < piece.length) {
        const bytes = this.read(flow, direction, piece.offset + at, Math.min(65_536, piece.length - at))
        if (bytes.length === 0) {
          yield { bytes, missing: true }
          return
        }
        yield { bytes, missing: false }
        at += bytes.length
      }
    }
  }

  private *pieces(flow: number, exchange: number, part: Part, body: HttpBody, from: number): Generator<{ readonly piece: StreamPiece; readonly bodyOffset: number }> {
    let bodyOffset = 0
    for (const piece of body.pieces) {
      if (bodyOffset + piece.length > from) yield { piece, bodyOffset }
      bodyOffset += piece.length
    }
    if (bodyOffset >= body.length) return
    for (const batch of this.store.piecesFrom(flow, exchange, part, Math.max(from, bodyOffset))) {
      let at = batch.bodyOffset
      for (const piece of batch.pieces) {
        if (at + piece.length > from) yield { piece, bodyOffset: at }
        at += piece.length
      }
    }
  }
}
