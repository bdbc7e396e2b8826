import { resolve } from 'node:path'

import { Failure } from '#core/contract/failure.ts'
import { exportFormats } from '#core/contract/inspectorProtocol.ts'
import type { ExportFormat } from '#core/contract/inspectorProtocol.ts'
import { nearest } from '#core/filter/nearest.ts'
import { parseFilter } from '#core/filter/parseFilter.ts'
import { exportSession } from '#session/inspectorClient.ts'
import type { Command } from './command.ts'
import { counted, formatBytes } from './format.ts'
import { parseOptions, takePositionals } from './parseOptions.ts'
import { sessionPath } from './sessions.ts'

const entries: Readonly<Record<ExportFormat, readonly [string, string]>> = { har: ['entry', 'entries'], pcapng: ['packet', 'packets'], ndjson: ['line', 'lines'] }

function formatOf(text: string | undefined, path: string): ExportFormat {
  const word = text ?? /\.([a-z0-9]+)$/i.exec(path)?.[1]?.toLowerCase() ?? ''
  const format = exportFormats.find((each) => each === word) ?? (text === undefined && word === 'jsonl' ? 'ndjson' : undefined)
  if (format !== undefined) return format
  if (text === undefined) throw new Failure('usage', `--format is missing (${exportFormats.join(', ')})`)
  const close = nearest(text, exportFormats)
  throw new Failure('bad-format', `there is no format "${text}", there are ${exportFormats.join(', ')}${close === undefined ? '' : ` (did you mean ${close}?)`}`)
}

export const exportCommand: Command = {
  name: 'export',
  summary: 'writes a session, or the flows that match, as HAR, pcapng or NDJSON',
  usage: `sluice export NAME.sluice --format har|pcapng|ndjson -o FILE [--filter EXPR] [--overwrite] [--json]

  --format F       har: HTTP exchanges, for browsers and HTTP tools; pcapng: packets, for Wireshark; ndjson: one flow a line
  -o FILE          written whole or not at all; an existing file is left alone without --overwrite
  --filter EXPR    only flows that match
  --json           one object: path, format, flows, entries, bytes, notes`,
  async run(args, output) {
    const { values, positionals } = parseOptions(args, {
      format: { type: 'string', short: 'f' }, output: { type: 'string', short: 'o' }, filter: { type: 'string', short: 'Y' }, overwrite: { type: 'boolean' }, json: { type: 'boolean' },
    })
    const [name = ''] = takePositionals(positionals, 'the session (NAME.sluice)')
    if (values.output === undefined || values.output === '') throw new Failure('usage', 'where to? say it with -o FILE')
    const format = formatOf(values.format, values.output)
    const filter = values.filter ?? ''
    parseFilter(filter)
    const path = resolve(values.output)
    const stop = new AbortController()
    const cancel = (): void => stop.abort()
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
    for (const signal of signals) process.on(signal, cancel)
    try {
      const result = await exportSession({ folder: sessionPath(name), format, path, filter, overwrite: values.overwrite === true, signal: stop.signal })
      if (values.json === true) await output.json({ path, format, ...result })
      else await output.line(`${counted(result.entries, ...entries[format])} of ${counted(result.flows, 'flow')}, ${formatBytes(result.bytes)} in ${path}`)
      if (values.json !== true) for (const note of result.notes) output.note(`note: ${note}`)
      return 0
    } finally {
      for (const signal of signals) process.off(signal, cancel)
    }
  },
}
