import { asBytes, packPieces, unpackChunks, unpackPieces } from './chunkCodec.ts'
import type { Chunk } from './chunkCodec.ts'
import type { Database, SqlRow, SqlValue } from './database.ts'
import { decodeRow, encodeRow, insertFlow, rowColumns } from './rowCodec.ts'
import type { FlowMore } from './rowCodec.ts'
import { schema } from './schema.ts'
import type { Part } from '#core/dissect/dissector.ts'
import type { Direction, FlowDetails, FlowRow, HttpExchange, StreamPiece } from '#core/flow/flow.ts'

/** Chunks beginning at a known place of the streams. */
export interface ChunkRun {
  readonly position: number
  readonly up: number
  readonly down: number
  readonly chunks: readonly Chunk[]
}
export type Gap = FlowDetails['gaps'][number]

const insertExchange = 'INSERT OR REPLACE INTO exchanges (flow, number, body) VALUES (?, ?, ?)'
const insertChunks = 'INSERT OR REPLACE INTO chunks (flow, position, up, down, packed) VALUES (?, ?, ?, ?, ?)'
const insertGap = 'INSERT OR REPLACE INTO gaps (flow, number, direction, offset, bytes, reason) VALUES (?, ?, ?, ?, ?, ?)'
const insertPieces = 'INSERT OR REPLACE INTO pieces (flow, number, part, body_offset, packed) VALUES (?, ?, ?, ?, ?)'

/**
 * The index of a session. Writes are queued and go into one transaction at `flush`; reads see what has been flushed. Everything in it
 * comes from the capture and can be built again.
 */
export class IndexStore {
  readonly database: Database
  private queue: { readonly sql: string; readonly parameters: SqlValue[] }[] = []

  constructor(database: Database) {
    this.database = database
  }

  static create(database: Database): IndexStore {
    database.transaction(() => { database.exec(schema) })
    return new IndexStore(database)
  }

  get queued(): number {
    return this.queue.length
  }

  putFlow(row: FlowRow, more: FlowMore): void {
    this.queue.push({ sql: insertFlow, parameters: encodeRow(row, more) })
  }
  putExchange(flow: number, exchange: HttpExchange): void {
    this.queue.push({ sql: insertExchange, parameters: [flow, exchange.index, JSON.stringify(exchange)] })
  }
  putChunks(flow: number, position: number, up: number, down: number, packed: Uint8Array): void {
    this.queue.push({ sql: insertChunks, parameters: [flow, position, up, down, packed] })
  }
  putGap(flow: number, number: number, gap: Gap): void {
    this.queue.push({ sql: insertGap, parameters: [flow, number, gap.direction, gap.offset, gap.bytes, gap.reason] })
  }
  putPieces(flow: number, exchange: number, part: Part, bodyOffset: number, pieces: readonly StreamPiece[]): void {
    this.queue.push({ sql: insertPieces, parameters: [flow, exchange, part, bodyOffset, packPieces(pieces)] })
  }
  putMeta(key: string, value: string): void {
    this.queue.push({ sql: 'INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)', parameters: [key, value] })
  }

  flush(): void {
    if (this.queue.length === 0) return
    const { queue } = this
    this.queue = []
    this.database.transaction(() => { for (const { sql, parameters } of queue) this.database.run(sql, parameters) })
  }

  meta(key: string): string | undefined {
    return this.database.get('SELECT value FROM meta WHERE key = ?', [key])?.['value'] as string | undefined
  }

  row(flow: number): FlowRow | undefined {
    const row = this.database.get(`SELECT ${rowColumns} FROM flows WHERE id = ?`, [flow])
    return row === undefined ? undefined : decodeRow(row)
  }

  /** Rows of these flows in this order; ids that are none are left out. */
  rows(flows: readonly number[]): FlowRow[] {
    const found = new Map<number, FlowRow>()
    for (let at = 0; at < flows.length; at += 500) {
      const some = flows.slice(at, at + 500)
      const holes = some.map(() => '?').join(', ')
      for (const row of this.database.all(`SELECT ${rowColumns} FROM flows WHERE id IN (${holes})`, some)) found.set(row['id'] as number, decodeRow(row))
    }
    return flows.flatMap((flow) => found.get(flow) ?? [])
  }

  /** Rows with an id above `after`, ascending. */
  rowsAfter(after: number, limit: number): FlowRow[] {
    return this.database.all(`SELECT ${rowColumns} FROM flows WHERE id > ? ORDER BY id LIMIT ?`, [after, limit]).map(decodeRow)
  }

  more(flow: number): FlowMore {
    const row = this.database.get('SELECT more FROM flows WHERE id = ?', [flow])
    return row === undefined ? {} : (JSON.parse(row['more'] as string) as FlowMore)
  }

  exchangeCount(flow: number): number {
    return (this.database.get('SELECT count(*) AS n FROM exchanges WHERE flow = ?', [flow])?.['n'] ?? 0) as number
  }

  /** At most `limit` from `offset`, and no more than about 4 MiB of text (but one at least). */
  exchanges(flow: number, offset: number, limit: number): HttpExchange[] {
    const exchanges: HttpExchange[] = []
    let size = 0
    for (let at = offset; exchanges.length < limit && size < 4 * 1024 * 1024; ) {
      const some = Math.min(16, limit - exchanges.length)
      const rows = this.database.all('SELECT number, body FROM exchanges WHERE flow = ? AND number >= ? ORDER BY number LIMIT ?', [flow, at, some])
      for (const row of rows) {
        const body = row['body'] as string
        if (exchanges.length > 0 && size + body.length > 4 * 1024 * 1024) return exchanges
        exchanges.push(JSON.parse(body) as HttpExchange)
        size += body.length
        at = (row['number'] as number) + 1
      }
      if (rows.length < some) break
    }
    return exchanges
  }

  gaps(flow: number, limit: number): Gap[] {
    return this.database.all('SELECT direction, offset, bytes, reason FROM gaps WHERE flow = ? ORDER BY number LIMIT ?', [flow, limit]).map((row) => ({
      direction: row['direction'] as Direction, offset: row['offset'] as number, bytes: row['bytes'] as number, reason: row['reason'] as string,
    }))
  }

  /** The run of chunks in which byte `offset` of the direction (or of both, in order of arrival) lies, and those after it. */
  *chunksFrom(flow: number, direction: Direction | 'both', offset: number): Generator<ChunkRun> {
    const column = direction === 'both' ? 'position' : direction
    const first = this.database.get(`SELECT position FROM chunks WHERE flow = ? AND ${column} <= ? ORDER BY position DESC LIMIT 1`, [flow, offset])
    let next = first === undefined ? 0 : (first['position'] as number)
    for (;;) {
      const row: SqlRow | undefined = this.database.get('SELECT position, up, down, packed FROM chunks WHERE flow = ? AND position >= ? ORDER BY position LIMIT 1', [flow, next])
      if (row === undefined) return
      const position = row['position'] as number
      yield { position, up: row['up'] as number, down: row['down'] as number, chunks: unpackChunks(asBytes(row['packed'])) }
      next = position + 1
    }
  }

  /** Further pieces of a body, those with byte `offset` of the body first. */
  *piecesFrom(flow: number, exchange: number, part: Part, offset: number): Generator<{ readonly bodyOffset: number; readonly pieces: readonly StreamPiece[] }> {
    const where = 'FROM pieces WHERE flow = ? AND number = ? AND part = ?'
    const first = this.database.get(`SELECT body_offset ${where} AND body_offset <= ? ORDER BY body_offset DESC LIMIT 1`, [flow, exchange, part, offset])
    let next = first === undefined ? 0 : (first['body_offset'] as number)
    for (;;) {
      const row: SqlRow | undefined = this.database.get(`SELECT body_offset, packed ${where} AND body_offset >= ? ORDER BY body_offset LIMIT 1`, [flow, exchange, part, next])
      if (row === undefined) return
      const bodyOffset = row['body_offset'] as number
      yield { bodyOffset, pieces: unpackPieces(asBytes(row['packed'])) }
      next = bodyOffset + 1
    }
  }
}
