import type { ExchangeSink, Part } from './dissector.ts'
import { inlinePieces, pieceBatch } from './dissector.ts'
import type { HttpBody, HttpExchange, HttpRequest, HttpResponse, StreamPiece } from '../flow/flow.ts'

type Mutable<T> = { -readonly [K in keyof T]: T[K] }
interface BodyDraft extends Mutable<Omit<HttpBody, 'pieces'>> {
  pieces: Mutable<StreamPiece>[]
}
/** An exchange while it is being read; structurally an HttpExchange at any moment. */
export interface ExchangeDraft extends Mutable<Omit<HttpExchange, 'request' | 'response' | 'interim'>> {
  request: Mutable<Omit<HttpRequest, 'body'>> & { body: BodyDraft }
  response?: Mutable<Omit<HttpResponse, 'body'>> & { body: BodyDraft }
  interim: number[]
}

export function emptyBody(): BodyDraft {
  return { length: 0, pieces: [], truncated: false }
}

/** Collects a body's pieces: adjacent ones become one, the first few stay in the exchange, the rest goes to the sink in batches. */
export class BodyPieces {
  private readonly body: BodyDraft
  private readonly index: number
  private readonly part: Part
  private readonly sink: ExchangeSink
  private spill: Mutable<StreamPiece>[] = []
  private spillOffset = 0

  constructor(body: BodyDraft, index: number, part: Part, sink: ExchangeSink) {
    this.body = body
    this.index = index
    this.part = part
    this.sink = sink
  }

  add(offset: number, length: number, lost: boolean): void {
    if (length === 0) return
    const { body } = this
    if (lost) body.truncated = true
    const last = this.spill.at(-1) ?? body.pieces.at(-1)
    if (last !== undefined && last.offset + last.length === offset) {
      last.length += length
    } else if (body.pieces.length < inlinePieces) {
      body.pieces.push({ offset, length })
    } else {
      // The batch is handed over only when the next piece begins, as its last one may still grow.
      if (this.spill.length >= pieceBatch) this.flush()
      if (this.spill.length === 0) this.spillOffset = body.length
      this.spill.push({ offset, length })
    }
    body.length += length
  }

  flush(): void {
    if (this.spill.length === 0) return
    this.sink.pieces(this.index, this.part, this.spillOffset, this.spill)
    this.spill = []
  }
}
