import type { FlowRow } from '#core/flow/flow.ts'
import { parseFilter } from '#core/filter/parseFilter.ts'
import type { Command } from './command.ts'
import { flowHeader, flowLine } from './flowTable.ts'
import { counted, formatBytes } from './format.ts'
import type { Output } from './output.ts'
import { parseOptions, takePositionals } from './parseOptions.ts'
import { withSession } from './sessions.ts'
import type { InspectorClient } from '#session/inspectorClient.ts'

const page = 1000

/** Rows in order of id, a page at a time. */
export async function* readFlows(inspector: InspectorClient, filter: string): AsyncGenerator<readonly FlowRow[]> {
  for (let offset = 0; ; offset += page) {
    const { rows } = await inspector.request('flows', { filter, sort: 'id', descending: false, offset, limit: page })
    if (rows.length > 0) yield rows
    if (rows.length < page) return
  }
}

export const flowsCommand: Command = {
  name: 'flows',
  summary: 'lists the flows of a session',
  usage: `sluice flows NAME.sluice [--filter EXPR] [--json]

  --filter EXPR    only flows that match, such as 'port == 443 and name contains example', 'status >= 400', 'process == curl'
  --json           one flow a line`,
  async run(args, output) {
    const { values, positionals } = parseOptions(args, { filter: { type: 'string', short: 'Y' }, json: { type: 'boolean' } })
    const [name = ''] = takePositionals(positionals, 'the session (NAME.sluice)')
    const filter = values.filter ?? ''
    parseFilter(filter)
    await withSession(name, output.gone, async (inspector, summary) => {
      const shown = values.json === true ? await printJson(inspector, filter, output) : await printTable(inspector, filter, output)
      if (values.json === true) return
      const sums = `${counted(summary.flows, 'flow')}, ${formatBytes(summary.bytesUp)} up, ${formatBytes(summary.bytesDown)} down`
      output.note(filter.trim() === '' ? sums : `${shown} of ${sums}`)
      for (const note of summary.notes) output.note(`note: ${note}`)
    })
    return 0
  },
}

async function printJson(inspector: InspectorClient, filter: string, output: Output): Promise<number> {
  let shown = 0
  for await (const rows of readFlows(inspector, filter)) {
    await output.write(rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
    shown += rows.length
  }
  return shown
}

async function printTable(inspector: InspectorClient, filter: string, output: Output): Promise<number> {
  let shown = 0
  await output.line(flowHeader(output.width))
  for await (const rows of readFlows(inspector, filter)) {
    await output.write(rows.map((row) => `${flowLine(row, output.width)}\n`).join(''))
    shown += rows.length
  }
  return shown
}
