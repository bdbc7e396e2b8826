import type { Direction, StreamPiece } from '#core/flow/flow.ts'

/** A stretch of one direction: recorded bytes at `fileOffset` of the record (captureFiles.ts), or (`fileOffset` < 0) bytes that are not there. */
export interface Chunk {
  readonly direction: Direction
  readonly length: number
  readonly fileOffset: number
  readonly time: bigint
}
const chunkBytes = 24
/** Chunks a row of the index holds: 3 KiB. */
export const chunksPerRow = 128

/** Packs chunks: file offset (double), length (double, negative, -0 too: down), time (64 bits). */
export class ChunkPacker {
  private bytes = new Uint8Array(chunkBytes * 4)
  private view = new DataView(this.bytes.buffer)
  count = 0

  /** True when the row is full and has to be taken. */
  add(chunk: Chunk): boolean {
    const at = this.count * chunkBytes
    if (at === this.bytes.length) {
      const larger = new Uint8Array(Math.min(this.bytes.length * 4, chunkBytes * chunksPerRow))
      larger.set(this.bytes)
      this.bytes = larger
      this.view = new DataView(larger.buffer)
    }
    this.view.setFloat64(at, chunk.fileOffset, true)
    this.view.setFloat64(at + 8, chunk.direction === 'up' ? chunk.length : -chunk.length, true)
    this.view.setBigInt64(at + 16, chunk.time, true)
    this.count++
    return this.count === chunksPerRow
  }

  packed(): Uint8Array {
    return this.bytes.slice(0, this.count * chunkBytes)
  }

  clear(): void {
    this.count = 0
    if (this.bytes.length > chunkBytes * 4) {
      this.bytes = new Uint8Array(chunkBytes * 4)
      this.view = new DataView(this.bytes.buffer)
    }
  }
}

export function unpackChunks(packed: Uint8Array): Chunk[] {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.length)
  const chunks: Chunk[] = []
  for (let at = 0; at + chunkBytes <= packed.length; at += chunkBytes) {
    const length = view.getFloat64(at + 8, true)
    chunks.push({ direction: length < 0 || Object.is(length, -0) ? 'down' : 'up', length: Math.abs(length), fileOffset: view.getFloat64(at, true), time: view.getBigInt64(at + 16, true) })
  }
  return chunks
}

/** Pieces of a body: offset and length as doubles. */
export function packPieces(pieces: readonly StreamPiece[]): Uint8Array {
  const bytes = new Uint8Array(pieces.length * 16)
  const view = new DataView(bytes.buffer)
  for (const [index, piece] of pieces.entries()) {
    view.setFloat64(index * 16, piece.offset, true)
    view.setFloat64(index * 16 + 8, piece.length, true)
  }
  return bytes
}

export function unpackPieces(packed: Uint8Array): StreamPiece[] {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.length)
  const pieces: StreamPiece[] = []
  for (let at = 0; at + 16 <= packed.length; at += 16) pieces.push({ offset: view.getFloat64(at, true), length: view.getFloat64(at + 8, true) })
  return pieces
}

/** Blobs come out of SQLite as an ArrayBuffer or a Buffer. */
export function asBytes(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value
  if (value instanceof ArrayBuffer) return new Uint8Array(value)
  throw new TypeError('not a blob')
}
