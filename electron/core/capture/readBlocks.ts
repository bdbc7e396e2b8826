import { blockLimit, blockTypes, byteOrderMagic } from './pcapngFormat.ts'
import { Failure } from '../contract/failure.ts'

/** A whole block. `body` (between the two lengths) and `bytes` (all of it) are views, valid until the next `push`. */
export interface CaptureBlock {
  readonly type: number
  /** Where the block begins in the file. */
  readonly offset: number
  readonly body: Uint8Array
  readonly bytes: Uint8Array
}

/** The file is not what a relay writes from byte `offset` on. */
export class CaptureDamaged extends Failure {
  readonly offset: number
  constructor(offset: number, why: string) {
    super('session-unreadable', `the capture is damaged at byte ${String(offset)}: ${why}`)
    this.offset = offset
  }
}

/**
 * Cuts a growing pcapng file into blocks. Push pieces of any size, then take blocks with `next()` until it says null: that means
 * more bytes are needed, which is normal at the end of a file that is being written. Holds at most one unfinished block (16 MiB)
 * and the last piece. Throws CaptureDamaged, and from then on always the same; never reads past what it was given.
 */
export class BlockReader {
  private buffer = new Uint8Array(64 * 1024)
  private view = new DataView(this.buffer.buffer)
  private start = 0
  private end = 0
  /** File offset of buffer[start]: where the next block begins. */
  private position: number
  private damage: CaptureDamaged | null = null
  private first: boolean

  /** `offset`: where in the record the first pushed byte lies; at the beginning of a segment the first block has to be a section header. */
  constructor(offset = 0, beginning = offset === 0) {
    this.position = offset
    this.first = beginning
  }

  /** Where the next block begins: everything before has been handed out. */
  get offset(): number {
    return this.position
  }

  /** Bytes of a block that is not whole yet. */
  get pending(): number {
    return this.end - this.start
  }

  push(piece: Uint8Array): void {
    if (this.damage !== null || piece.length === 0) return
    const held = this.end - this.start
    if (this.end + piece.length > this.buffer.length) {
      const need = held + piece.length
      if (need > this.buffer.length || need * 4 < this.buffer.length) {
        let size = 64 * 1024
        while (size < need) size *= 2
        const larger = new Uint8Array(size)
        larger.set(this.buffer.subarray(this.start, this.end))
        this.buffer = larger
        this.view = new DataView(larger.buffer)
      } else {
        this.buffer.copyWithin(0, this.start, this.end)
      }
      this.start = 0
      this.end = held
    }
    this.buffer.set(piece, this.end)
    this.end += piece.length
  }

  /** The next whole block, or null when it is not there yet. */
  next(): CaptureBlock | null {
    if (this.damage !== null) throw this.damage
    const held = this.end - this.start
    if (held < 8) return null
    const type = this.view.getUint32(this.start, true)
    const length = this.view.getUint32(this.start + 4, true)
    if (this.first && type !== blockTypes.sectionHeader) this.fail('it does not begin as a pcapng file')
    if (length < 12 || (length & 3) !== 0) this.fail(`a block of ${String(length)} bytes`)
    if (length > blockLimit) this.fail(`a block of ${String(length)} bytes, more than ${String(blockLimit)}`)
    if (type === blockTypes.sectionHeader) {
      if (held < 12) return null
      if (this.view.getUint32(this.start + 8, true) !== byteOrderMagic) this.fail('it was not written in little-endian order')
      if (length < 28) this.fail('a section header too short')
    }
    if (held < length) return null
    if (this.view.getUint32(this.start + length - 4, true) !== length) this.fail('the two lengths of a block differ')
    const bytes = this.buffer.subarray(this.start, this.start + length)
    const block = { type, offset: this.position, body: bytes.subarray(8, length - 4), bytes }
    this.start += length
    this.position += length
    this.first = false
    return block
  }

  private fail(why: string): never {
    this.damage = new CaptureDamaged(this.position, why)
    this.buffer = new Uint8Array(0)
    this.start = this.end = 0
    throw this.damage
  }
}
