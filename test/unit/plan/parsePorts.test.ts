import fc from 'fast-check'
import { expect, test } from 'vitest'

import { Failure } from '#core/contract/failure.ts'
import { formatPorts } from '#core/plan/formatPorts.ts'
import { parsePorts } from '#core/plan/parsePorts.ts'

test.each([
  ['80', [[80, 80]]],
  ['80,443,8000-8100', [[80, 80], [443, 443], [8000, 8100]]],
  [' 443 ,80 ', [[80, 80], [443, 443]]],
  ['80 443\t22\n25', [[22, 22], [25, 25], [80, 80], [443, 443]]],
  ['8000 - 8100', [[8000, 8100]]],
  ['80,81,82', [[80, 82]]],
  ['10-20,15-30,5', [[5, 5], [10, 30]]],
  ['1-65535,80', [[1, 65535]]],
  ['080', [[80, 80]]],
] as const)('%j', (text, ranges) => {
  expect(parsePorts(text)).toEqual(ranges.map(([from, to]) => ({ from, to })))
})

test.each([
  ['', 'No ports'],
  ['   ', 'No ports'],
  ['0', '"0"'],
  ['70000', '"70000"'],
  ['80,99999-100000', '"99999-100000"'],
  ['80-70', '"80-70" runs backwards: write 70-80'],
  ['80,abc,443', '"abc"'],
  ['80,,443', 'nothing between two commas'],
  ['80,', 'nothing between two commas'],
  ['-80', '"-80"'],
  ['80-', '"80-"'],
  ['1-2-3', '"1-2-3"'],
  ['8.0', '"8.0"'],
  ['1e3', '"1e3"'],
  ['٨٠', '"٨٠"'],
  ['80;443', '"80;443"'],
  ['99999999999999999999', '"99999999999999999999"'],
  ['9'.repeat(70_000), 'too long'],
])('%j is refused, naming the word', (text, message) => {
  let thrown: unknown
  try {
    parsePorts(text)
  } catch (error) {
    thrown = error
  }
  expect(thrown).toBeInstanceOf(Failure)
  expect((thrown as Failure).code).toBe('bad-ports')
  expect((thrown as Failure).message).toContain(message)
  expect((thrown as Failure).message).not.toContain('\n')
})

const port = fc.integer({ min: 1, max: 65535 })
const ranges = fc.array(fc.tuple(port, port).map(([a, b]) => ({ from: Math.min(a, b), to: Math.max(a, b) })), { minLength: 1, maxLength: 40 })

test('what is written is read again, with the same ports in it, sorted and apart', () => {
  fc.assert(
    fc.property(ranges, port, (wish, probe) => {
      const parsed = parsePorts(formatPorts(wish))
      expect(parsePorts(formatPorts(parsed))).toEqual(parsed)
      const within = (list: readonly { from: number; to: number }[]): boolean => list.some(({ from, to }) => from <= probe && probe <= to)
      expect(within(parsed)).toBe(within(wish))
      parsed.reduce((before, range) => {
        expect(range.from).toBeGreaterThan(before.to + 1)
        return range
      }, { from: -1, to: -1 })
    }),
  )
})

test('any text at all gives ports or a failure of its own kind', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom('8', '0', '-', ',', ' ', 'x') })), (text) => {
      try {
        for (const { from, to } of parsePorts(text)) expect(from >= 1 && from <= to && to <= 65535).toBe(true)
      } catch (error) {
        expect(error).toBeInstanceOf(Failure)
      }
    }),
  )
})
