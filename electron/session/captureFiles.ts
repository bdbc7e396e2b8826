import { createHash } from 'node:crypto'
import { closeSync, fstatSync, readSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

import { openRegularFile, readAt } from './openFile.ts'
import { Failure } from '#core/contract/failure.ts'
import { segmentName, segmentOf } from '#core/contract/sessionFile.ts'

/** A segment and where it lies in the record: all segments that were read, one behind the other, make one run of bytes. */
export interface PlacedSegment {
  readonly number: number
  readonly start: number
  /** Bytes of it so far. */
  readonly size: number
}
interface Reading {
  readonly number: number
  readonly start: number
  readonly descriptor: number
  size: number
  /** A later one is there, so nothing is added to this one any more. */
  finished: boolean
}

const openLimit = 4

/**
 * The segments of a session as one record: read in order while they come, and at any place of what was read before. Segments that are deleted meanwhile leave
 * holes; one that is being read is read to its end. Keeps no deleted file open, or its space would not come free.
 */
export class CaptureFiles {
  private readonly folder: string
  private readonly past: PlacedSegment[] = []
  private current: Reading | null = null
  private readonly open = new Map<number, number>()
  /** Numbers present when last looked at, rising. */
  private present: number[] = []

  private constructor(folder: string) {
    this.folder = folder
  }

  /** Null when there is no segment yet. Failure 'session-unreadable' when the first is no file that can be read. */
  static open(folder: string): CaptureFiles | null {
    const files = new CaptureFiles(folder)
    files.look()
    return files.begin() ? files : null
  }

  /** The first bytes of the first segment, twelve at most. */
  head(): Uint8Array {
    return this.current === null ? new Uint8Array(0) : readAt(this.current.descriptor, 0, 12)
  }

  /** Takes over where segments lay when the record was read, instead of reading it. */
  place(segments: readonly PlacedSegment[]): void {
    if (this.current !== null) closeSync(this.current.descriptor)
    this.current = null
    this.past.splice(0, this.past.length, ...segments)
  }

  /** Segments of the record so far. */
  get segments(): readonly PlacedSegment[] {
    const { current } = this
    return current === null ? this.past : [...this.past, { number: current.number, start: current.start, size: current.size }]
  }
  /** Bytes read so far: where the next one lies. */
  get position(): number {
    const last = this.current ?? this.past.at(-1)
    return last === undefined ? 0 : last.start + last.size
  }
  /** Bytes that are there to be read, those read before among them. */
  size(): number {
    const { current } = this
    if (current === null) return this.position
    const later = this.present.filter((number) => number > current.number)
    return current.start + fstatSync(current.descriptor).size + later.reduce((sum, number) => sum + this.sizeOf(number), 0)
  }

  /** The next bytes of the current segment; 0: none now. */
  read(into: Uint8Array): number {
    const { current } = this
    if (current === null) return 0
    const read = readSync(current.descriptor, into, 0, into.length, current.size)
    current.size += read
    return read
  }

  /** After `read` said 0. 'next': the following bytes begin another segment. 'again': read once more. 'dry': nothing more now. */
  advance(): 'next' | 'again' | 'dry' {
    const { current } = this
    if (current === null) return 'dry'
    if (!current.finished) {
      this.look()
      if ((this.present.at(-1) ?? 0) <= current.number) return 'dry'
      // What was written between our last read and the beginning of the later segment.
      current.finished = true
      return 'again'
    }
    return this.begin() ? 'next' : 'dry'
  }

  /** Up to `length` bytes at a place of the record; fewer at the end of its segment, none when that is gone. */
  at(position: number, length: number): Uint8Array {
    const segment = this.segmentAt(position)
    if (segment === undefined) return new Uint8Array(0)
    const within = Math.min(length, segment.start + segment.size - position)
    const descriptor = segment.number === this.current?.number ? this.current.descriptor : this.descriptorOf(segment.number)
    return descriptor === null ? new Uint8Array(0) : readAt(descriptor, position - segment.start, within)
  }

  /** What all segments that are there now are recognised by: number, length, first and last 64 KiB of each. */
  fingerprint(): string {
    this.look()
    const hash = createHash('sha256')
    for (const number of this.present) {
      const descriptor = this.descriptorOf(number)
      if (descriptor === null) continue
      const { size } = fstatSync(descriptor)
      hash.update(`${String(number)} ${String(size)} `)
      hash.update(readAt(descriptor, 0, Math.min(size, 65_536))).update(readAt(descriptor, Math.max(0, size - 65_536), Math.min(size, 65_536)))
    }
    return hash.digest('hex')
  }

  close(): void {
    if (this.current !== null) closeSync(this.current.descriptor)
    for (const descriptor of this.open.values()) closeSync(descriptor)
    this.open.clear()
    this.current = null
  }

  /** Goes over to the first segment behind the current one. */
  private begin(): boolean {
    const { current } = this
    const after = current?.number ?? 0
    for (const number of this.present.filter((each) => each > after)) {
      const name = segmentName(number)
      const descriptor = openRegularFile(join(this.folder, name), name)
      if (descriptor === null) continue // deleted since we looked
      const start = this.position
      if (current !== null) {
        closeSync(current.descriptor)
        this.past.push({ number: current.number, start: current.start, size: current.size })
      }
      this.current = { number, start, descriptor, size: 0, finished: false }
      return true
    }
    return false
  }

  private look(): void {
    let names: string[] = []
    try {
      names = readdirSync(this.folder)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'ENOENT') throw new Failure('session-unreadable', `the session folder cannot be listed: ${code ?? 'unknown error'}`)
    }
    this.present = names.map(segmentOf).filter((number) => number !== null).sort((a, b) => a - b)
    for (const [number, descriptor] of this.open) {
      if (this.present.includes(number)) continue
      closeSync(descriptor)
      this.open.delete(number)
    }
  }

  private segmentAt(position: number): PlacedSegment | undefined {
    const { current } = this
    if (current !== null && position >= current.start) return current
    let [low, high] = [0, this.past.length]
    while (low < high) {
      const middle = (low + high) >> 1
      const each = this.past[middle]!
      if (position < each.start) high = middle
      else if (position >= each.start + each.size) low = middle + 1
      else return each
    }
    return undefined
  }

  private sizeOf(number: number): number {
    const descriptor = this.descriptorOf(number)
    return descriptor === null ? 0 : fstatSync(descriptor).size
  }

  private descriptorOf(number: number): number | null {
    const known = this.open.get(number)
    if (known !== undefined) return known
    const name = segmentName(number)
    const descriptor = openRegularFile(join(this.folder, name), name)
    if (descriptor === null) return null
    for (const [oldest, other] of this.open) {
      if (this.open.size < openLimit) break
      closeSync(other)
      this.open.delete(oldest)
    }
    this.open.set(number, descriptor)
    return descriptor
  }
}
