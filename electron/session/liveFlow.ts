import { decodeDns } from './decodeDns.ts'
import { openInitial } from './openInitial.ts'
import { ChunkPacker } from './store/chunkCodec.ts'
import type { IndexStore } from './store/indexStore.ts'
import type { FactOf } from '#core/capture/facts.ts'
import type { DatagramFindings } from '#core/dissect/datagram.ts'
import type { ExchangeSink, Findings, Part } from '#core/dissect/dissector.ts'
import { DatagramDissection } from '#core/dissect/datagramDissection.ts'
import { FlowDissection } from '#core/dissect/flowDissection.ts'
import type { HeadBudget } from '#core/dissect/headBudget.ts'
import { formatTarget } from '#core/plan/handOver.ts'
import { escapeText } from '#core/flow/escapeText.ts'
import type { ClosedBy, Direction, Endpoint, FlowDetails, FlowRow, FlowState, HttpExchange, ProcessInfo, StreamPiece, TcpLeg } from '#core/flow/flow.ts'

const infoLimit = 300
const decoders = { dns: decodeDns, openInitial }

function legOf({ rtt, minRtt, retransmits, mss }: NonNullable<FactOf<'close'>['clientLeg']>): TcpLeg {
  return { rtt, ...(minRtt === undefined ? {} : { minRtt }), retransmits, mss }
}

const gapLimit = 10_000

/** A flow that is open: all the state there is of it, until its close is written and it is forgotten. */
export class LiveFlow implements ExchangeSink {
  readonly id: number
  private readonly open: FactOf<'open'>
  private readonly store: IndexStore
  private readonly dissection: FlowDissection | DatagramDissection
  private process: ProcessInfo | undefined
  private upstream: Endpoint | undefined
  private via: string | undefined
  private legs: FlowDetails['legs']
  private readonly firsts: { connectedAt?: string; firstUpAt?: string; firstDownAt?: string } = {}
  /** Bytes of each direction so far, lost ones counted. */
  private readonly bytes: Record<Direction, number> = { up: 0, down: 0 }
  /** Of UDP, lost ones counted. */
  private readonly datagrams: Record<Direction, number> = { up: 0, down: 0 }
  private dropped: { readonly up: number; readonly down: number } | undefined
  private lost = 0
  private gapCount = 0
  private readonly packer = new ChunkPacker()
  private packStart = { position: 0, up: 0, down: 0 }
  private readonly exchanges = new Map<number, HttpExchange>()
  private readonly written = new Set<number>()
  private lastTime: bigint
  private state: FlowState = 'live'
  private closedBy: ClosedBy = 'none'
  private endedAt: bigint | undefined

  constructor(open: FactOf<'open'>, store: IndexStore, budget: HeadBudget) {
    this.id = open.id
    this.open = open
    this.store = store
    this.lastTime = BigInt(open.time)
    this.dissection = open.proto === 'udp' ? new DatagramDissection({ server: open.server, decoders }, budget) : new FlowDissection({ server: open.server, sink: this }, budget)
  }

  /** For the session's sums. */
  get totals(): { readonly up: number; readonly down: number; readonly lost: number } {
    return { ...this.bytes, lost: this.lost }
  }

  setProcess(fact: FactOf<'process'>): void {
    const { pid, ppid, name, path, cmdline, uid, user } = fact
    this.process = { pid, ppid, name, path, cmdline, uid, user }
  }

  setConnected(fact: FactOf<'connected'>): void {
    this.upstream = fact.upstream
    this.firsts.connectedAt = fact.time
  }

  setHanded({ via }: FactOf<'handed'>): void {
    const { kind } = via
    if (kind === 'tproxy' && 'port' in via) this.via = formatTarget({ kind, port: via.port })
    if (kind === 'socks5' || kind === 'proxy-v2') this.via = escapeText(formatTarget('path' in via ? { kind: 'proxy-v2', path: via.path } : { kind, address: via.address, port: via.port }), infoLimit)
  }

  /** An open fact said again in a new segment, or the first one heard: bytes that went by before it are not in what was read. */
  resume({ bytesUp = 0, bytesDown = 0 }: FactOf<'open'>): void {
    if (bytesUp > this.bytes.up) this.gap('up', bytesUp - this.bytes.up, 'dropped', this.lastTime)
    if (bytesDown > this.bytes.down) this.gap('down', bytesDown - this.bytes.down, 'dropped', this.lastTime)
  }

  /** A datagram, which may be empty. */
  datagram(direction: Direction, payload: Uint8Array, fileOffset: number, time: bigint): void {
    if (!(this.dissection instanceof DatagramDissection)) return
    this.lastTime = time
    if (this.datagrams[direction] === 0) this.firsts[direction === 'up' ? 'firstUpAt' : 'firstDownAt'] = String(time)
    this.datagrams[direction]++
    this.chunk(direction, payload.length, fileOffset, time)
    this.dissection.datagram(direction, payload, time)
  }

  /** A data segment. What was seen before is passed over; what the sequence number leaps over is a gap nobody stated. */
  data(direction: Direction, sequence: number, payload: Uint8Array, fileOffset: number, time: bigint): void {
    if (this.dissection instanceof DatagramDissection) return
    this.lastTime = time
    // Data begins at sequence number 1; `ahead` is right as long as no gap but a stated one is 2 GiB or longer.
    const ahead = (sequence - 1 - (this.bytes[direction] % 0x1_0000_0000)) | 0
    if (ahead > 0) this.gap(direction, ahead, 'unrecorded', time)
    const skip = ahead < 0 ? Math.min(-ahead, payload.length) : 0
    const fresh = payload.subarray(skip)
    if (fresh.length === 0) return
    const offset = this.bytes[direction]
    if (offset === 0) this.firsts[direction === 'up' ? 'firstUpAt' : 'firstDownAt'] = String(time)
    this.chunk(direction, fresh.length, fileOffset + skip, time)
    this.dissection.data(direction, offset, fresh, time)
  }

  /** `datagrams`: how many they were, of UDP; they may have been empty. */
  gap(direction: Direction, length: number, reason: string, time: bigint, datagrams = 0): void {
    if (this.dissection instanceof DatagramDissection) {
      this.datagrams[direction] += datagrams
      this.dissection.missed(datagrams, length)
    }
    if (length === 0 || !Number.isSafeInteger(this.bytes.up + this.bytes.down + length)) return
    this.lastTime = time
    const offset = this.bytes[direction]
    this.lost += length
    if (this.gapCount < gapLimit) this.store.putGap(this.id, this.gapCount++, { direction, offset, bytes: length, reason })
    this.chunk(direction, length, -1, time)
    if (this.dissection instanceof FlowDissection) this.dissection.gap(direction, offset, length, time)
  }

  end(direction: Direction, time: bigint): void {
    this.lastTime = time
    if (this.dissection instanceof FlowDissection) this.dissection.end(direction, time)
  }

  /** `close` undefined: the record ended before the flow did. */
  close(close: FactOf<'close'> | undefined): void {
    const time = close === undefined ? this.lastTime : BigInt(close.time)
    if (close !== undefined) {
      for (const [direction, said] of [['up', close.bytesUp], ['down', close.bytesDown]] as const) {
        if (said > this.bytes[direction]) this.gap(direction, said - this.bytes[direction], 'unrecorded', time)
      }
      for (const [direction, said] of [['up', close.datagramsUp], ['down', close.datagramsDown]] as const) {
        if (said !== undefined && said > this.datagrams[direction]) this.datagrams[direction] = said
      }
      if (close.lostUp !== undefined || close.lostDown !== undefined) this.dropped = { up: close.lostUp ?? 0, down: close.lostDown ?? 0 }
    }
    if (close?.clientLeg !== undefined || close?.serverLeg !== undefined) {
      this.legs = { ...(close.clientLeg === undefined ? {} : { client: legOf(close.clientLeg) }), ...(close.serverLeg === undefined ? {} : { server: legOf(close.serverLeg) }) }
    }
    this.state = close?.reason ?? 'unfinished'
    this.closedBy = close?.closedBy ?? 'none'
    this.endedAt = time
    this.dissection.close(time)
  }

  /** Writes whatever changed since the last time; after `close` that is the last word. */
  write(): void {
    if (this.packer.count > 0) this.writeChunks()
    const open = [...this.exchanges.values()]
    for (const [index, exchange] of open.entries()) {
      // Only the oldest open ones and the newest can have grown since.
      if (index > 3 && index < open.length - 1 && this.written.has(exchange.index)) continue
      this.written.add(exchange.index)
      this.store.putExchange(this.id, exchange)
    }
    const { process, upstream, via, legs, firsts, dissection, dropped } = this
    const dns = dissection instanceof DatagramDissection ? dissection.transactions() : []
    this.store.putFlow(this.row(), {
      ...(process === undefined ? {} : { process }), ...(upstream === undefined ? {} : { upstream }), ...(via === undefined ? {} : { via }), ...(legs === undefined ? {} : { legs }), ...firsts,
      ...(dns.length === 0 ? {} : { dns }), ...(dropped === undefined ? {} : { datagramsDropped: dropped }),
      ...(dissection.error === undefined ? {} : { decodeError: escapeText(dissection.error, infoLimit) }),
    })
  }

  exchange(exchange: HttpExchange, done: boolean): void {
    if (!done) {
      this.exchanges.set(exchange.index, exchange)
      return
    }
    this.exchanges.delete(exchange.index)
    this.written.delete(exchange.index)
    this.store.putExchange(this.id, exchange)
  }

  pieces(index: number, part: Part, bodyOffset: number, pieces: readonly StreamPiece[]): void {
    this.store.putPieces(this.id, index, part, bodyOffset, pieces)
  }

  private chunk(direction: Direction, length: number, fileOffset: number, time: bigint): void {
    if (this.packer.count === 0) this.packStart = { position: this.bytes.up + this.bytes.down, ...this.bytes }
    this.bytes[direction] += length
    if (!this.packer.add({ direction, length, fileOffset, time })) return
    this.writeChunks()
    this.packer.clear()
  }

  private writeChunks(): void {
    const { position, up, down } = this.packStart
    this.store.putChunks(this.id, position, up, down, this.packer.packed())
  }

  private row(): FlowRow {
    const { open, process, dissection, endedAt } = this
    const findings: Partial<Findings & DatagramFindings> | null = dissection.findings()
    return {
      id: this.id, transport: open.proto, protocol: dissection.protocol, scope: open.scope, client: open.client, server: open.server,
      ...(findings?.name === undefined ? {} : { name: findings.name }),
      ...(process === undefined ? {} : { process: { pid: process.pid, name: escapeText(process.name, 64), user: escapeText(process.user, 64) } }),
      startedAt: open.time,
      ...(endedAt === undefined ? {} : { endedAt: String(endedAt) }),
      state: this.state, closedBy: this.closedBy, bytesUp: this.bytes.up, bytesDown: this.bytes.down,
      ...(open.proto === 'udp' ? { datagramsUp: this.datagrams.up, datagramsDown: this.datagrams.down } : {}), bytesLost: this.lost,
      info: this.info(),
      ...(findings?.http === undefined ? {} : { http: findings.http }),
      ...(findings?.tls === undefined ? {} : { tls: findings.tls }),
      ...(findings?.dns === undefined ? {} : { dns: findings.dns }),
      ...(findings?.quic === undefined ? {} : { quic: findings.quic }),
      undecodable: dissection.undecodable,
    }
  }

  private info(): string {
    const byGate = this.open.proto === 'udp' && this.state === 'refused' && this.closedBy === 'gate'
    const text = this.dissection.info() + (byGate ? ', refused by the gate' : '')
    if (text !== '') return text.length > infoLimit ? `${text.slice(0, infoLimit - 1)}…` : text
    if (this.open.proto === 'udp') return 'no datagram'
    switch (this.state) {
      case 'live': return this.upstream === undefined ? 'connecting' : 'no data yet'
      case 'refused': return 'connection refused'
      case 'unreachable': return 'server unreachable'
      case 'timed-out': return 'no answer to the connection'
      case 'shed': return 'turned away: too many flows'
      default: return 'no data'
    }
  }
}
