import type { Bid } from './dissector.ts'
import type { Direction, DnsTransaction, Endpoint, FlowProtocol, QuicFacts } from '../flow/flow.ts'

/** What a DNS message says, as far as it is shown: bounded, every text escaped. */
export interface DnsMessage {
  readonly id: number
  readonly response: boolean
  readonly rcode: string
  readonly flags: readonly string[]
  readonly questions: readonly { readonly name: string; readonly type: string }[]
  readonly answers: DnsTransaction['answers']
  readonly answerCount: number
}

/** A protected QUIC Initial packet: header up to the packet number, and where that is. */
export interface ProtectedInitial {
  readonly version: number
  /** The client's first one, from which both sides' keys are derived. */
  readonly destinationId: Uint8Array
  readonly packet: Uint8Array
  readonly numberOffset: number
}

/**
 * What needs a library or ciphers, which the core has none of. Handed in by who has. Both take hostile bytes, bounded in time and memory, and
 * say null instead of throwing.
 */
export interface DatagramDecoders {
  dns(bytes: Uint8Array): DnsMessage | null
  /** Frames of an Initial packet the client sent. */
  openInitial(initial: ProtectedInitial): Uint8Array | null
}

export interface DatagramFindings {
  readonly name?: string
  readonly info: string
  readonly dns?: { readonly name: string; readonly type: string; readonly rcode?: string; readonly transactions: number }
  readonly quic?: QuicFacts
}

/** Turns the datagrams of one flow into findings. Each call is one whole datagram; never throws. */
export interface DatagramDissector {
  datagram(direction: Direction, bytes: Uint8Array, time: bigint): void
  /** Bytes of captured data held in memory now. */
  held(): number
  /** Lets go of them. */
  release(): void
  findings(): DatagramFindings | null
  transactions?(): readonly DnsTransaction[]
}

export interface DatagramContext {
  readonly server: Endpoint
  readonly decoders: DatagramDecoders
}

export interface DatagramKind {
  readonly protocol: FlowProtocol
  /** Of the flow's first datagram that is not empty. */
  bid(direction: Direction, bytes: Uint8Array, context: DatagramContext): Exclude<Bid, 'more'>
  make(context: DatagramContext): DatagramDissector
}
