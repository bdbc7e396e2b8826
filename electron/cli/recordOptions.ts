import { Failure } from '#core/contract/failure.ts'
import { mostFlows } from '#core/contract/flowLimit.ts'
import { leastSegmentBytes } from '#core/contract/helperProtocol.ts'
import { parseSize } from '#core/plan/parseSize.ts'
import type { Options, OptionShapes } from './parseOptions.ts'

/** How much is recorded, by how many threads, and of how many flows at once: what `capture` and `run` share. */
export const recordShapes = {
  threads: { type: 'string' },
  'max-flows': { type: 'string' },
  'no-payload': { type: 'boolean' },
  'max-bytes': { type: 'string' },
  'max-flow-bytes': { type: 'string' },
  'segment-bytes': { type: 'string' },
  'no-ring': { type: 'boolean' },
} as const satisfies OptionShapes

/** Their lines in `--help`. */
export const recordUsage = `  --no-payload     records who spoke with whom, when and how much, not what
  --max-bytes N    the record's budget (500M, 2GiB): beyond it the oldest part goes
  --no-ring        with it: keep the oldest, and record no more payload beyond the budget; relaying goes on
  --segment-bytes N   the record is cut into files of about that size (256MiB)
  --max-flow-bytes N  records no more payload of a flow than that
  --threads N      relaying threads
  --max-flows N    flows at once (8192), as far as the relay may open files: who comes beyond is reset, which is said and recorded`

export interface RecordWish {
  readonly payload: boolean
  /** null: no limit. */
  readonly maxBytes: number | null
  readonly maxBytesPerFlow: number | null
  readonly segmentBytes?: number
  readonly ring?: boolean
  readonly threads: number
  readonly maxFlows?: number
}

/** As `Gate.open` takes it. @param usualThreads where none is asked for. Fails with `usage`. */
export function recordOf(values: Options<typeof recordShapes>, usualThreads: number): RecordWish {
  const [maxBytes, maxBytesPerFlow, segmentBytes] = [size('max-bytes', values['max-bytes']), size('max-flow-bytes', values['max-flow-bytes']), size('segment-bytes', values['segment-bytes'])]
  if (segmentBytes !== null && segmentBytes < leastSegmentBytes) throw new Failure('usage', `--segment-bytes takes 64KiB or more, not "${String(values['segment-bytes'])}"`)
  if (values['no-ring'] === true && maxBytes === null) throw new Failure('usage', '--no-ring says what happens at --max-bytes, and that is missing')
  const { threads } = values
  if (threads !== undefined && (!/^\d{1,2}$/.test(threads) || Number(threads) < 1 || Number(threads) > 64)) throw new Failure('usage', `--threads takes a number from 1 to 64, not "${threads}"`)
  const flows = values['max-flows']
  if (flows !== undefined && (!/^\d{1,7}$/.test(flows) || Number(flows) < 1 || Number(flows) > mostFlows)) throw new Failure('usage', `--max-flows takes a number from 1 to ${String(mostFlows)}, not "${flows}"`)
  return { ...(flows === undefined ? {} : { maxFlows: Number(flows) }), threads: threads === undefined ? usualThreads : Number(threads), payload: values['no-payload'] !== true, maxBytes, maxBytesPerFlow, ...(segmentBytes === null ? {} : { segmentBytes }), ...(values['no-ring'] === true ? { ring: false } : {}) }
}

function size(option: string, text: string | undefined): number | null {
  if (text === undefined) return null
  const bytes = parseSize(text)
  if (bytes === undefined) throw new Failure('usage', `--${option} takes a number of bytes such as 500M or 2GiB, not "${text}"`)
  return bytes
}
