import { counted } from './exportSteps.ts'
import type { ExportSteps, ExportWish } from './exportSteps.ts'
import type { SessionReader } from './sessionReader.ts'
import { fillChecksum } from '../capture/encodePacket.ts'
import { FlowFollower } from '../capture/followFlows.ts'
import { blockTypes } from '../capture/pcapngFormat.ts'
import { BlockReader, CaptureDamaged } from '../capture/readBlocks.ts'
import type { CaptureBlock } from '../capture/readBlocks.ts'

/** Pieces are gathered to about this size. */
const pieceSize = 256 * 1024

/** Ids of chosen flows; a bit each, as there may be millions. */
class FlowSet {
  private bits = new Uint32Array(1024)
  size = 0
  add(flow: number): void {
    const word = Math.floor(flow / 32)
    if (word >= this.bits.length) {
      const larger = new Uint32Array(Math.max(word + 1, this.bits.length * 2))
      larger.set(this.bits)
      this.bits = larger
    }
    this.bits[word] = (this.bits[word] as number) | (1 << (flow & 31))
    this.size++
  }
  has(flow: number): boolean {
    return (((this.bits[Math.floor(flow / 32)] ?? 0) >>> (flow & 31)) & 1) === 1
  }
}

class Gatherer {
  private buffer = new Uint8Array(pieceSize * 2)
  private used = 0
  /** Copies a block and returns where it now lies, for changes in place. */
  add(bytes: Uint8Array): Uint8Array {
    if (this.used + bytes.length > this.buffer.length) {
      const larger = new Uint8Array(Math.max(this.buffer.length * 2, this.used + bytes.length))
      larger.set(this.buffer.subarray(0, this.used))
      this.buffer = larger
    }
    this.buffer.set(bytes, this.used)
    const copy = this.buffer.subarray(this.used, this.used + bytes.length)
    this.used += bytes.length
    return copy
  }
  get full(): boolean {
    return this.used >= pieceSize
  }
  take(): Uint8Array {
    const piece = this.buffer.subarray(0, this.used)
    this.used = 0
    return piece
  }
}

/**
 * A copy of the capture with the blocks of matching flows alone, their facts among them, and every checksum of TCP and UDP filled in (the relay leaves
 * them zero). Its segments become one section: what only repeats an earlier one is left out, and so is padding. What stops in the middle of a block stops there.
 */
export function* exportPcapng(reader: SessionReader, wish: ExportWish): ExportSteps {
  const notes: string[] = []
  const all = wish.filter.trim() === ''
  const chosen = new FlowSet()
  if (!all) for (const row of reader.flows(wish.filter)) chosen.add(row.id)
  const blocks = new BlockReader()
  const follower = new FlowFollower()
  const out = new Gatherer()
  const { size: of } = reader.summary()
  /** Block types of which one section has one: those that were seen. */
  const heads = new Set<number>()
  let dropped = 0
  let packets = 0
  let flows = 0
  let done = 0

  const keep = (block: CaptureBlock): boolean => {
    if (block.type === blockTypes.sectionHeader || block.type === blockTypes.interfaceDescription) {
      if (heads.has(block.type)) return false
      heads.add(block.type)
      return true
    }
    if (block.type === blockTypes.padding) return false
    const followed = follower.follow(block)
    if (followed.kind === 'other') {
      // Close of a flow whose open was refused, foreign blocks: only in a whole copy.
      return all
    }
    if (followed.kind === 'fact') {
      const { fact } = followed
      if (fact.t === 'session') {
        const first = !heads.has(blockTypes.custom)
        heads.add(blockTypes.custom)
        return first
      }
      if (fact.t === 'dropped') {
        dropped = fact.last
        return true
      }
      if (followed.repeated) return false
      const wanted = all || chosen.has(fact.id)
      if (fact.t === 'open' && wanted) flows++
      return wanted
    }
    if (followed.kind === 'process-note' && followed.repeated) return false
    return all || chosen.has(followed.flow)
  }

  try {
    for (const piece of reader.captureBytes()) {
      blocks.push(piece)
      done += piece.length
      for (let block = blocks.next(); block !== null; block = blocks.next()) {
        if (!keep(block)) continue
        const copy = out.add(block.bytes)
        if (block.type === blockTypes.enhancedPacket) {
          packets++
          fillBlockChecksum(copy)
        }
        if (out.full) yield out.take()
      }
      wish.onProgress?.(Math.min(done, of), of)
    }
  } catch (error) {
    if (!(error instanceof CaptureDamaged)) throw error
    notes.push(`${error.message}; what lies behind is left out`)
  }
  if (blocks.pending > 0 && notes.length === 0) notes.push(`the record ends in the middle of a block: its last ${counted(blocks.pending, 'byte')} are left out`)
  yield out.take()
  const { bytesLost } = reader.summary()
  if (dropped > 0) notes.push(`the oldest ${counted(dropped, 'segment')} of the record went to keep the budget: flows of that time are missing or begin later`)
  if (bytesLost > 0) notes.push('some bytes were relayed without being recorded; Wireshark calls them "previous segment not captured", and their count stands in the gap facts')
  return { flows, entries: packets, notes }
}

/** The packet of a whole Enhanced Packet Block, in place. */
function fillBlockChecksum(block: Uint8Array): void {
  const view = new DataView(block.buffer, block.byteOffset, block.length)
  if (block.length < 32) return
  const captured = view.getUint32(20, true)
  if (captured <= block.length - 32) fillChecksum(block.subarray(28, 28 + captured))
}
