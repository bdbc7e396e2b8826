import type { DissectContext, Dissector, DissectorKind, Findings } from './dissector.ts'
import type { HeadBudget, Holder } from './headBudget.ts'
import { httpKind } from './http.ts'
import { tlsKind } from './tls.ts'
import { decodeLatin1 } from '../capture/utf8.ts'
import { escapeText } from '../flow/escapeText.ts'
import type { Direction, FlowProtocol } from '../flow/flow.ts'

/** All dissectors there are, first come first served. Raw bids lowest and always wins in the end, so it needs no entry. */
export const dissectorKinds: readonly DissectorKind[] = [tlsKind, httpKind]

/** Bytes of a direction a bid may want to see at most. */
const prefixLimit = 8 * 1024
const previewBytes = 48

interface HeldPiece {
  readonly direction: Direction
  readonly offset: number
  readonly bytes: Uint8Array
  readonly time: bigint
}

/**
 * What a flow turns out to be: lets the dissectors bid on the first bytes of both directions, gives everything to the one that takes it,
 * and marks the flow undecodable when that one cannot go on. Never throws.
 */
export class FlowDissection implements Holder {
  private dissector: Dissector | null = null
  private kind: FlowProtocol | null = null
  private readonly context: DissectContext
  private readonly budget: HeadBudget
  private readonly kinds: readonly DissectorKind[]
  private waiting: HeldPiece[] = []
  private waitingLength: Record<Direction, number> = { up: 0, down: 0 }
  private decided = false
  private failed = false
  private preview: { readonly direction: Direction; bytes: Uint8Array } | null = null
  private previewEnded = false
  private seen = 0
  private now = 0n
  /** Why a dissector gave up. */
  error: string | undefined

  constructor(context: DissectContext, budget: HeadBudget, kinds: readonly DissectorKind[] = dissectorKinds) {
    this.context = context
    this.budget = budget
    this.kinds = kinds
  }

  get undecodable(): boolean {
    return this.failed
  }

  get protocol(): FlowProtocol {
    if (this.findings() !== null) return this.kind!
    return this.seen === 0 ? 'empty' : 'raw'
  }

  /** `bytes` may be a view that dies after the call. */
  data(direction: Direction, offset: number, bytes: Uint8Array, time: bigint): void {
    this.now = time
    if (bytes.length === 0) return
    this.seen += bytes.length
    this.glimpse(direction, bytes)
    if (this.dissector !== null) this.guarded((dissector) => { dissector.data(direction, offset, bytes, time) })
    else if (!this.decided) this.consider({ direction, offset, bytes, time })
  }

  gap(direction: Direction, offset: number, length: number, time: bigint): void {
    this.now = time
    this.seen += length
    this.previewEnded = true
    if (this.dissector !== null) this.guarded((dissector) => { dissector.gap(direction, offset, length, time) })
    else this.settle() // the beginning is missing: nobody can tell what it was
  }

  end(direction: Direction, time: bigint): void {
    this.now = time
    if (this.dissector !== null) this.guarded((dissector) => { dissector.end(direction, time) })
  }

  close(time: bigint): void {
    this.now = time
    this.settle()
    if (this.dissector !== null) this.guarded((dissector) => { dissector.close(time) })
    this.dissector = this.failed ? null : this.dissector
    this.budget.set(this, 0)
  }

  derail(reason: string): void {
    this.fail(reason)
  }

  findings(): Findings | null {
    return this.found ?? this.dissector?.findings() ?? null
  }
  private found: Findings | null = null

  /** One line for the list; see FlowRow.info. */
  info(): string {
    const findings = this.findings()
    if (findings !== null) return findings.info
    if (this.seen === 0) return ''
    if (this.preview === null) return `raw: ${String(this.seen)} bytes`
    return `raw: ${String(this.seen)} bytes, ${this.preview.direction === 'up' ? 'client' : 'server'} began “${escapeText(decodeLatin1(this.preview.bytes), 120)}”`
  }

  private glimpse(direction: Direction, bytes: Uint8Array): void {
    if (this.previewEnded) return
    if (this.preview === null) {
      this.preview = { direction, bytes: bytes.slice(0, previewBytes) }
    } else if (this.preview.direction === direction && this.preview.bytes.length < previewBytes && this.kind === null) {
      const both = new Uint8Array(Math.min(previewBytes, this.preview.bytes.length + bytes.length))
      both.set(this.preview.bytes)
      both.set(bytes.subarray(0, both.length - this.preview.bytes.length), this.preview.bytes.length)
      this.preview.bytes = both
    }
  }

  private prefix(direction: Direction, piece: HeldPiece): Uint8Array {
    const before = this.waiting.filter((held) => held.direction === direction)
    const last = piece.direction === direction ? piece.bytes.subarray(0, prefixLimit) : new Uint8Array(0)
    if (before.length === 0) return last
    const whole = new Uint8Array(before.reduce((sum, held) => sum + held.bytes.length, last.length))
    let at = 0
    for (const held of before) {
      whole.set(held.bytes, at)
      at += held.bytes.length
    }
    whole.set(last, at)
    return whole
  }

  private consider(piece: HeldPiece): void {
    const up = this.prefix('up', piece)
    const down = this.prefix('down', piece)
    let undecided = false
    for (const kind of this.kinds) {
      const bid = kind.bid(up, down)
      if (bid === 'more') undecided = true
      if (bid !== 'mine') continue
      this.kind = kind.protocol
      this.decided = true
      this.dissector = kind.make(this.context)
      const pieces = [...this.waiting, piece]
      this.waiting = []
      for (const held of pieces) this.guarded((dissector) => { dissector.data(held.direction, held.offset, held.bytes, held.time) })
      return
    }
    this.waitingLength[piece.direction] += piece.bytes.length
    if (!undecided || this.waitingLength[piece.direction] > prefixLimit || this.waiting.length >= 256) {
      this.settle()
      return
    }
    this.waiting.push({ ...piece, bytes: piece.bytes.slice() })
    this.budget.set(this, this.waitingLength.up + this.waitingLength.down)
  }

  /** Raw it is, unless somebody took it before. */
  private settle(): void {
    if (this.decided) return
    this.decided = true
    this.waiting = []
    this.budget.set(this, 0)
  }

  private guarded(step: (dissector: Dissector) => void): void {
    const dissector = this.dissector
    if (dissector === null || this.failed) return
    try {
      step(dissector)
      this.budget.set(this, dissector.held())
    } catch (error) {
      this.fail(error instanceof Error ? error.message : String(error))
    }
  }

  private fail(reason: string): void {
    if (this.failed) return
    const dissector = this.dissector
    this.decided = true
    this.waiting = []
    this.failed = true
    this.error = reason
    this.budget.set(this, 0)
    if (dissector === null) return
    try {
      dissector.close(this.now)
    } catch {
      // It has said why already.
    }
    this.found = dissector.findings()
    this.dissector = null
  }
}
