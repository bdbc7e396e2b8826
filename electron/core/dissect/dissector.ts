import type { Direction, Endpoint, FlowProtocol, HttpExchange, StreamPiece, TlsFacts } from '../flow/flow.ts'

/**
 * Dissectors turn the two byte streams of a flow into messages, without any I/O: bytes in, values out. They see hostile bytes, so
 * whatever they hold is bounded and everything takes time in proportion to the bytes.
 */
/** `more`: not enough bytes to say, which is normal. */
export type Bid = 'mine' | 'more' | 'no'

/** Thrown by a dissector that cannot go on: the flow is marked undecodable, its raw stream stays. `message` is one line. */
export class Undecodable extends Error {}

export type Part = 'request' | 'response'

/** Where exchanges go: each is handed over when it begins, grows in place, and is handed over once more when it is `done` and stays as it is. */
export interface ExchangeSink {
  exchange(exchange: HttpExchange, done: boolean): void
  /** Further pieces of a body with more than `inlinePieces` of them; `bodyOffset` says where in the body the first lies. */
  pieces(index: number, part: Part, bodyOffset: number, pieces: readonly StreamPiece[]): void
}

/** Pieces a body in FlowDetails bears itself. */
export const inlinePieces = 500
/** Length of the batches in which further ones are handed over. */
export const pieceBatch = 500

export interface DissectContext {
  readonly server: Endpoint
  readonly sink: ExchangeSink
}

/** What a dissector adds to the row. Names are cleaned, texts escaped by it. */
export interface Findings {
  readonly name?: string
  readonly info: string
  readonly http?: { readonly method: string; readonly target: string; readonly status?: number; readonly exchanges: number }
  readonly tls?: TlsFacts
}

/** One flow's dissector. Offsets are positions in that direction's stream and leave nothing out: what is missing comes as a `gap`. */
export interface Dissector {
  data(direction: Direction, offset: number, bytes: Uint8Array, time: bigint): void
  gap(direction: Direction, offset: number, length: number, time: bigint): void
  /** That direction has ended in good order. */
  end(direction: Direction, time: bigint): void
  /** Nothing more comes, whatever the reason. Also called on one that threw, to hand over what it had. */
  close(time: bigint): void
  /** Bytes of captured data held in memory now. */
  held(): number
  findings(): Findings | null
}

export interface DissectorKind {
  readonly protocol: FlowProtocol
  /** First bytes of both directions (either may be empty). */
  bid(up: Uint8Array, down: Uint8Array): Bid
  make(context: DissectContext): Dissector
}
