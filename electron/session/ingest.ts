import type { CaptureFiles } from './captureFiles.ts'
import { LiveFlow } from './liveFlow.ts'
import type { IndexStore } from './store/indexStore.ts'
import { FlowFollower } from '#core/capture/followFlows.ts'
import { tcpFlags } from '#core/capture/pcapngFormat.ts'
import type { CaptureBlock } from '#core/capture/readBlocks.ts'
import { BlockReader, CaptureDamaged } from '#core/capture/readBlocks.ts'
import type { Fact } from '#core/capture/facts.ts'
import { HeadBudget } from '#core/dissect/headBudget.ts'

const pieceSize = 256 * 1024
/** Rows queued before they are written within a step. */
const queueLimit = 400

export interface IngestTotals {
  readonly flows: number
  readonly live: number
  readonly bytesUp: number
  readonly bytesDown: number
  readonly bytesLost: number
}

export interface SegmentsDropped {
  readonly first: number
  readonly last: number
  readonly bytes: number
}

/** Reads a capture into an index, a bounded step at a time. Holds state of live flows only. */
export class CaptureIngest {
  private readonly files: CaptureFiles
  private readonly store: IndexStore
  private blocks = new BlockReader()
  private readonly follower = new FlowFollower()
  private readonly live = new Map<number, LiveFlow>()
  private readonly dirty = new Set<LiveFlow>()
  private readonly budget = new HeadBudget()
  private readonly piece = new Uint8Array(pieceSize)
  private lastId = 0
  private flows = 0
  private readonly closedSums = { up: 0, down: 0, lost: 0 }
  private changedIds = new Set<number>()
  /** Why nothing more is read, if it is so. */
  damage: string | undefined
  /** A segment that another follows ends in the middle of a block; its number. */
  cutSegment: number | undefined
  /** What the record says was deleted of it. */
  dropped: SegmentsDropped | undefined

  constructor(files: CaptureFiles, store: IndexStore) {
    this.files = files
    this.store = store
  }

  /** Bytes of the capture taken in; what is beyond lies in a block that is not whole. */
  get offset(): number {
    return this.blocks.offset
  }
  /** Bytes of the capture read, a begun block with them. */
  get read(): number {
    return this.files.position
  }
  get pending(): number {
    return this.blocks.pending
  }

  totals(): IngestTotals {
    const sums = { ...this.closedSums }
    for (const flow of this.live.values()) {
      const { up, down, lost } = flow.totals
      sums.up += up
      sums.down += down
      sums.lost += lost
    }
    return { flows: this.flows, live: this.live.size, bytesUp: sums.up, bytesDown: sums.down, bytesLost: sums.lost }
  }

  /** Works until `deadline` (of performance.now()) at most. True: there is nothing more to read now. */
  step(deadline: number): boolean {
    if (this.damage !== undefined) return true
    try {
      for (;;) {
        for (let block = this.blocks.next(); block !== null; block = this.blocks.next()) {
          this.take(block)
          if (this.store.queued >= queueLimit) this.store.flush()
          if (performance.now() >= deadline) return false
        }
        const read = this.files.read(this.piece)
        if (read > 0) {
          this.blocks.push(this.piece.subarray(0, read))
          continue
        }
        const what = this.files.advance()
        if (what === 'dry') return true
        if (what === 'next') this.nextSegment()
      }
    } catch (error) {
      if (!(error instanceof CaptureDamaged)) throw error
      this.damage = error.message
      return true
    }
  }

  /** Writes what changed; the ids of the flows it was. */
  flush(): Set<number> {
    for (const flow of this.dirty) flow.write()
    this.dirty.clear()
    this.store.flush()
    const changed = this.changedIds
    this.changedIds = new Set()
    return changed
  }

  get hasChanges(): boolean {
    return this.changedIds.size > 0
  }

  /** Nothing more will come: flows still open are unfinished. */
  finish(): void {
    for (const flow of this.live.values()) this.close(flow, undefined)
  }

  private nextSegment(): void {
    const [before] = this.files.segments.slice(-2)
    if (this.blocks.pending > 0) this.cutSegment = before?.number
    this.blocks = new BlockReader(this.files.position, true)
  }

  private take(block: CaptureBlock): void {
    const followed = this.follower.follow(block)
    if (followed.kind === 'packet') {
      const flow = this.live.get(followed.flow)
      if (flow === undefined) return
      const { packet, direction } = followed
      if (packet.transport === 'udp') {
        flow.datagram(direction, packet.payload, packet.payloadOffset, packet.time)
        this.touch(flow)
        return
      }
      if (packet.payload.length > 0 && (packet.flags & tcpFlags.syn) === 0) {
        flow.data(direction, packet.sequence, packet.payload, packet.payloadOffset, packet.time)
        this.touch(flow)
      }
      if ((packet.flags & tcpFlags.fin) !== 0) flow.end(direction, packet.time)
    } else if (followed.kind === 'fact') {
      this.takeFact(followed.fact)
    }
  }

  private takeFact(fact: Fact): void {
    if (fact.t === 'session') return
    if (fact.t === 'dropped') {
      this.dropped = { first: fact.first, last: fact.last, bytes: fact.bytes }
      return
    }
    if (fact.t === 'open') {
      const open = this.live.get(fact.id)
      if (open !== undefined && fact.again === true) {
        // Goes on in a new segment; what lies between what was read and this was in segments that went before they could be.
        open.resume(fact)
        return
      }
      // Ids mostly rise, as several threads write; one that was there before must not overwrite a flow that has ended.
      if (fact.id <= this.lastId && this.isKnown(fact.id)) return
      this.lastId = Math.max(this.lastId, fact.id)
      this.flows++
      const flow = new LiveFlow(fact, this.store, this.budget)
      this.live.set(fact.id, flow)
      flow.resume(fact)
      this.touch(flow)
      return
    }
    const flow = this.live.get(fact.id)
    if (flow === undefined) return
    if (fact.t === 'process') flow.setProcess(fact)
    else if (fact.t === 'connected') flow.setConnected(fact)
    else if (fact.t === 'handed') flow.setHanded(fact)
    else if (fact.t === 'gap') flow.gap(fact.direction, fact.bytes, fact.reason, BigInt(fact.time), fact.datagrams)
    else {
      this.close(flow, fact)
      return
    }
    this.touch(flow)
  }

  private isKnown(id: number): boolean {
    if (this.live.has(id)) return true
    this.store.flush()
    return this.store.row(id) !== undefined
  }

  private touch(flow: LiveFlow): void {
    this.dirty.add(flow)
    this.changedIds.add(flow.id)
  }

  private close(flow: LiveFlow, fact: Extract<Fact, { t: 'close' }> | undefined): void {
    flow.close(fact)
    flow.write()
    const { up, down, lost } = flow.totals
    this.closedSums.up += up
    this.closedSums.down += down
    this.closedSums.lost += lost
    this.live.delete(flow.id)
    this.dirty.delete(flow)
    this.changedIds.add(flow.id)
  }
}
