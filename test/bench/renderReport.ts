import { contenderTitles, figures, judge, type Contender, type Results } from './figures.ts'
import { median } from './measure.ts'

export interface ReportOptions {
  readonly contestants: readonly Contender[]
  readonly threads: number
  readonly rounds: number
  readonly seconds: number
  readonly idleFlows: number
}

/** The table of medians with ratios to HAProxy, then each bar with what was reached. */
export function renderReport(results: Results, { contestants, threads, rounds, seconds, idleFlows }: ReportOptions): string {
  const of = (contender: Contender, key: string): number | undefined => {
    const values = results.get(`${contender} ${key}`)
    return values === undefined || values.length === 0 ? undefined : median(values)
  }
  const rows: string[][] = [['', ...contestants.map((name) => contenderTitles[name])]]
  for (const { key, title, scale, digits } of figures) {
    const cells = contestants.map((contender) => {
      const value = of(contender, key)
      const other = of('haproxy', key)
      if (value === undefined) return ''
      const shown = (value * scale).toFixed(digits)
      return contender === 'haproxy' || other === undefined || other === 0 ? shown : `${shown} (${(value / other).toFixed(2)})`
    })
    if (cells.some((cell) => cell !== '')) rows.push([title, ...cells])
  }
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length))) ?? []
  const table = rows.map((row) => row.map((text, column) => (column === 0 ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0))).join('   '))
  const lost = median(results.get('sluice lost') ?? [])
  const bars = judge(of).filter((bar) => bar.reached !== undefined)
    .map((bar) => `  ${bar.met === true ? 'met   ' : 'MISSED'}  ${bar.title}: ${(bar.reached ?? 0).toFixed(2)}, wanted ${bar.wanted}`)
  return [
    `${threads} thread${threads === 1 ? '' : 's'} each, ${rounds} rounds of ${seconds} s, forwarded IPv4, capture on for Sluice (median; ratio to HAProxy with splice)${idleFlows > 0 ? `; idle: ${idleFlows} flows` : ''}`,
    ...table,
    ...(Number.isNaN(lost) ? [] : [`Sluice kept all but ${(lost * 100).toFixed(1)} % of the payload bytes it relayed (median over rounds)`]),
    ...bars,
    '', '',
  ].join('\n')
}
