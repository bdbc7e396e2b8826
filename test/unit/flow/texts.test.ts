import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

import { escapeText } from '#core/flow/escapeText.ts'
import { cleanHostName, hostOfAuthority } from '#core/flow/hostName.ts'

describe('escapeText', () => {
  it.each([
    ['plain ünïcödé 漢字 😀', 'plain ünïcödé 漢字 😀'],
    ['a\tb\nc\rd', 'a\\tb\\nc\\rd'],
    ['\u001b[2Jgone', '\\x1b[2Jgone'],
    ['\u0000\u007f\u009b', '\\x00\\x7f\\x9b'],
    ['txt.\u202eexe', 'txt.\\u{202e}exe'],
    ['zero\u200bwidth\ufeff', 'zero\\u{200b}width\\u{feff}'],
    ['line\u2028end', 'line\\u{2028}end'],
    ['lone \ud800 and \udc00', 'lone \\u{d800} and \\u{dc00}'],
    ['tag \u{e0041}', 'tag \\u{e0041}'],
  ])('%j', (given, wanted) => {
    expect(escapeText(given, 1000)).toBe(wanted)
  })
  it('cuts with an ellipsis, never in the middle of a character', () => {
    expect(escapeText('abcdef', 6)).toBe('abcdef')
    expect(escapeText('abcdefg', 6)).toBe('abcde…')
    expect(escapeText('abcd😀fg', 6)).toBe('abcd…')
    expect(escapeText('abc\u001bx', 6)).toBe('abc…')
  })
  it('yields nothing a terminal or a page would act upon, in the limit, whatever comes', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 200 }), fc.integer({ min: 1, max: 120 }), (given, limit) => {
        const text = escapeText(given, limit)
        expect(text.length).toBeLessThanOrEqual(limit)
         
        expect(text).not.toMatch(/[\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]/u)
        // What has been escaped once stays as it is.
        expect(escapeText(text, limit)).toBe(text)
      }),
    )
  })
  it('takes time in proportion to the limit and not to the text', () => {
    // 64 MiB looked at whole would need far more reads than this proxy allows.
    let reads = 0
    const text = new Proxy({}, {
      get: (_, key) => {
        if (key === 'length') return 64 << 20
        if (key === 'codePointAt') return () => { reads++; return 0x78 }
        if (key === 'slice') return () => 'x'
        return undefined
      },
    }) as unknown as string
    expect(escapeText(text, 50)).toBe(`${'x'.repeat(49)}…`)
    expect(reads).toBeLessThan(60)
  })
})

describe('names of servers', () => {
  it.each([
    ['Example.TEST', 'example.test'], ['example.test.', 'example.test'], ['_dmarc.a-b.test', '_dmarc.a-b.test'], ['203.0.113.7', '203.0.113.7'],
    ['[2001:DB8::1]', '2001:db8::1'], ['2001:db8::1', '2001:db8::1'],
  ])('%s is one', (given, wanted) => {
    expect(cleanHostName(given)).toBe(wanted)
  })
  it.each(['', '.', 'a..b', '-a.test', 'a b', 'a\u001bb', 'ex\u00e4mple.test', 'a/b', '<img>', 'x'.repeat(254), 'a\n'])('%j is none', (given) => {
    expect(cleanHostName(given)).toBeUndefined()
  })
  it.each([
    ['example.test', 'example.test'], ['Example.test:8080', 'example.test'], ['[2001:db8::1]:443', '2001:db8::1'], [' example.test ', 'example.test'], ['example.test:', 'example.test'],
    ['example.test:99999999', undefined], ['a:b:c', undefined], ['user@example.test', undefined], ['', undefined],
  ])('an authority: %j', (given, wanted) => {
    expect(hostOfAuthority(given)).toBe(wanted)
  })
  it('whatever is taken needs no escaping and stays as it is', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 60 }), (given) => {
        const name = cleanHostName(given)
        if (name === undefined) return
        expect(name).toMatch(/^[a-z0-9_.:-]+$/)
        expect(cleanHostName(name)).toBe(name)
        expect(escapeText(name, 300)).toBe(name)
      }),
    )
  })
})
