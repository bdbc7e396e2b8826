import { encodeUtf8 } from '#core/capture/utf8.ts'
import { FlowDissection } from '#core/dissect/flowDissection.ts'
import { HeadBudget } from '#core/dissect/headBudget.ts'
import type { Part } from '#core/dissect/dissector.ts'
import type { Direction, FlowProtocol, HttpExchange, StreamPiece } from '#core/flow/flow.ts'

/** What happens to a flow, in order; text stands for its UTF-8 bytes, a number for so many bytes that were not recorded, null for the end of that direction. */
export type Happening = readonly [direction: Direction, what: Uint8Array | string | number | null]

export interface Dissected {
  readonly protocol: FlowProtocol
  readonly info: string
  readonly undecodable: boolean
  readonly error: string | undefined
  readonly findings: ReturnType<FlowDissection['findings']>
  /** As last handed over, in order of their index. */
  readonly exchanges: readonly HttpExchange[]
  /** Most bytes held at any time. */
  readonly held: number
  /** Both streams whole, gaps as zeros. */
  readonly streams: Readonly<Record<Direction, Uint8Array>>
  /** All pieces of a body, those handed over in batches with them. */
  pieces(index: number, part: Part): readonly StreamPiece[]
  /** A body out of the streams, by its pieces. */
  body(index: number, part: Part): Uint8Array
}

/** Takes a flow apart as the session does, and looks after what must hold of every flow. Time is a millisecond a happening. */
export function dissectFlow(happenings: readonly Happening[], limit?: number): Dissected {
  const budget = new HeadBudget(limit)
  const exchanges = new Map<number, HttpExchange>()
  const done = new Set<number>()
  const spilled = new Map<string, StreamPiece[]>()
  const dissection = new FlowDissection(
    {
      server: { address: '203.0.113.2', port: 80 },
      sink: {
        exchange: (exchange, isDone) => {
          if (done.has(exchange.index)) throw new Error(`exchange ${exchange.index} went on after it was done`)
          exchanges.set(exchange.index, structuredClone(exchange))
          if (isDone) done.add(exchange.index)
        },
        pieces: (index, part, _offset, pieces) => {
          const key = `${index} ${part}`
          spilled.set(key, [...(spilled.get(key) ?? []), ...pieces.map((piece) => ({ ...piece }))])
        },
      },
    },
    budget,
  )
  const position = { up: 0, down: 0 }
  const kept: Record<Direction, Uint8Array[]> = { up: [], down: [] }
  let time = 1_000_000_000n
  let held = 0
  for (const [direction, what] of happenings) {
    time += 1_000_000n
    if (what === null) {
      dissection.end(direction, time)
    } else if (typeof what === 'number') {
      dissection.gap(direction, position[direction], what, time)
      kept[direction].push(new Uint8Array(what))
      position[direction] += what
    } else {
      const bytes = typeof what === 'string' ? encodeUtf8(what) : what
      // A view that dies after the call, as the reader's are.
      const view = Uint8Array.from(bytes)
      dissection.data(direction, position[direction], view, time)
      view.fill(0xee)
      kept[direction].push(bytes)
      position[direction] += bytes.length
    }
    held = Math.max(held, budget.held)
  }
  dissection.close(time)
  if (budget.held !== 0) throw new Error(`${budget.held} bytes are still held by a flow that has ended`)
  const streams = { up: Buffer.concat(kept.up), down: Buffer.concat(kept.down) }
  const ordered = [...exchanges.values()].sort((a, b) => a.index - b.index)
  const pieces = (index: number, part: Part): readonly StreamPiece[] => [
    ...(exchanges.get(index)?.[part]?.body.pieces ?? []), ...(spilled.get(`${index} ${part}`) ?? []),
  ]
  return {
    protocol: dissection.protocol, info: dissection.info(), undecodable: dissection.undecodable, error: dissection.error, findings: dissection.findings(),
    exchanges: ordered, held, streams, pieces,
    body: (index, part) => {
      const stream = streams[part === 'request' ? 'up' : 'down']
      return Buffer.concat(pieces(index, part).map(({ offset, length }) => stream.subarray(offset, offset + length)))
    },
  }
}
