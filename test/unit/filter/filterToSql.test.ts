import fc from 'fast-check'
import Database from 'libsql'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

import { fields } from '#core/filter/fields.ts'
import { filterToSql } from '#core/filter/filterToSql.ts'
import { matchFilter } from '#core/filter/matchFilter.ts'
import { parseFilter } from '#core/filter/parseFilter.ts'
import { schema } from '#session/store/schema.ts'
import { anyRow } from './rows.ts'
import type { FilterNode } from '#core/filter/filterNode.ts'
import type { FlowRow } from '#core/flow/flow.ts'

const columns = [
  'id', 'transport', 'protocol', 'scope', 'client_address', 'client_port', 'server_address', 'server_port', 'name', 'pid', 'process', 'user', 'state', 'closed_by',
  'bytes_up', 'bytes_down', 'bytes_lost', 'info', 'method', 'target', 'status', 'exchanges', 'sni', 'alpn', 'version', 'undecodable',
  'datagrams_up', 'datagrams_down', 'qname', 'qtype', 'rcode', 'questions', 'quic_version',
]
/** As the store's own table has them: a number bound is a REAL, and it is the column's type that makes it whole, so that text of it has no ".0". */
const typed = columns.map((column) => `${column} ${new RegExp(`\\b${column} (TEXT|INTEGER)`).exec(schema)?.[1] ?? ''}`)
const cells = (row: FlowRow): (string | number | null)[] => [
  row.id, row.transport, row.protocol, row.scope, row.client.address, row.client.port, row.server.address, row.server.port, row.name ?? null, row.process?.pid ?? null, row.process?.name ?? null, row.process?.user ?? null,
  row.state, row.closedBy, row.bytesUp, row.bytesDown, row.bytesLost, row.info, row.http?.method ?? null, row.http?.target ?? null, row.http?.status ?? null, row.http?.exchanges ?? null,
  row.tls?.sni ?? row.quic?.sni ?? null, row.tls?.alpn ?? null, row.tls?.version ?? null, row.undecodable ? 1 : 0,
  row.datagramsUp ?? null, row.datagramsDown ?? null, row.dns?.name ?? null, row.dns?.type ?? null, row.dns?.rcode ?? null, row.dns?.transactions ?? null, row.quic?.version ?? null,
]

const text = fc.oneof(fc.constantFrom('curl', 'É', 'é', '%', '_', '', ':', '80', '2001', "'", 'http', 'a'), fc.string({ maxLength: 3, unit: 'grapheme' }))
const leaf: fc.Arbitrary<FilterNode> = fc.constantFrom(...fields).chain((field): fc.Arbitrary<FilterNode> => {
  const number = fc.oneof(fc.nat(6), fc.constantFrom(80, 443, 200, 4000, 1.5))
  const value = field.kind === 'text' ? text.map((each) => ({ type: 'text' as const, text: each })) : number.map((each) => ({ type: 'number' as const, number: each }))
  const operators = field.kind === 'text' || field.kind === 'flag' ? (['==', '!='] as const) : (['==', '!=', '<', '>', '<=', '>='] as const)
  const present = fc.constant<FilterNode>({ kind: 'present', field: field.name })
  const contains = text.map((each): FilterNode => ({ kind: 'contains', field: field.name, text: each }))
  if (field.kind === 'address') return fc.oneof(present, contains)
  return fc.oneof(
    present, contains,
    fc.record({ kind: fc.constant('compare' as const), field: fc.constant(field.name), operator: fc.constantFrom(...operators), value }),
    fc.record({ kind: fc.constant('in' as const), field: fc.constant(field.name), items: fc.array(field.kind === 'number' ? fc.oneof(value, fc.tuple(fc.nat(300), fc.nat(500)).map(([from, more]) => ({ type: 'range' as const, from, to: from + more }))) : value, { minLength: 1, maxLength: 3 }) }),
  )
})
const node: fc.Arbitrary<FilterNode> = fc.letrec<{ node: FilterNode }>((tie) => ({
  node: fc.oneof(
    { maxDepth: 3 },
    leaf,
    text.map((each): FilterNode => ({ kind: 'word', text: each })),
    fc.record({ kind: fc.constantFrom('and' as const, 'or' as const), parts: fc.array(tie('node'), { minLength: 2, maxLength: 3 }) }),
    fc.record({ kind: fc.constant('not' as const), part: tie('node') }),
  ),
})).node

describe('filterToSql', () => {
  const db = new Database(':memory:')
  beforeAll(() => db.exec(`create table flows (${typed.join(', ')})`))
  afterAll(() => db.close())
  const hasNul = (row: FlowRow): boolean => JSON.stringify(row).includes('\\u0000')

  it('answers 0 or 1 as matchFilter does, on every filter it takes', () => {
    let taken = 0
    fc.assert(fc.property(node, fc.array(anyRow.filter((row) => !hasNul(row)), { minLength: 1, maxLength: 5 }), (filter, rows) => {
      const sql = filterToSql(filter)
      if (sql === null) return
      taken++
      db.prepare('delete from flows').run()
      const insert = db.prepare(`insert into flows values (${columns.map(() => '?').join(', ')})`)
      for (const row of rows) insert.run(cells(row))
      const answers = db.prepare(`select ${sql.sql} as answer from flows order by rowid`).all([...sql.parameters]) as { answer: number }[]
      expect(answers.map((each) => each.answer)).toEqual(rows.map((row) => (matchFilter(filter, row) ? 1 : 0)))
    }), { numRuns: 2000 })
    expect(taken).toBeGreaterThan(500)
  })
  it('finds a count as it is read, without a fraction', () => {
    const { sql, parameters } = filterToSql(parseFilter('bytes contains "."')) ?? { sql: '', parameters: [] }
    db.prepare('delete from flows').run()
    db.prepare('insert into flows (bytes_up, bytes_down) values (?, ?)').run([10, 0])
    expect(db.prepare(`select ${sql} as answer from flows`).all([...parameters])).toEqual([{ answer: 0 }])
  })
  it.each(['name matches x', 'client == 198.51.100.0/24', 'duration > 1', 'started > 0', 'url contains x', 'http or name ~ x'])('leaves %s to matchFilter', (filter) => {
    expect(filterToSql(parseFilter(filter))).toBeNull()
  })
  it('never puts a value into the text', () => {
    const sql = filterToSql(parseFilter(`name == "'; drop table flows; --" or "x' or 1"`))
    expect(sql?.sql).not.toContain('drop')
    expect(sql?.parameters).toContain("'; drop table flows; --")
  })
})
