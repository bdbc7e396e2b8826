import type { ExportSteps, ExportWish } from './exportSteps.ts'
import type { SessionReader } from './sessionReader.ts'

/**
 * One flow a line, as FlowDetails (core/flow/flow.ts), every exchange in it; `exchanges` stands last so that it can be written while it is read.
 * Bodies and streams are not in it.
 */
export function* exportNdjson(reader: SessionReader, wish: ExportWish): ExportSteps {
  const of = reader.countFlows(wish.filter)
  let flows = 0
  let live = 0
  for (const row of reader.flows(wish.filter)) {
    const { exchanges: _, ...details } = reader.details(row.id, 0, 1)
    yield `${JSON.stringify(details).slice(0, -1)},"exchanges":[`
    let first = true
    for (const exchange of details.exchangeCount > 0 ? reader.exchanges(row.id) : []) {
      yield (first ? '' : ',') + JSON.stringify(exchange)
      first = false
    }
    yield ']}\n'
    flows++
    if (row.state === 'live') live++
    wish.onProgress?.(flows, of)
  }
  return { flows, entries: flows, notes: live === 0 ? [] : [`${live} of the flows were still open and stand here as they were`] }
}
