import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import { completeFilter } from '#core/filter/completeFilter.ts'
import { describeFilter } from '#core/filter/describeFilter.ts'
import { fields } from '#core/filter/fields.ts'
import { FilterFailure } from '#core/filter/filterNode.ts'
import { filterText } from '#core/filter/filterText.ts'
import { matchFilter } from '#core/filter/matchFilter.ts'
import { parseFilter } from '#core/filter/parseFilter.ts'
import { anyRow, makeRow } from './rows.ts'

const row = makeRow()
const matches = (text: string, change = {}): boolean => matchFilter(parseFilter(text), makeRow(change))
function failure(text: string): FilterFailure {
  try {
    parseFilter(text)
  } catch (error) {
    if (error instanceof FilterFailure) return error
    throw error
  }
  throw new Error(`${text} was taken`)
}

describe('what matches', () => {
  it.each([
    '', '   ', 'port == 80', 'port==80', 'port = 80', 'port eq 80', 'tcp.dstport == 80', 'port != 443', 'port > 79 and port < 81', 'port >= 80', 'port le 80',
    'port in {80, 443}', 'port in {1-79, 80-90}', 'port in {80..90}', 'port in {80 443}', 'status in {200-299}', 'not port == 443', '!(port == 443)', 'port == 443 or port == 80', 'port == 443 || port == 80', 'port == 443 | port == 80',
    'port == 80 && name contains example', 'port == 80 & http', 'port == 80 name contains EXAMPLE', 'name == WWW.example.TEST', 'name matches "^www\\."', 'name ~ "exam.le"', 'name ~exam', 'name~exam',
    'client == 198.51.100.2', 'client == 198.51.100.0/24', 'ip.src == 198.51.100.0/24', 'server == 203.0.113.0/25', 'address == 203.0.113.2', 'client != 203.0.113.0/24', 'server in {10.0.0.0/8, 203.0.113.0/24}', 'client == ::ffff:198.51.100.2',
    'http', 'status', 'process == curl', 'process', 'pid == 12', 'user == dev', 'state == finished', 'closedby == client', 'bytes > 12k', 'down >= 12000', 'up < 1KiB', 'duration == 1.5', 'duration >= 1500ms', 'duration < 1m',
    'started >= 2025-11-25T05:00:00Z', 'started < 2025-11-25T05:00:01Z', 'exchanges == 1', 'method == get', 'url contains "http://www.example.test/index.html"',
    'curl', 'index.html', '"200 OK"', "'200 OK'", '203.0.113', '203.0.113.2:80', 'example curl', 'local', 'not forwarded', 'live == false', 'undecodable != true', 'not live', 'not lost', 'not tls',
    '~d example', '~u index', '~m ^G', '~c 200', '~src 198', '~dst ^203', '~http', '~tcp', '~s', '!~q', '! ~e', '~d example ~m GET & ~c 200', 'http ~d example', '~all',
    '(port == 80)', '((port == 80) and (http or tls))', 'port == 80 or port == 443 and port == 1', 'NOT port == 443 AND http', 'name contains ".example"', 'info contains "→"',
  ])('%s', (text) => expect(matches(text)).toBe(true))

  it.each([
    'port == 443', 'port in {443, 8000-8100}', 'not http', 'tls', 'name == example.test', 'name matches "^example"', 'client == 2001:db8::/32', 'server == 203.0.113.128/25',
    'status >= 400', 'nonsense', 'live', 'error', 'lost', '~d nothing', '~c 404', '~q', 'sni', 'alpn != h2', '(port == 80 or http) and tls', 'process == cur', 'duration > 2s', 'started < 2020-01-01',
  ])('not %s', (text) => expect(matches(text)).toBe(false))

  it('takes every flow with an empty filter', () => expect(parseFilter('')).toEqual({ kind: 'all' }))
  it('lets != speak of fields that are there', () => {
    const { process: _, ...nobody } = row
    expect(matchFilter(parseFilter('process != curl'), nobody)).toBe(false)
    expect(matchFilter(parseFilter('not process == curl'), nobody)).toBe(true)
  })
  it('asks both sides for either', () => {
    expect(matches('tcp.port == 40000')).toBe(true)
    expect(matches('tcp.port != 80')).toBe(false)
    expect(matches('address != 203.0.113.2')).toBe(false)
  })
  it('finds IPv6 addresses with their ports', () => {
    const change = { server: { address: '2001:db8::1', port: 443 } }
    expect(matches('[2001:db8::1]:443', change)).toBe(true)
    expect(matches('server == 2001:DB8:0:0::1', change)).toBe(true)
    expect(matches('server == 2001:db8::/31', change)).toBe(true)
  })
  it('finds link-local addresses with and without their interface', () => {
    const change = { server: { address: 'fe80::1%eth0', port: 80 } }
    for (const text of ['server == fe80::1', 'server == fe80::1%eth0', 'server == fe80::/10', 'fe80::1%eth0', '[fe80::1%eth0]:80', '%eth0']) expect(matches(text, change), text).toBe(true)
    expect(matches('%eth1', change)).toBe(false)
  })
})

describe('what is refused', () => {
  it.each([
    ['prot == 80', 0, 'did you mean'], ['port ==', 7, 'a number'], ['port == eighty', 8, 'a number'], ['port == 80 and', 14, 'a field'], ['and port', 0, 'a field'],
    ['(port == 80', 0, '")"'], ['port == 80)', 10, 'the end'], ['()', 1, 'a field'], ['name matches "("', 14, 'regular expression'], ['name == "x', 8, 'closing'], ['port in 80', 8, '"{"'], ['port in {80', 11, '"}"'],
    ['port in {}', 10, 'a number'], ['port in {90-80}', 9, 'smaller'], ['name > x', 7, '=='], ['client == 300.1.1.1', 10, 'an address'], ['client == 198.51.100.0/33', 10, 'an address'], ['~b x', 0, '~d'], ['~c abc', 3, 'three digits'],
    ['~d', 2, 'a regular expression'], ['a && && b', 5, 'a field'], ['port == 80 }', 11, 'a field'], ['live == maybe', 8, 'true or false'], ['up > 5x', 5, 'bytes'], ['!', 1, 'a field'], ['constructor == 1', 0, 'a field'], ['~constructor', 0, '~d'],
  ])('%s', (text, position, expected) => {
    const error = failure(text)
    expect(error.code).toBe('bad-filter')
    expect(error.position).toBe(position)
    expect(error.expected).toContain(expected)
    expect(error.message).not.toContain('\n')
  })
  it('has bounds', () => {
    expect(failure('('.repeat(5000)).message).toContain('nested too deep')
    expect(failure('!'.repeat(5000)).message).toContain('nested too deep')
    expect(failure('x '.repeat(6000)).message).toContain('too long')
    expect(failure(`port in {${'1,'.repeat(2000)}}`).message).toContain('too long')
    expect(failure('name ~ "((x{500}){500}){500}"').message).toContain('too big')
  })
})

describe('any text', () => {
  const words = fc.constantFrom('port', 'name', 'http', '==', '!=', '80', 'and', 'or', 'not', '(', ')', '{', '}', ',', '"', '~', '~d', '~c', 'in', 'contains', 'matches', '198.51.100.0/24', 'x', '\\', '!', '&', '|', '-', '80-90', '=', '<', "'")
  const texts = fc.oneof(fc.array(words, { maxLength: 20 }).map((parts) => parts.join(' ')), fc.array(words, { maxLength: 20 }).map((parts) => parts.join('')), fc.string({ maxLength: 60, unit: 'binary' }))
  it('parses or fails with a position inside it, and what parses matches and describes without throwing', () => {
    fc.assert(fc.property(texts, anyRow, (text, any) => {
      try {
        const node = parseFilter(text)
        matchFilter(node, any)
        expect(describeFilter(node).length).toBeGreaterThan(0)
        expect(parseFilter(filterText(node))).toEqual(node)
      } catch (error) {
        if (!(error instanceof FilterFailure)) throw error
        expect(error.position).toBeGreaterThanOrEqual(0)
        expect(error.position).toBeLessThanOrEqual(text.length)
      }
    }), { numRuns: 5000 })
  })
  it('completes without throwing, inside the text', () => {
    fc.assert(fc.property(texts, fc.nat(80), (text, cursor) => {
      const { from, to, suggestions } = completeFilter(text, cursor, { process: ['curl', 'a b'], constructor: [] })
      expect(from).toBeLessThanOrEqual(to)
      expect(to).toBeLessThanOrEqual(text.length)
      expect(suggestions.length).toBeLessThanOrEqual(40)
    }), { numRuns: 3000 })
  })
})

describe('completion', () => {
  const known = { process: ['curl', 'Web Content'], name: ['www.example.test'] }
  const texts = (text: string): readonly string[] => completeFilter(text, text.length, known).suggestions.map((each) => each.text)
  it('offers fields, operators, values and joins where they fit', () => {
    expect(texts('po')[0]).toBe('port')
    expect(texts('port ')).toEqual(expect.arrayContaining(['==', '!=', '>', 'in']))
    expect(texts('process == ')).toEqual(['curl', '"Web Content"'])
    expect(texts('process == W')).toEqual(['"Web Content"'])
    expect(texts('state in {live, fi')).toEqual(['finished', 'unfinished'])
    expect(texts('port == 80 ')).toEqual(expect.arrayContaining(['and', 'or']))
    expect(texts('port == 80 and na')).toContain('name')
    expect(texts('name == "po')).toEqual([])
  })
  it('gives what parses', () => {
    for (const value of texts('process == ')) expect(() => parseFilter(`process == ${value}`)).not.toThrow()
  })
})

it('has every field once', () => {
  const names = fields.flatMap((field) => [field.name, ...field.aliases])
  expect(new Set(names).size).toBe(names.length)
  for (const name of names) expect(name).toBe(name.toLowerCase())
})
it('describes', () => {
  expect(describeFilter(parseFilter('port == 443 and (name contains example or not http)'))).toBe('port is 443 and (name contains "example" or not (flows of HTTP/1))')
})
