import { Undecodable } from './dissector.ts'
import type { Framing } from './httpFraming.ts'
import { headLimit, parseHead } from './httpHead.ts'
import type { HttpHead } from './httpHead.ts'

/** What one direction's reader reports. `head` answers how the body goes on; 'raw' means no more messages come here, 'wait' to hold. */
export interface MessageHandler {
  head(head: HttpHead, headBytes: number, startedAt: bigint): Framing | 'raw' | 'wait'
  /** A stretch of body; `lost`: it is not in the record. */
  body(offset: number, length: number, lost: boolean): void
  /** The message is whole, or (`truncated`) as much of it as there will ever be. */
  done(time: bigint, truncated: boolean): void
}

type State = 'idle' | 'head' | 'length' | 'close' | 'chunk-size' | 'chunk-data' | 'chunk-end' | 'trailers' | 'wait' | 'raw'

const chunkLineLimit = 4096
const trailerLimit = 64 * 1024
const waitLimit = 64 * 1024
const newline = 10

/**
 * Cuts one direction of an HTTP/1 connection into messages. Holds only an unfinished head, chunk line or trailer section; bodies are
 * reported as stretches. The same bytes cut anywhere give the same reports, but that a stretch may come in several.
 */
export class MessageReader {
  private state: State = 'idle'
  private held = new Uint8Array(0)
  private heldLength = 0
  /** Where in the held section the line now read begins. */
  private lineStart = 0
  private startedAt = 0n
  private remaining = 0
  private readonly handler: MessageHandler

  constructor(handler: MessageHandler) {
    this.handler = handler
  }

  heldBytes(): number {
    return this.heldLength
  }

  /** In the middle of a message (a head begun counts). */
  get busy(): boolean {
    return this.state !== 'idle' && this.state !== 'raw'
  }

  data(offset: number, bytes: Uint8Array, time: bigint): void {
    let at = 0
    while (at < bytes.length) {
      switch (this.state) {
        case 'idle':
          // Empty lines before a message are passed over (RFC 9112 2.2).
          if (bytes[at] === 13 || bytes[at] === newline) {
            at++
            continue
          }
          this.state = 'head'
          this.startedAt = time
          this.lineStart = 0
          break
        case 'head':
          at = this.readHead(bytes, at, time)
          break
        case 'length': {
          const take = Math.min(this.remaining, bytes.length - at)
          this.handler.body(offset + at, take, false)
          at += take
          this.remaining -= take
          if (this.remaining === 0) this.finish(time, false)
          break
        }
        case 'close':
          this.handler.body(offset + at, bytes.length - at, false)
          return
        case 'chunk-size':
          at = this.readChunkSize(bytes, at)
          break
        case 'chunk-data': {
          const take = Math.min(this.remaining, bytes.length - at)
          this.handler.body(offset + at, take, false)
          at += take
          this.remaining -= take
          if (this.remaining === 0) this.state = 'chunk-end'
          break
        }
        case 'chunk-end':
          if (bytes[at] !== 13 && bytes[at] !== newline) throw new Undecodable('a chunk that does not end where it said')
          if (bytes[at] === newline) this.state = 'chunk-size'
          at++
          break
        case 'trailers':
          at = this.readTrailers(bytes, at, time)
          break
        case 'wait':
          if (this.heldLength + bytes.length - at > waitLimit) this.become('raw')
          else this.hold(bytes, at, bytes.length)
          return
        case 'raw':
          return
      }
    }
  }

  /** Bytes that are not in the record: tolerable only where their meaning is known anyway. */
  gap(offset: number, length: number, time: bigint): void {
    let at = 0
    while (at < length) {
      switch (this.state) {
        case 'length':
        case 'chunk-data': {
          const take = Math.min(this.remaining, length - at)
          this.handler.body(offset + at, take, true)
          at += take
          this.remaining -= take
          if (this.remaining > 0) return
          if (this.state === 'length') this.finish(time, false)
          else this.state = 'chunk-end'
          break
        }
        case 'close':
          this.handler.body(offset + at, length - at, true)
          return
        case 'raw':
          return
        case 'wait':
          this.become('raw')
          return
        default:
          throw new Undecodable('part of a message head was not recorded')
      }
    }
  }

  /** No more bytes come. */
  end(time: bigint): void {
    if (this.state === 'close') this.finish(time, false)
    else if (this.state !== 'idle' && this.state !== 'head' && this.state !== 'raw' && this.state !== 'wait') this.finish(time, true)
  }

  /** After 'wait': on as a tunnel, or as messages again with what was held. `offset`: where the stream stands now. */
  resume(raw: boolean, offset: number, time: bigint): void {
    if (this.state !== 'wait') return
    const held = this.held.subarray(0, this.heldLength)
    const start = offset - held.length
    this.become(raw ? 'raw' : 'idle')
    if (!raw) this.data(start, held, time)
  }

  /** Everything from here on is another protocol. */
  makeRaw(): void {
    this.become('raw')
  }

  private become(state: State): void {
    this.state = state
    this.held = new Uint8Array(0)
    this.heldLength = 0
    this.lineStart = 0
  }

  private finish(time: bigint, truncated: boolean): void {
    this.become('idle')
    this.handler.done(time, truncated)
  }

  private hold(bytes: Uint8Array, start: number, end: number): void {
    const need = this.heldLength + end - start
    if (need > this.held.length) {
      const larger = new Uint8Array(Math.max(512, need, Math.min(this.held.length * 2, headLimit)))
      larger.set(this.held.subarray(0, this.heldLength))
      this.held = larger
    }
    this.held.set(bytes.subarray(start, end), this.heldLength)
    this.heldLength = need
  }

  /** Looks for the empty line; each byte is looked at once. Returns where it stands, and the section when it is whole. */
  private readSection(bytes: Uint8Array, at: number, limit: number, emptyStart: boolean): { at: number; section: Uint8Array | null } {
    const before = this.heldLength
    let scan = at
    for (;;) {
      const found = bytes.indexOf(newline, scan)
      if (before + (found < 0 ? bytes.length : found) - at > limit) throw new Undecodable(`a head longer than ${String(limit / 1024)} KiB`)
      if (found < 0) {
        this.hold(bytes, at, bytes.length)
        return { at: bytes.length, section: null }
      }
      const lineEnd = before + found - at
      const length = lineEnd - this.lineStart
      const last = found > at ? bytes[found - 1] : this.held[before - 1]
      const empty = length === 0 || (length === 1 && last === 13)
      if (empty && (this.lineStart > 0 || emptyStart)) {
        let section = bytes.subarray(at, found + 1)
        if (before > 0) {
          this.hold(bytes, at, found + 1)
          section = this.held.subarray(0, this.heldLength)
        }
        return { at: found + 1, section }
      }
      this.lineStart = lineEnd + 1
      scan = found + 1
    }
  }

  private readHead(bytes: Uint8Array, start: number, time: bigint): number {
    const { at, section } = this.readSection(bytes, start, headLimit, false)
    if (section === null) return at
    const head = parseHead(section)
    const size = section.length
    this.become('idle')
    const next = this.handler.head(head, size, this.startedAt)
    if (next === 'raw' || next === 'wait') {
      this.become(next)
    } else if (next.kind === 'none') {
      this.handler.done(time, false)
    } else if (next.kind === 'length') {
      this.state = 'length'
      this.remaining = next.length
    } else {
      this.state = next.kind === 'chunked' ? 'chunk-size' : 'close'
    }
    return at
  }

  private readChunkSize(bytes: Uint8Array, start: number): number {
    const found = bytes.indexOf(newline, start)
    const end = found < 0 ? bytes.length : found + 1
    if (this.heldLength + end - start > chunkLineLimit) throw new Undecodable('a chunk line that does not end')
    this.hold(bytes, start, end)
    if (found < 0) return end
    const line = String.fromCharCode(...this.held.subarray(0, this.heldLength))
    const match = /^([0-9a-fA-F]{1,13})[ \t]*(?:;[^\n]*)?\r?\n$/.exec(line)
    if (match === null) throw new Undecodable('a chunk length that is none')
    this.remaining = Number.parseInt(match[1]!, 16)
    this.become(this.remaining === 0 ? 'trailers' : 'chunk-data')
    return end
  }

  private readTrailers(bytes: Uint8Array, start: number, time: bigint): number {
    const { at, section } = this.readSection(bytes, start, trailerLimit, true)
    if (section === null) return at
    parseHead(section, true)
    this.finish(time, false)
    return at
  }
}
