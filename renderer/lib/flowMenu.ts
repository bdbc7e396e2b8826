import type { FlowRow } from '#core/flow/flow.ts'
import type { MenuEntry } from '#ui/components/shared/menu.svelte.ts'
import type { AppState } from '#ui/state/app.svelte.ts'
import { condition } from './filterLanguage.ts'
import { copyCurl } from './copyCurl.ts'
import { nameOf, summaryOf, urlOf } from './flowCells.ts'
import { formatEndpoint } from './format.ts'
import { printable, shorten } from './printable.ts'

/** What can be done with a flow: narrow the list by one of its facts, copy one of its facts. */
export function flowMenu(app: AppState, row: FlowRow): MenuEntry[] {
  const name = nameOf(row)
  const facts: [string, string, string][] = [
    ['server', name ?? row.server.address, name === undefined ? condition('server', row.server.address) : condition('name', name)],
    ...(row.process === undefined ? [['client', row.client.address, condition('client', row.client.address)] as [string, string, string]] : [['program', row.process.name, condition('process', row.process.name)] as [string, string, string]]),
    ['port', String(row.server.port), condition('port', row.server.port)],
  ]
  const url = urlOf(row)
  const entries: MenuEntry[] = []
  for (const [what, value, test] of facts) {
    entries.push(
      { label: `${what.charAt(0).toUpperCase()}${what.slice(1)} ${shorten(printable(value), 44)}`, heading: true },
      { label: `Show only this ${what}`, run: () => app.filter.combine(test, 'selected') },
      { label: `Hide this ${what}`, run: () => app.filter.combine(test, app.filter.text === '' ? 'not' : 'and not') },
    )
    if (app.filter.text.trim() !== '') entries.push({ label: `… and this ${what}`, run: () => app.filter.combine(test, 'and') })
  }
  entries.push(
    { separator: true },
    { label: 'Leave this server alone', hint: 'Ctrl+Shift+L', run: () => void app.leaveAlone(row.server.address) },
    { label: 'Mark', hint: 'Ctrl+M', checked: app.marks.has(row.id), run: () => app.marks.toggle(row.id) },
    { separator: true },
    { label: 'Copy summary', hint: 'Ctrl+C', run: () => void app.copy(summaryOf(row), 'a summary') },
    { label: 'Copy URL', disabled: url === undefined, run: () => void app.copy(url ?? '', 'the URL') },
    { label: 'Copy as cURL', disabled: row.http === undefined, run: () => void copyCurl(app, row.id, (row.http?.exchanges ?? 1) - 1) },
    { label: 'Copy server address', run: () => void app.copy(formatEndpoint(row.server), 'the address') },
    { label: 'Copy client address', run: () => void app.copy(formatEndpoint(row.client), 'the address') },
  )
  return entries
}
