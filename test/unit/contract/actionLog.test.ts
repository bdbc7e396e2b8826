import fc from 'fast-check'
import { expect, test } from 'vitest'

import { formatAction, parseActions } from '#core/contract/actionLog.ts'
import type { Action } from '#core/contract/actionLog.ts'

const base: Action = { time: '2026-01-02T03:04:05.678Z', person: 'dev(1000)', pid: 12, namespace: '4026531840', result: 'ok', text: '/usr/sbin/ip -4 rule add pref 0' }

test('an entry as a person reads it', () => {
  expect(formatAction({ ...base, result: 'failed', input: 'add table inet sluice\nadd chain x\n', said: 'status 1: no\x1b[31m' })).toBe(
    '2026-01-02T03:04:05.678Z net:4026531840 12 for dev(1000) failed: /usr/sbin/ip -4 rule add pref 0\n  > add table inet sluice\n  > add chain x\n  ! status 1: no\\x1b[31m\n',
  )
})

test('whatever is in an entry, it stays one entry, and is read as it was written', () => {
  const text = fc.string({ unit: 'binary', maxLength: 200 })
  fc.assert(
    fc.property(fc.array(fc.record({ result: fc.constantFrom('ok' as const, 'failed' as const, 'note' as const), text, input: text, said: text }), { maxLength: 5 }), (entries) => {
      const written = entries.map((entry) => formatAction({ ...base, ...entry }))
      const read = parseActions(written.join(''))
      expect(read.map(({ result }) => result)).toEqual(entries.map(({ result }) => result))
      expect(read.map(formatAction)).toEqual(written)
    }),
  )
})

test('what is no entry is passed over; a long input is cut and says so, and so does the line it is cut in', () => {
  expect(parseActions('  > lost head\nrubbish\n\n')).toEqual([])
  const cut = parseActions(formatAction({ ...base, input: 'x'.repeat(70_000) }))[0]?.input
  expect(cut).toMatch(/^x{65536}… \[cut\]\n… and 4464 characters more$/)
  // At the end of a line nothing of it is missing.
  const whole = `${'x'.repeat(65_535)}\nadd rule`
  expect(parseActions(formatAction({ ...base, input: whole }))[0]?.input).toBe(`${'x'.repeat(65_535)}\n… and 8 characters more`)
  const wholeLine = parseActions(formatAction({ ...base, input: `${'x'.repeat(65_536)}\nadd rule` }))[0]?.input
  expect(wholeLine).toBe(`${'x'.repeat(65_536)}\n… and 9 characters more`)
  expect(parseActions(formatAction({ ...base, said: 'y'.repeat(4001) }))[0]?.said).toBe(`${'y'.repeat(4000)}… [cut]\n… and 1 characters more`)
})
