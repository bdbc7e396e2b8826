import type { Scope } from '../plan/plan.ts'

/**
 * The words of the house.
 * flow: one conversation through the gate: a TCP connection, or the datagrams between two sockets of UDP until they fall silent. client: who opened it. server: the original destination (never "src/dst").
 * up: client to server. down: server to client. message: one request or response (or hello) a dissector read out of a flow.
 * record: the capture on disk. gate: the thing that opens and closes. plan: what to intercept.
 * Times are nanoseconds since the epoch; as they exceed 2^53 they travel as decimal strings (`Nanoseconds`) outside the session room.
 */
export type Direction = 'up' | 'down'
export type Nanoseconds = string
export interface Endpoint {
  readonly address: string
  readonly port: number
}
export interface ProcessInfo {
  readonly pid: number
  readonly ppid: number
  readonly name: string
  readonly path: string
  readonly cmdline: readonly string[]
  readonly uid: number
  readonly user: string
}
export const closeReasons = [
  'finished', 'client-reset', 'server-reset', 'refused', 'unreachable', 'timed-out', 'gate-closed', 'shed', 'failed', 'idle',
] as const
export type CloseReason = (typeof closeReasons)[number]
export type ClosedBy = 'client' | 'server' | 'gate' | 'none'
/** `live`: still open. `unfinished`: the recording ended before it did. */
export type FlowState = 'live' | 'unfinished' | CloseReason

/** What the flow turned out to be. */
export type FlowProtocol = 'http' | 'tls' | 'dns' | 'quic' | 'raw' | 'empty'
export type Transport = 'tcp' | 'udp'

/** One row of the flow list: everything a list shows or sorts by, nothing big. */
export interface FlowRow {
  readonly id: number
  readonly transport: Transport
  readonly protocol: FlowProtocol
  readonly scope: Scope
  readonly client: Endpoint
  readonly server: Endpoint
  /** Best known name of the server: SNI of TLS or QUIC, else HTTP Host, else undefined. */
  readonly name?: string
  readonly process?: { readonly pid: number; readonly name: string; readonly user: string }
  readonly startedAt: Nanoseconds
  /** Undefined while live. */
  readonly endedAt?: Nanoseconds
  readonly state: FlowState
  readonly closedBy: ClosedBy
  readonly bytesUp: number
  readonly bytesDown: number
  /** Of UDP flows alone; those whose payload is not in the record are counted. */
  readonly datagramsUp?: number
  readonly datagramsDown?: number
  /** Bytes relayed whose payload is not in the record. */
  readonly bytesLost: number
  /** One line: "GET /index.html → 200 OK (3 requests)", "TLS 1.3 example.test h2", "raw: 12 bytes …". Already free of control characters. */
  readonly info: string
  /** Of the last HTTP exchange, for sorting, colours and the filter. */
  readonly http?: { readonly method: string; readonly target: string; readonly status?: number; readonly exchanges: number }
  readonly tls?: TlsFacts
  /** Of the last question asked, or answered. */
  readonly dns?: { readonly name: string; readonly type: string; readonly rcode?: string; readonly transactions: number }
  readonly quic?: QuicFacts
  /** True when a dissector gave up; the raw stream is still there. */
  readonly undecodable: boolean
}
export interface TlsFacts {
  readonly sni?: string
  /** Offered by the client. */
  readonly alpnOffered: readonly string[]
  /** Chosen by the server, where it can be seen (TLS 1.2 and older). */
  readonly alpn?: string
  /** "TLS 1.3": what the server chose, else the highest the client offered (then `versionOffered` is true). */
  readonly version?: string
  readonly versionOffered: boolean
  readonly cipher?: string
}
/** What a QUIC connection says in the clear, or under keys that anybody can derive (RFC 9001, 5.2). */
export interface QuicFacts {
  /** "QUIC 1", "QUIC 2", "QUIC draft-29", "QUIC 0x1a2a3a4a". */
  readonly version: string
  /** Hexadecimal, of the client's first packet. */
  readonly destinationId: string
  readonly sourceId: string
  readonly sni?: string
  readonly alpnOffered: readonly string[]
  /** The server sent a Retry, or a list of versions it speaks instead. */
  readonly retried?: true
  readonly versionsOffered?: readonly string[]
}
export interface DnsRecord {
  readonly name: string
  readonly type: string
  readonly ttl: number
  /** As zone files write it, as far as that is known; escaped. */
  readonly data: string
}
/** A question and its answer, paired by DNS id and question. */
export interface DnsTransaction {
  readonly id: number
  readonly name: string
  readonly type: string
  /** Absent: an answer nobody was seen to ask for. */
  readonly askedAt?: Nanoseconds
  readonly answeredAt?: Nanoseconds
  /** "NOERROR", "NXDOMAIN", … */
  readonly rcode?: string
  /** Of the answer: aa, tc, rd, ra, ad, cd. */
  readonly flags?: readonly string[]
  /** The answer section's first records; `answerCount` says how many there are. */
  readonly answers: readonly DnsRecord[]
  readonly answerCount: number
}

export interface HttpHeader {
  readonly name: string
  readonly value: string
}
/** Where bytes of a message lie in one direction's stream; a body of chunks is several pieces. */
export interface StreamPiece {
  readonly offset: number
  readonly length: number
}
export interface HttpBody {
  /** Bytes on the wire without chunk framing. */
  readonly length: number
  readonly pieces: readonly StreamPiece[]
  /** The message ended before its body did, or part was not recorded. */
  readonly truncated: boolean
}
export interface HttpRequest {
  readonly method: string
  readonly target: string
  /** Absolute URL as best known: scheme, Host (else server address), target. */
  readonly url: string
  readonly version: string
  readonly headers: readonly HttpHeader[]
  readonly headBytes: number
  readonly body: HttpBody
  readonly startedAt: Nanoseconds
  readonly endedAt?: Nanoseconds
}
export interface HttpResponse {
  readonly status: number
  readonly statusText: string
  readonly version: string
  readonly headers: readonly HttpHeader[]
  readonly headBytes: number
  readonly body: HttpBody
  readonly startedAt: Nanoseconds
  readonly endedAt?: Nanoseconds
}
/** One request with its response, in order of requests. A 1xx stands in `interim`. */
export interface HttpExchange {
  readonly index: number
  readonly request: HttpRequest
  readonly response?: HttpResponse
  readonly interim: readonly number[]
  /** Set when the flow went over to another protocol here (101, CONNECT). */
  readonly upgraded?: string
  readonly error?: string
}
/** Everything about one flow but its bytes. */
/** One of the two TCP connections a relayed flow is made of, as the relay's kernel measured it until its end. */
export interface TcpLeg {
  /** Smoothed round trip, and the shortest lately seen, microseconds. */
  readonly rtt: number
  readonly minRtt?: number
  /** Segments the relay sent again on it. */
  readonly retransmits: number
  /** The largest segment the relay sent on it, bytes. */
  readonly mss: number
}
export interface FlowDetails {
  readonly row: FlowRow
  readonly process?: ProcessInfo
  /** The proxy it was handed to instead of going to its server, as `sluice plan` writes it: "socks5:127.0.0.1:1080". */
  readonly via?: string
  /** Address and port the relay spoke to the server from. */
  readonly upstream?: Endpoint
  /** Known once the flow has ended; a leg that never was has none. */
  readonly legs?: { readonly client?: TcpLeg; readonly server?: TcpLeg }
  readonly connectedAt?: Nanoseconds
  readonly firstUpAt?: Nanoseconds
  readonly firstDownAt?: Nanoseconds
  /** At most `limit` of them; `exchangeCount` says how many there are. */
  readonly exchanges: readonly HttpExchange[]
  readonly exchangeCount: number
  /** The first 200. */
  readonly dns?: readonly DnsTransaction[]
  /** Datagrams that came and were not sent on (too many at once). */
  readonly datagramsDropped?: { readonly up: number; readonly down: number }
  readonly gaps: readonly { readonly direction: Direction; readonly offset: number; readonly bytes: number; readonly reason: string }[]
  /** Why a dissector gave up, if one did. */
  readonly decodeError?: string
}
/** A stretch of one direction's stream in order of arrival; `bytes` base64; a gap has no bytes. Of UDP each is one datagram, whole, an empty one too. */
export interface StreamChunk {
  readonly direction: Direction
  readonly offset: number
  readonly time: Nanoseconds
  readonly length: number
  readonly bytes?: string
}
