import { FilterFailure } from './filterNode.ts'
import type { CompareOperator, FilterNode, FilterRange, FilterValue } from './filterNode.ts'
import { fields, findField } from './fields.ts'
import type { Field } from './fields.ts'
import { nearest } from './nearest.ts'
import { kindExamples, parseValue } from './parseValue.ts'
import { compileSafeRegex, PatternError } from './safeRegex.ts'

/** Characters of a filter, and how deep its parentheses may go: bounds for text that comes over a process border. */
export const filterLimit = 10_000
const depthLimit = 200
const itemLimit = 1_000

type Operator = CompareOperator | 'contains' | 'matches' | 'in'
const wordOperators: Readonly<Record<string, Operator>> = {
  eq: '==', ne: '!=', gt: '>', lt: '<', ge: '>=', le: '<=', contains: 'contains', matches: 'matches', in: 'in',
}
/** Longest first. */
const signOperators: readonly (readonly [string, Operator])[] = [
  ['===', '=='], ['!==', '!='], ['==', '=='], ['!=', '!='], ['>=', '>='], ['<=', '<='], ['=', '=='], ['>', '>'], ['<', '<'], ['~', 'matches'],
]

/** mitmproxy's second spelling: with a regular expression, with a number, or alone. */
const tildes: Readonly<Record<string, { readonly takes: 'pattern' | 'status' | 'nothing'; readonly make: (argument: string) => FilterNode }>> = {
  d: { takes: 'pattern', make: (pattern) => anyMatch(['name', 'server'], pattern) },
  u: { takes: 'pattern', make: (pattern) => ({ kind: 'matches', field: 'url', pattern }) },
  m: { takes: 'pattern', make: (pattern) => ({ kind: 'matches', field: 'method', pattern }) },
  c: { takes: 'status', make: (status) => ({ kind: 'compare', field: 'status', operator: '==', value: { type: 'number', number: Number(status) } }) },
  src: { takes: 'pattern', make: (pattern) => ({ kind: 'matches', field: 'client', pattern }) },
  dst: { takes: 'pattern', make: (pattern) => ({ kind: 'matches', field: 'server', pattern }) },
  http: { takes: 'nothing', make: () => ({ kind: 'present', field: 'http' }) },
  tcp: { takes: 'nothing', make: () => ({ kind: 'present', field: 'tcp' }) },
  tls: { takes: 'nothing', make: () => ({ kind: 'present', field: 'tls' }) },
  e: { takes: 'nothing', make: () => ({ kind: 'present', field: 'error' }) },
  q: { takes: 'nothing', make: () => ({ kind: 'and', parts: [{ kind: 'present', field: 'http' }, { kind: 'not', part: { kind: 'present', field: 'status' } }] }) },
  s: { takes: 'nothing', make: () => ({ kind: 'present', field: 'status' }) },
  all: { takes: 'nothing', make: () => ({ kind: 'all' }) },
}
export const tildeNames: readonly string[] = Object.keys(tildes)

function anyMatch(names: readonly string[], pattern: string): FilterNode {
  return { kind: 'or', parts: names.map((field) => ({ kind: 'matches', field, pattern })) }
}

const isSpace = (unit: string | undefined): boolean => unit !== undefined && /\s/.test(unit)
/** What ends a plain word. */
const wordEnd = /[\s()"'=!<>&|~{},]/
/** What ends an unquoted value: less, since `/a?b=c` and `a|b` are values. */
const valueEnd = /[\s(){},"']/

class Parser {
  private at = 0
  private depth = 0
  private readonly text: string
  constructor(text: string) {
    this.text = text
  }

  parse(): FilterNode {
    this.skip()
    if (this.at >= this.text.length) return { kind: 'all' }
    const node = this.or()
    if (this.at < this.text.length) this.fail(this.text[this.at] === ')' ? 'a ")" without its "("' : `"${this.text[this.at]}" does not fit here`, 'and, or, or the end')
    return node
  }

  private fail(problem: string, expected: string, position = this.at): never {
    throw new FilterFailure(position, problem, expected)
  }
  private skip(): void {
    while (isSpace(this.text[this.at])) this.at++
  }
  /** The word here, in lower case, if it is made of letters alone. */
  private letters(): string {
    return /^[A-Za-z]+(?![\w.:/-])/.exec(this.text.slice(this.at, this.at + 16))?.[0].toLowerCase() ?? ''
  }
  private takeSign(...signs: readonly string[]): boolean {
    for (const sign of signs) {
      if (!this.text.startsWith(sign, this.at)) continue
      this.at += sign.length
      this.skip()
      return true
    }
    return false
  }
  private takeWord(word: string): boolean {
    if (this.letters() !== word) return false
    this.at += word.length
    this.skip()
    return true
  }

  private or(): FilterNode {
    const parts = [this.and()]
    while (this.takeSign('||', '|') || this.takeWord('or')) parts.push(this.and())
    return parts.length === 1 ? (parts[0] as FilterNode) : { kind: 'or', parts }
  }

  private and(): FilterNode {
    const parts = [this.not()]
    for (;;) {
      if (this.takeSign('&&', '&') || this.takeWord('and')) parts.push(this.not())
      else if (this.at < this.text.length && !')|'.includes(this.text[this.at] as string) && this.letters() !== 'or') parts.push(this.not())
      else break
    }
    return parts.length === 1 ? (parts[0] as FilterNode) : { kind: 'and', parts }
  }

  private not(): FilterNode {
    if (++this.depth > depthLimit) this.fail('nested too deep', `at most ${depthLimit} levels`)
    const negated = (this.text[this.at] === '!' && this.text[this.at + 1] !== '=' && this.takeSign('!')) || this.takeWord('not')
    const node: FilterNode = negated ? { kind: 'not', part: this.not() } : this.operand()
    this.depth--
    return node
  }

  private operand(): FilterNode {
    const unit = this.text[this.at]
    if (unit === undefined) this.fail('the filter ends too early', 'a field, a word or "("')
    if (unit === '(') return this.group()
    if (unit === '~') return this.tilde()
    if (unit === '"' || unit === "'") return this.word(this.quoted())
    const start = this.at
    while (this.at < this.text.length && !wordEnd.test(this.text[this.at] as string)) this.at++
    if (this.at === start) this.fail(`"${unit}" does not fit here`, 'a field, a word or "("')
    const word = this.text.slice(start, this.at)
    if (['and', 'or'].includes(word.toLowerCase())) this.fail(`nothing stands before "${word}"`, 'a field, a word or "("', start)
    this.skip()
    const operator = this.operator()
    const field = findField(word)
    if (operator === undefined) return field === undefined ? this.word(word) : { kind: 'present', field: field.name }
    if (field === undefined) {
      const close = nearest(word, fields.flatMap((each) => [each.name, ...each.aliases]))
      this.fail(`"${word}" is no field`, close === undefined ? 'a field such as port, name, process or status' : `a field (did you mean ${close}?)`, start)
    }
    return this.comparison(field, operator)
  }

  private word(text: string): FilterNode {
    this.skip()
    return { kind: 'word', text }
  }

  private group(): FilterNode {
    const start = this.at
    this.takeSign('(')
    if (this.text[this.at] === ')') this.fail('nothing between the parentheses', 'a field, a word or "("')
    const inner = this.or()
    if (!this.takeSign(')')) this.fail('a "(" without its ")"', 'and, or, or ")"', this.at < this.text.length ? this.at : start)
    return inner
  }

  private operator(): Operator | undefined {
    const named = Object.hasOwn(wordOperators, this.letters()) ? wordOperators[this.letters()] : undefined
    if (named !== undefined) {
      this.at += this.letters().length
      this.skip()
      return named
    }
    if (this.text[this.at] === '~' && this.startsTilde()) return undefined
    for (const [sign, operator] of signOperators) if (this.takeSign(sign)) return operator
    return undefined
  }

  /** `http ~d x` is two terms, `name ~ x` and `name~x` are one: a space before and one of mitmproxy's letters after make it the former. */
  private startsTilde(): boolean {
    if (!isSpace(this.text[this.at - 1])) return false
    const name = /^~(\w+)(?=\s|\)|$)/.exec(this.text.slice(this.at, this.at + 16))?.[1]
    return name !== undefined && Object.hasOwn(tildes, name)
  }

  private tilde(): FilterNode {
    const start = this.at++
    const name = /^\w*/.exec(this.text.slice(this.at, this.at + 16))?.[0] ?? ''
    const known = Object.hasOwn(tildes, name) ? tildes[name] : undefined
    if (known === undefined) this.fail(`"~${name}" is not known`, `one of ${tildeNames.map((each) => `~${each}`).join(' ')}`, start)
    this.at += name.length
    this.skip()
    if (known.takes === 'nothing') return known.make('')
    const position = this.at
    const argument = this.value(known.takes === 'status' ? 'a status' : 'a regular expression')
    if (known.takes === 'status' && !/^\d{3}$/.test(argument)) this.fail(`"${argument}" is no status`, 'three digits', position)
    if (known.takes === 'pattern') this.checkPattern(argument, position)
    return known.make(argument)
  }

  private comparison(field: Field, operator: Operator): FilterNode {
    if (operator === 'in') return { kind: 'in', field: field.name, items: this.items(field) }
    const position = this.at
    if (operator === 'matches') {
      const pattern = this.value('a regular expression')
      this.checkPattern(pattern, position)
      return { kind: 'matches', field: field.name, pattern }
    }
    if (operator === 'contains') return { kind: 'contains', field: field.name, text: this.value('text') }
    if (operator !== '==' && operator !== '!=' && ['text', 'address', 'flag'].includes(field.kind)) {
      this.fail(`${field.name} has no order`, '==, !=, contains, matches or in', position)
    }
    return { kind: 'compare', field: field.name, operator, value: this.typed(field) }
  }

  private typed(field: Field): FilterValue {
    const position = this.at
    const text = this.value(kindExamples[field.kind])
    const value = parseValue(field, text)
    if (value === undefined) this.fail(`"${text}" does not fit ${field.name}`, kindExamples[field.kind], position)
    return value
  }

  /** `{a, b, 80-90}`; Wireshark's `80..90` too; blanks or commas between. */
  private items(field: Field): (FilterValue | FilterRange)[] {
    if (!this.takeSign('{')) this.fail('a list is missing', '"{" and values, such as {80, 443, 8000-8100}')
    const items: (FilterValue | FilterRange)[] = []
    for (;;) {
      while (this.takeSign(',')) if (items.length === 0) this.fail('a value is missing', kindExamples[field.kind], this.at - 1)
      if (this.takeSign('}')) break
      if (this.at >= this.text.length) this.fail('a "{" without its "}"', 'a value or "}"')
      if (items.length >= itemLimit) this.fail('the list is too long', `at most ${itemLimit} values`)
      items.push(this.item(field))
    }
    if (items.length === 0) this.fail('the list is empty', kindExamples[field.kind])
    return items
  }

  private item(field: Field): FilterValue | FilterRange {
    const ordered = !['text', 'address', 'flag', 'time'].includes(field.kind)
    if (ordered) {
      const match = /^([^\s,{}()"'-][^\s,{}()"'-]*?)\s*(?:-|\.\.)\s*([^\s,{}()"'-]+)/.exec(this.text.slice(this.at, this.at + 200))
      const from = match === null ? undefined : parseValue(field, match[1] as string)
      const to = match === null ? undefined : parseValue(field, match[2] as string)
      if (match !== null && from?.type === 'number' && to?.type === 'number') {
        if (to.number < from.number) this.fail(`the range ${match[0]} runs backwards`, 'the smaller value first')
        this.at += match[0].length
        this.skip()
        return { type: 'range', from: from.number, to: to.number }
      }
    }
    return this.typed(field)
  }

  private checkPattern(pattern: string, position: number): void {
    try {
      compileSafeRegex(pattern)
    } catch (error) {
      if (error instanceof PatternError) {
        const quote = /["']/.test(this.text[position] ?? '') ? 1 : 0
        this.fail(`in the regular expression: ${error.message}`, 'a regular expression', Math.min(position + quote + error.position, this.text.length))
      }
      throw error
    }
  }

  private value(expected: string): string {
    const unit = this.text[this.at]
    if (unit === '"' || unit === "'") {
      const text = this.quoted()
      this.skip()
      return text
    }
    const start = this.at
    while (this.at < this.text.length && !valueEnd.test(this.text[this.at] as string)) this.at++
    if (this.at === start) this.fail('a value is missing', expected)
    const text = this.text.slice(start, this.at)
    this.skip()
    return text
  }

  /** In double or single quotes; a backslash takes the next character as it is before a quote or a backslash, and stands for itself before others (so that regexes need no doubling). */
  private quoted(): string {
    const start = this.at
    const quote = this.text.charAt(this.at++)
    let text = ''
    for (;;) {
      const unit = this.text[this.at++]
      if (unit === undefined) {
        this.at = this.text.length
        this.fail('a quote is not closed', `a closing ${quote}`, start)
      }
      if (unit === quote) return text
      const next = this.text[this.at]
      if (unit === '\\' && (next === quote || next === '\\')) {
        // "\\." is the regex \. written carefully; "\." is the same written plainly.
        text += next
        this.at++
      } else text += unit
    }
  }
}

/**
 * Reads a filter: Wireshark-like comparisons (`port == 443 and name contains example`), bare fields (present), plain words (free text), mitmproxy's
 * `~d` and friends; terms side by side mean *and*. Empty text matches every flow.
 * @throws FilterFailure (`bad-filter`) with position and what was expected.
 */
export function parseFilter(text: string): FilterNode {
  if (text.length > filterLimit) throw new FilterFailure(filterLimit, 'the filter is too long', `at most ${filterLimit} characters`)
  return new Parser(text).parse()
}
