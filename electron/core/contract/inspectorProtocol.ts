import * as v from 'valibot'

import { failureShape } from './failure.ts'
import type { FlowDetails, FlowRow, StreamChunk } from '../flow/flow.ts'

/**
 * App <-> inspector: one JSON object a line over the inspector's standard input and output. The inspector is a confined process of the
 * person's: it reads the capture (hostile bytes), keeps the index, answers. End of its input: it exits.
 */
const id = v.pipe(v.number(), v.integer(), v.minValue(0))
const flowId = v.pipe(v.number(), v.integer(), v.minValue(1))
const offset = v.pipe(v.number(), v.integer(), v.minValue(0))
const limit = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1 << 20))

export const sortKeys = [
  'id', 'startedAt', 'process', 'transport', 'protocol', 'server', 'port', 'client', 'info', 'bytesUp', 'bytesDown', 'duration', 'state', 'status',
] as const
export type SortKey = (typeof sortKeys)[number]
export const exportFormats = ['har', 'pcapng', 'ndjson'] as const
export type ExportFormat = (typeof exportFormats)[number]

export const inspectorRequestShape = v.variant('type', [
  /** `live`: the capture is still being written: go on tailing until `finish`. Answer: SessionSummary (of what is there now). */
  v.strictObject({ id, type: v.literal('open'), folder: v.pipe(v.string(), v.maxLength(4096)), live: v.boolean() }),
  /** The relay is gone: read to the end, then answer SessionSummary. Flows without a close are `unfinished` from now on. */
  v.strictObject({ id, type: v.literal('finish') }),
  /** Answer: FlowPage. */
  v.strictObject({
    id,
    type: v.literal('flows'),
    filter: v.pipe(v.string(), v.maxLength(10_000)),
    sort: v.picklist(sortKeys),
    descending: v.boolean(),
    offset,
    limit: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(5000)),
  }),
  /** Position of a flow in that order, for keeping a selection: number | null. */
  v.strictObject({ id, type: v.literal('position'), flow: flowId, filter: v.string(), sort: v.picklist(sortKeys), descending: v.boolean() }),
  /** Answer: FlowDetails. */
  v.strictObject({ id, type: v.literal('flow'), flow: flowId, exchangeOffset: offset, exchangeLimit: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1000)) }),
  /** Chunks from the `offset`-th byte of the flow's record in order of arrival (both directions counted together), at most `limit` bytes. Answer: StreamPage. */
  v.strictObject({ id, type: v.literal('stream'), flow: flowId, direction: v.picklist(['both', 'up', 'down']), offset, limit }),
  /** A body, content-decoded (gzip, deflate, br) when `decoded`. Answer: BodyPage. */
  v.strictObject({ id, type: v.literal('body'), flow: flowId, exchange: offset, part: v.picklist(['request', 'response']), decoded: v.boolean(), offset, limit }),
  /** Writes a file (never over an existing one unless `overwrite`), whole or not at all. Progress events carry this id. Answer: ExportResult. */
  v.strictObject({ id, type: v.literal('export'), format: v.picklist(exportFormats), path: v.pipe(v.string(), v.maxLength(4096)), filter: v.string(), overwrite: v.boolean() }),
  /** Stops the export with that request id (it fails with `cancelled`). Answer: null. */
  v.strictObject({ id, type: v.literal('cancel'), request: id }),
])
export type InspectorRequest = v.InferOutput<typeof inspectorRequestShape>

export interface SessionSummary {
  readonly flows: number
  readonly live: number
  readonly bytesUp: number
  readonly bytesDown: number
  readonly bytesLost: number
  /** Bytes of capture read, and how many there are: progress of a first reading. */
  readonly read: number
  readonly size: number
  /** Things a person should know: "the record ends in the middle of a block", … */
  readonly notes: readonly string[]
}
export interface FlowPage {
  readonly total: number
  readonly matching: number
  readonly rows: readonly FlowRow[]
  /** Rises with every change of any flow. */
  readonly revision: number
}
export interface StreamPage {
  readonly chunks: readonly StreamChunk[]
  /** Bytes (recorded and gaps) of the asked direction(s) so far. */
  readonly total: number
}
export interface BodyPage {
  readonly bytes: string
  readonly total: number
  readonly contentType?: string
  readonly encoding?: string
  /** Decoding stopped here: damaged, too big, or cut. */
  readonly error?: string
}
export interface ExportResult {
  readonly flows: number
  readonly entries: number
  readonly bytes: number
  /** What was left out and why, one line each. */
  readonly notes: readonly string[]
}
export interface InspectorResults {
  open: SessionSummary
  finish: SessionSummary
  flows: FlowPage
  position: number | null
  flow: FlowDetails
  stream: StreamPage
  body: BodyPage
  export: ExportResult
  cancel: null
}
export const inspectorReplyShape = v.union([
  v.object({ id, ok: v.literal(true), result: v.unknown() }),
  v.object({ id, ok: v.literal(false), error: failureShape }),
])
export const inspectorEventShape = v.variant('event', [
  /** At most ten a second while something changes. `flows`: ids changed since the last event, at most 1000 (`more` when there were more). */
  v.object({ event: v.literal('changed'), revision: v.number(), flows: v.array(v.number()), more: v.boolean(), summary: v.custom<SessionSummary>((x) => typeof x === 'object' && x !== null) }),
  v.object({ event: v.literal('progress'), request: v.number(), done: v.number(), of: v.number() }),
])
export type InspectorEvent = v.InferOutput<typeof inspectorEventShape>
