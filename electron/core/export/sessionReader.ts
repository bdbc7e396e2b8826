import type { SessionSummary } from '../contract/inspectorProtocol.ts'
import type { Direction, FlowDetails, FlowRow, HttpExchange } from '../flow/flow.ts'

/** A stretch of a body; `error` in the last one says why there is no more (cut, damaged, too big). */
export interface BodyPart {
  readonly bytes: Uint8Array
  readonly error?: string
}

/**
 * What an export reads a session through. Calls are synchronous and each takes bounded time and memory; between two steps of an
 * iterator the caller may wait as long as it likes (flows that come meanwhile are left out or not, rows are as of the step).
 */
export interface SessionReader {
  summary(): SessionSummary
  /** Matching flows in order of id. Throws Failure 'bad-filter'. */
  flows(filter: string): Iterable<FlowRow>
  countFlows(filter: string): number
  /** With all exchanges; use `exchanges` and a limit of 1 where there may be very many. Throws 'flow-unknown'. */
  details(flow: number, exchangeOffset?: number, exchangeLimit?: number): FlowDetails
  /** All exchanges of a flow, read in pages. */
  exchanges(flow: number): Iterable<HttpExchange>
  /** Recorded bytes of one direction, from `offset`; fewer than asked at a gap, at the end, or after 1 MiB. Empty: a gap or the end. */
  readStream(flow: number, direction: Direction, offset: number, length: number): Uint8Array
  /** A body without chunk framing, in parts of at most 64 KiB; `decoded` undoes gzip, deflate and br (bounded to 64 MiB of result). */
  readBody(flow: number, exchange: number, part: 'request' | 'response', decoded: boolean): Iterable<BodyPart>
  /** The segments of the capture that are there, one behind the other, as far as they are indexed, in pieces (each valid until the next). */
  captureBytes(): Iterable<Uint8Array>
}
