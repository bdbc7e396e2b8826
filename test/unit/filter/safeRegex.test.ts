import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import { compileSafeRegex, PatternError, textLimit } from '#core/filter/safeRegex.ts'

const atom = fc.constantFrom('a', 'b', 'B', '.', '\\d', '\\w', '\\W', '\\s', '[ab]', '[^a]', '[a-c1-]', '\\b', '^', '$', '\\.', '\\x41', '0', ' ', '[]', '[^]', '{', ']', '\\B', '[\\d.]')
const pattern: fc.Arbitrary<string> = fc.letrec<{ tree: string }>((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small', maxDepth: 5 },
    atom,
    fc.tuple(tie('tree'), tie('tree')).map(([a, b]) => a + b),
    fc.tuple(tie('tree'), tie('tree')).map(([a, b]) => `(${a}|${b})`),
    fc.tuple(tie('tree'), fc.constantFrom('*', '+', '?', '{2}', '{0,2}', '{1,}', '*?', '{0}')).map(([a, q]) => `(?:${a})${q}`),
    fc.constant('()'),
  ),
})).tree

describe('safeRegex', () => {
  it('says what the language itself says, where both know the pattern', () => {
    fc.assert(fc.property(pattern, fc.string({ maxLength: 10, unit: fc.constantFrom('a', 'b', 'A', 'B', 'c', '0', ' ', '.', '\n', '-', '{', ']', 'é') }), (source, text) => {
      expect(compileSafeRegex(source).test(text)).toBe(new RegExp(source, 'i').test(text))
    }), { numRuns: 20_000 })
  })
  it('takes or refuses any text as the language does, or refuses more', () => {
    fc.assert(fc.property(fc.string({ maxLength: 12, unit: fc.constantFrom(...Array.from('ab01(){}[]|*+?\\^$.-,:d')) }), (source) => {
      let mine: ReturnType<typeof compileSafeRegex> | undefined
      try {
        mine = compileSafeRegex(source)
      } catch (error) {
        expect(error).toBeInstanceOf(PatternError)
        return
      }
      const theirs = new RegExp(source, 'i')
      for (const text of ['', 'a', 'ab', 'aab0', '1', '{', ']', 'a{1', 'dd', '\\', '}{']) expect([source, text, mine.test(text)]).toEqual([source, text, theirs.test(text)])
    }), { numRuns: 20_000 })
  })
  it.each(['(a*)*b', '(a|a)*b', '(a+)+$', '((a?){50}){5}b', '(((a*)*)*)*b', '(.*)(.*)(.*)(.*)x', '((){1000}){1000}z', '((((){1000}){1000}){1000}){1000}z', '(()*)*z', '(|a)+z'])('stays bounded on %s', (source) => {
    const regex = compileSafeRegex(source)
    expect(regex.test('a'.repeat(textLimit * 4))).toBe(regex.test('a') && true)
  })
  it('has bounds of its own', () => {
    expect(() => compileSafeRegex('(a{1000}){1000}')).toThrow(PatternError)
    expect(() => compileSafeRegex('('.repeat(10_000))).toThrow(PatternError)
    expect(() => compileSafeRegex('a{1001}')).toThrow(PatternError)
    expect(() => compileSafeRegex('(?=a)')).toThrow(PatternError)
    expect(() => compileSafeRegex('(a)\\1')).toThrow(PatternError)
  })
})
