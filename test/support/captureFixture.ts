import { parseAddress } from '#core/capture/addresses.ts'
import { encodeFact, encodeInterface, encodePacketBlock, encodeProcessBlock, encodeSectionHeader } from '#core/capture/encodeBlocks.ts'
import { encodeDatagram, encodePacket } from '#core/capture/encodePacket.ts'
import type { Fact, GapReason } from '#core/capture/facts.ts'
import { payloadLimit, tcpFlags } from '#core/capture/pcapngFormat.ts'
import { encodeUtf8 } from '#core/capture/utf8.ts'
import type { ClosedBy, CloseReason, Direction, Endpoint, ProcessInfo } from '#core/flow/flow.ts'

export interface FlowWish {
  readonly transport?: 'tcp' | 'udp'
  /** Chosen when left out: 1, 2, 3 … */
  readonly id?: number
  readonly scope?: 'local' | 'forwarded'
  readonly client?: Endpoint
  readonly server?: Endpoint
}
interface FixtureFlow {
  /** Facts to be said again in a new segment. */
  readonly facts: Exclude<Fact, { t: 'session' | 'dropped' | 'gap' | 'close' }>[]
  stated: number
  readonly transport: 'tcp' | 'udp'
  readonly datagrams: Record<Direction, number>
  readonly client: Endpoint
  readonly server: Endpoint
  readonly sequence: Record<Direction, number>
  readonly bytes: Record<Direction, number>
}

/**
 * Writes a capture in the layout of the live one (ARCHITECTURE.md, "The capture"). Time is a clock of its own: it starts at
 * 2025-11-25T00:00:00Z and every call moves it on by a millisecond; `at` moves it by hand.
 */
export class CaptureFixture {
  private readonly parts: Uint8Array[] = []
  private readonly flows = new Map<number, FixtureFlow>()
  private nextId = 1
  private clock = 1_764_028_800_000_000_000n

  private segment = 0
  private readonly payload: boolean

  constructor(payload = true) {
    this.payload = payload
    this.beginSegment()
  }

  private beginSegment(): void {
    this.segment++
    this.parts.push(encodeSectionHeader('Sluice 0.1.0', 'Linux'), encodeInterface())
    this.parts.push(encodeFact({ t: 'session', version: 1, relay: '0.1.0', payload: this.payload, segment: this.segment }))
  }

  /** Ends the segment and begins the next, as the relay does: flows that go on are stated again before their next block. Returns the one that ended. */
  cut(): Uint8Array {
    const ended = this.take()
    this.beginSegment()
    return ended
  }

  /** Says that segments up to `last` are gone. */
  dropped(last: number, bytes: number): this {
    this.parts.push(encodeFact({ t: 'dropped', first: 1, last, bytes, time: String(this.tick()) }))
    return this
  }

  private fact(id: number, fact: FixtureFlow['facts'][number]): void {
    this.state(id)
    this.flow(id).facts.push(fact)
    this.parts.push(encodeFact(fact))
  }

  private state(id: number): void {
    const flow = this.flow(id)
    if (flow.stated === this.segment) return
    flow.stated = this.segment
    for (const fact of flow.facts) {
      this.parts.push(encodeFact({ ...fact, again: true, ...(fact.t === 'open' ? { bytesUp: flow.bytes.up, bytesDown: flow.bytes.down } : {}) }))
    }
  }

  /** Sets the clock, nanoseconds since the epoch. */
  at(time: bigint): this {
    this.clock = time
    return this
  }

  private tick(): bigint {
    this.clock += 1_000_000n
    return this.clock
  }

  private packet(id: number, direction: Direction, flags: number, payload: Uint8Array, time: bigint): void {
    this.state(id)
    const flow = this.flow(id)
    const up = direction === 'up'
    const [from, to] = up ? [flow.client, flow.server] : [flow.server, flow.client]
    const packet = encodePacket(
      {
        from: parseAddress(from.address)!, fromPort: from.port, to: parseAddress(to.address)!, toPort: to.port, flags, payload,
        sequence: flow.sequence[direction], acknowledgement: (flags & tcpFlags.ack) === 0 ? 0 : flow.sequence[up ? 'down' : 'up'],
      },
      false,
    )
    this.parts.push(encodePacketBlock(packet, time, direction))
    const counted = (flags & (tcpFlags.syn | tcpFlags.fin)) === 0 ? 0 : 1
    flow.sequence[direction] = (flow.sequence[direction] + payload.length + counted) >>> 0
  }

  private flow(id: number): FixtureFlow {
    const flow = this.flows.get(id)
    if (flow === undefined) throw new Error(`no flow ${String(id)} in this fixture`)
    return flow
  }

  /** The open fact and the SYN; returns the flow's id. */
  opened(wish: FlowWish = {}): number {
    const id = wish.id ?? this.nextId
    this.nextId = Math.max(this.nextId, id + 1)
    const client = wish.client ?? { address: '198.51.100.2', port: 40_000 + (id % 20_000) }
    const server = wish.server ?? { address: '203.0.113.2', port: 80 }
    const transport = wish.transport ?? 'tcp'
    this.flows.set(id, { transport, datagrams: { up: 0, down: 0 }, client, server, sequence: { up: 0, down: 0 }, bytes: { up: 0, down: 0 }, facts: [], stated: this.segment })
    const time = this.tick()
    this.fact(id, { t: 'open', id, proto: transport, scope: wish.scope ?? 'local', client, server, time: String(time) })
    if (transport === 'tcp') this.packet(id, 'up', tcpFlags.syn, new Uint8Array(0), time)
    return id
  }

  process(id: number, process: Partial<ProcessInfo> = {}): this {
    const whole = { pid: 4242, ppid: 1, name: 'curl', path: '/usr/bin/curl', cmdline: ['curl', 'http://example.test/'], uid: 1000, user: 'dev', ...process }
    this.fact(id, { t: 'process', id, ...whole, cmdline: [...whole.cmdline], time: String(this.tick()) })
    this.parts.push(encodeProcessBlock(whole))
    return this
  }

  /** The connected fact, SYN/ACK and ACK. */
  connected(id: number, upstream: Endpoint = { address: '198.51.100.2', port: 50_001 }): this {
    const time = this.tick()
    this.fact(id, { t: 'connected', id, upstream, time: String(time) })
    if (this.flow(id).transport === 'udp') return this
    this.packet(id, 'down', tcpFlags.syn | tcpFlags.ack, new Uint8Array(0), time)
    this.packet(id, 'up', tcpFlags.ack, new Uint8Array(0), time)
    return this
  }

  data(id: number, direction: Direction, bytes: Uint8Array | string): this {
    const whole = typeof bytes === 'string' ? encodeUtf8(bytes) : bytes
    const time = this.tick()
    for (let at = 0; at < whole.length; at += payloadLimit) {
      this.packet(id, direction, tcpFlags.psh | tcpFlags.ack, whole.subarray(at, at + payloadLimit), time)
    }
    this.flow(id).bytes[direction] += whole.length
    return this
  }

  /** One datagram of a flow of UDP. */
  datagram(id: number, direction: Direction, bytes: Uint8Array | string): this {
    const payload = typeof bytes === 'string' ? encodeUtf8(bytes) : bytes
    this.state(id)
    const flow = this.flow(id)
    const [from, to] = direction === 'up' ? [flow.client, flow.server] : [flow.server, flow.client]
    const packet = encodeDatagram({ from: parseAddress(from.address)!, fromPort: from.port, to: parseAddress(to.address)!, toPort: to.port, payload }, false)
    this.parts.push(encodePacketBlock(packet, this.tick(), direction))
    flow.bytes[direction] += payload.length
    flow.datagrams[direction]++
    return this
  }

  /** `datagrams`: of a flow of UDP. */
  gap(id: number, direction: Direction, bytes: number, reason: GapReason = 'slow', datagrams?: number): this {
    this.state(id)
    const flow = this.flow(id)
    this.parts.push(encodeFact({ t: 'gap', id, direction, bytes, reason, time: String(this.tick()), ...(datagrams === undefined ? {} : { datagrams }) }))
    flow.datagrams[direction] += datagrams ?? 0
    flow.sequence[direction] = Number((BigInt(flow.sequence[direction]) + BigInt(bytes)) & 0xffff_ffffn)
    flow.bytes[direction] += bytes
    return this
  }

  /** FIN of that direction. */
  finished(id: number, direction: Direction): this {
    this.packet(id, direction, tcpFlags.fin | tcpFlags.ack, new Uint8Array(0), this.tick())
    return this
  }

  /** RST where the reason is one, then the close fact. */
  closed(id: number, reason: CloseReason = 'finished', closedBy: ClosedBy = reason === 'finished' ? 'client' : 'none', more: Readonly<Record<string, unknown>> = {}): this {
    this.state(id)
    const flow = this.flow(id)
    const time = this.tick()
    if (flow.transport === 'udp') {
      this.parts.push(encodeFact({ t: 'close', id, time: String(time), reason, closedBy, bytesUp: flow.bytes.up, bytesDown: flow.bytes.down, datagramsUp: flow.datagrams.up, datagramsDown: flow.datagrams.down }))
      this.flows.delete(id)
      return this
    }
    if (reason === 'client-reset') this.packet(id, 'up', tcpFlags.rst | tcpFlags.ack, new Uint8Array(0), time)
    else if (reason !== 'finished') this.packet(id, 'down', tcpFlags.rst | tcpFlags.ack, new Uint8Array(0), time)
    this.parts.push(encodeFact({ t: 'close', id, time: String(time), reason, closedBy, bytesUp: flow.bytes.up, bytesDown: flow.bytes.down, ...more }))
    this.flows.delete(id)
    return this
  }

  /** A whole block of the test's own making. */
  block(bytes: Uint8Array): this {
    this.parts.push(bytes)
    return this
  }

  /** Everything since the start, or since the last `take()`. */
  bytes(): Uint8Array {
    const whole = new Uint8Array(this.parts.reduce((sum, part) => sum + part.length, 0))
    let at = 0
    for (const part of this.parts) {
      whole.set(part, at)
      at += part.length
    }
    return whole
  }

  /** As `bytes()`, and forgets them: for captures that grow. */
  take(): Uint8Array {
    const whole = this.bytes()
    this.parts.length = 0
    return whole
  }

  /** A whole flow with one request and its answer. Returns its id. */
  exchange(request: string | Uint8Array, response: string | Uint8Array, wish: FlowWish = {}): number {
    const id = this.opened(wish)
    this.connected(id).data(id, 'up', request).data(id, 'down', response).finished(id, 'up').finished(id, 'down').closed(id)
    return id
  }
}

export function buildCapture(payload = true): CaptureFixture {
  return new CaptureFixture(payload)
}
