/**
 * Regular expressions whose time is bounded: length of text times size of pattern, whatever both are (Thompson's simulation; Russ Cox,
 * "Regular Expression Matching Can Be Simple And Fast"). A filter is a person's, but the text it meets is a stranger's, and a backtracking
 * engine would let the stranger choose how long it takes. The syntax is ECMAScript's without captures, back references and look-around;
 * ASCII case does not matter. Works on UTF-16 units. Answers yes or no, unanchored.
 */
export interface SafeRegex {
  /** Whether the pattern occurs in the first `textLimit` units of the text. */
  test(text: string): boolean
}

/** More text than this is not looked at: a bound on the work of one row. */
export const textLimit = 16_384
const programLimit = 2_000
const repeatLimit = 1_000
const depthLimit = 100

type Range = readonly [number, number]
type Instruction =
  | { op: 'set'; ranges: readonly Range[]; negated: boolean }
  | { op: 'split'; a: number; b: number }
  | { op: 'jump'; to: number }
  | { op: 'assert'; what: '^' | '$' | 'b' | 'B' }
  | { op: 'match' }

type Tree =
  | { type: 'empty' }
  | { type: 'set'; ranges: readonly Range[]; negated: boolean }
  | { type: 'assert'; what: '^' | '$' | 'b' | 'B' }
  | { type: 'sequence' | 'choice'; parts: readonly Tree[] }
  | { type: 'repeat'; part: Tree; min: number; max: number }

/** What is wrong with a pattern and where in it. */
export class PatternError extends Error {
  readonly position: number
  constructor(position: number, message: string) {
    super(message)
    this.name = 'PatternError'
    this.position = position
  }
}

const digits: readonly Range[] = [[48, 57]]
const wordUnits: readonly Range[] = [[48, 57], [65, 90], [95, 95], [97, 122]]
const spaces: readonly Range[] = [[9, 13], [32, 32], [0xa0, 0xa0], [0x1680, 0x1680], [0x2000, 0x200a], [0x2028, 0x2029], [0x202f, 0x202f], [0x205f, 0x205f], [0x3000, 0x3000], [0xfeff, 0xfeff]]
const lineEnds: readonly Range[] = [[10, 10], [13, 13], [0x2028, 0x2029]]

function complement(ranges: readonly Range[]): Range[] {
  const out: Range[] = []
  let next = 0
  for (const [from, to] of [...ranges].sort((a, b) => a[0] - b[0])) {
    if (from > next) out.push([next, from - 1])
    next = Math.max(next, to + 1)
  }
  if (next <= 0xffff) out.push([next, 0xffff])
  return out
}

/** The ranges with both cases of every ASCII letter in them. */
function bothCases(ranges: readonly Range[]): Range[] {
  const out: Range[] = [...ranges]
  for (const [from, to] of ranges) {
    const upper: Range = [Math.max(from, 65), Math.min(to, 90)]
    const lower: Range = [Math.max(from, 97), Math.min(to, 122)]
    if (upper[0] <= upper[1]) out.push([upper[0] + 32, upper[1] + 32])
    if (lower[0] <= lower[1]) out.push([lower[0] - 32, lower[1] - 32])
  }
  return out
}

class PatternParser {
  private at = 0
  private depth = 0
  private readonly pattern: string
  constructor(pattern: string) {
    this.pattern = pattern
  }

  parse(): Tree {
    if (this.pattern.startsWith('(?i)')) this.at = 4
    const tree = this.choice()
    if (this.at < this.pattern.length) throw new PatternError(this.at, 'a ")" without its "("')
    return tree
  }

  private choice(): Tree {
    if (++this.depth > depthLimit) throw new PatternError(this.at, 'groups nested too deep')
    const parts: Tree[] = [this.sequence()]
    while (this.pattern[this.at] === '|') {
      this.at++
      parts.push(this.sequence())
    }
    this.depth--
    return parts.length === 1 ? (parts[0] as Tree) : { type: 'choice', parts }
  }

  private sequence(): Tree {
    const parts: Tree[] = []
    while (this.at < this.pattern.length) {
      const unit = this.pattern[this.at]
      if (unit === '|' || unit === ')') break
      parts.push(this.repeated(this.atom()))
    }
    return parts.length === 0 ? { type: 'empty' } : parts.length === 1 ? (parts[0] as Tree) : { type: 'sequence', parts }
  }

  private repeated(part: Tree): Tree {
    const start = this.at
    const counts = this.quantifier()
    if (counts === undefined) return part
    if (part.type === 'assert') throw new PatternError(start, 'nothing to repeat')
    // Lazy and greedy differ in what they take, not in whether they match.
    if (this.pattern[this.at] === '?') this.at++
    if (this.quantifier() !== undefined) throw new PatternError(this.at - 1, 'nothing to repeat')
    return { type: 'repeat', part, ...counts }
  }

  private quantifier(): { min: number; max: number } | undefined {
    const unit = this.pattern[this.at]
    if (unit === '*' || unit === '+' || unit === '?') {
      this.at++
      return { min: unit === '+' ? 1 : 0, max: unit === '?' ? 1 : Infinity }
    }
    if (unit !== '{') return undefined
    const counted = /^\{(\d{1,6})(,(\d{0,6}))?\}/.exec(this.pattern.slice(this.at, this.at + 16))
    if (counted === null) return undefined
    const min = Number(counted[1])
    const max = counted[2] === undefined ? min : counted[3] === '' ? Infinity : Number(counted[3])
    if (max < min) throw new PatternError(this.at, 'the counts in { } are the wrong way round')
    if (min > repeatLimit || (max !== Infinity && max > repeatLimit)) throw new PatternError(this.at, `a count above ${repeatLimit}`)
    this.at += counted[0].length
    return { min, max }
  }

  private atom(): Tree {
    const unit = this.pattern[this.at] as string
    switch (unit) {
      case '^':
      case '$':
        this.at++
        return { type: 'assert', what: unit }
      case '.':
        this.at++
        return { type: 'set', ranges: lineEnds, negated: true }
      case '(':
        return this.group()
      case '[':
        return this.unitClass()
      case '\\':
        return this.escape()
      case '*':
      case '+':
      case '?':
        throw new PatternError(this.at, 'nothing to repeat')
      default: {
        if (unit === '{' && /^\{\d+(,\d*)?\}/.test(this.pattern.slice(this.at, this.at + 16))) throw new PatternError(this.at, 'nothing to repeat')
        this.at++
        return literal(unit.charCodeAt(0))
      }
    }
  }

  private group(): Tree {
    const start = this.at++
    if (this.pattern[this.at] === '?') {
      if (this.pattern[this.at + 1] === ':') this.at += 2
      else throw new PatternError(this.at, 'look-around and named groups are not known here')
    }
    const inner = this.choice()
    if (this.pattern[this.at] !== ')') throw new PatternError(start, 'a "(" without its ")"')
    this.at++
    // A bare ^ cannot be repeated, a group of it can.
    return inner.type === 'assert' ? { type: 'sequence', parts: [inner] } : inner
  }

  private escape(): Tree {
    const next = this.pattern[this.at + 1]
    if (next === 'b' || next === 'B') {
      this.at += 2
      return { type: 'assert', what: next }
    }
    const { ranges } = this.escaped()
    return { type: 'set', ranges: bothCases(ranges), negated: false }
  }

  /** One escape, in or outside a class; `single` when it stands for one unit and so may begin or end a range. */
  private escaped(): { ranges: readonly Range[]; single?: number } {
    const start = this.at++
    const unit = this.pattern[this.at++]
    const one = (code: number): { ranges: readonly Range[]; single: number } => ({ ranges: [[code, code]], single: code })
    switch (unit) {
      case undefined: throw new PatternError(start, 'a "\\" at the end')
      case 'd': return { ranges: digits }
      case 'D': return { ranges: complement(digits) }
      case 'w': return { ranges: wordUnits }
      case 'W': return { ranges: complement(wordUnits) }
      case 's': return { ranges: spaces }
      case 'S': return { ranges: complement(spaces) }
      case 'n': return one(10)
      case 'r': return one(13)
      case 't': return one(9)
      case 'f': return one(12)
      case 'v': return one(11)
      case '0':
        // Followed by a digit the language takes it for an octal number.
        if (/[0-9]/.test(this.pattern[this.at] ?? '')) throw new PatternError(start, 'octal numbers are not known here')
        return one(0)
      case 'x': return one(this.hex(2, start))
      case 'u': return one(this.hex(4, start))
      default:
        if (/[1-9]/.test(unit)) throw new PatternError(start, 'back references are not known here')
        if (/[a-z]/i.test(unit)) throw new PatternError(start, `"\\${unit}" means nothing here`)
        return one(unit.charCodeAt(0))
    }
  }

  private hex(length: number, start: number): number {
    const text = this.pattern.slice(this.at, this.at + length)
    if (text.length !== length || !/^[0-9a-f]+$/i.test(text)) throw new PatternError(start, `${length} hexadecimal digits are missing`)
    this.at += length
    return Number.parseInt(text, 16)
  }

  private unitClass(): Tree {
    const start = this.at++
    const negated = this.pattern[this.at] === '^'
    if (negated) this.at++
    const ranges: Range[] = []
    while (this.pattern[this.at] !== ']') {
      const from = this.classUnit(start)
      const dash = this.pattern[this.at] === '-' && this.pattern[this.at + 1] !== ']' && this.pattern[this.at + 1] !== undefined
      if (!dash) {
        ranges.push(...from.ranges)
        continue
      }
      const position = this.at++
      const to = this.classUnit(start)
      if (from.single === undefined || to.single === undefined || to.single < from.single) throw new PatternError(position, 'a range in [ ] that is none')
      ranges.push([from.single, to.single])
    }
    this.at++
    return { type: 'set', ranges: bothCases(ranges), negated }
  }

  private classUnit(start: number): { ranges: readonly Range[]; single?: number } {
    const unit = this.pattern[this.at]
    if (unit === undefined) throw new PatternError(start, 'a "[" without its "]"')
    if (unit === '\\') {
      if (this.pattern[this.at + 1] === 'b') {
        this.at += 2
        return { ranges: [[8, 8]], single: 8 }
      }
      return this.escaped()
    }
    this.at++
    const code = unit.charCodeAt(0)
    return { ranges: [[code, code]], single: code }
  }
}

function literal(code: number): Tree {
  return { type: 'set', ranges: bothCases([[code, code]]), negated: false }
}

class Compiler {
  readonly program: Instruction[] = []

  private emit(instruction: Instruction): number {
    if (this.program.length >= programLimit) throw new PatternError(0, 'the pattern is too big')
    return this.program.push(instruction) - 1
  }

  add(tree: Tree): void {
    switch (tree.type) {
      case 'empty': return
      case 'set': this.emit({ op: 'set', ranges: tree.ranges, negated: tree.negated }); return
      case 'assert': this.emit({ op: 'assert', what: tree.what }); return
      case 'sequence': for (const part of tree.parts) this.add(part); return
      case 'choice': this.addChoice(tree.parts); return
      case 'repeat': this.addRepeat(tree.part, tree.min, tree.max); return
    }
  }

  private addChoice(parts: readonly Tree[]): void {
    const ends: number[] = []
    parts.forEach((part, index) => {
      if (index === parts.length - 1) {
        this.add(part)
        return
      }
      const split = this.emit({ op: 'split', a: this.program.length + 1, b: 0 })
      this.add(part)
      ends.push(this.emit({ op: 'jump', to: 0 }))
      this.program[split] = { op: 'split', a: split + 1, b: this.program.length }
    })
    for (const end of ends) this.program[end] = { op: 'jump', to: this.program.length }
  }

  private addRepeat(part: Tree, min: number, max: number): void {
    for (let i = 0; i < min; i++) {
      const before = this.program.length
      this.add(part)
      // A group that is empty stays so however often: without this, (((){1000}){1000}){1000} would be counted through.
      if (this.program.length === before) return
    }
    if (max === Infinity) {
      const split = this.emit({ op: 'split', a: this.program.length + 1, b: 0 })
      this.add(part)
      this.emit({ op: 'jump', to: split })
      this.program[split] = { op: 'split', a: split + 1, b: this.program.length }
      return
    }
    const splits: number[] = []
    for (let i = min; i < max; i++) {
      splits.push(this.emit({ op: 'split', a: this.program.length + 1, b: 0 }))
      const before = this.program.length
      this.add(part)
      if (this.program.length === before) break
    }
    for (const split of splits) this.program[split] = { op: 'split', a: split + 1, b: this.program.length }
  }
}

const isWord = (code: number): boolean => (code >= 48 && code <= 57) || (code >= 65 && code <= 90) || code === 95 || (code >= 97 && code <= 122)

function holds(what: '^' | '$' | 'b' | 'B', text: string, at: number, end: number): boolean {
  if (what === '^') return at === 0
  if (what === '$') return at === end
  const before = at > 0 && isWord(text.charCodeAt(at - 1))
  const after = at < end && isWord(text.charCodeAt(at))
  return (before !== after) === (what === 'b')
}

class Matcher implements SafeRegex {
  private readonly program: readonly Instruction[]
  /** Step at which an instruction was last put on the list: each stands there once. */
  private readonly seen: Uint32Array
  private readonly stack: number[] = []
  private step = 0

  constructor(program: readonly Instruction[]) {
    this.program = program
    this.seen = new Uint32Array(program.length)
  }

  test(text: string): boolean {
    const end = Math.min(text.length, textLimit)
    let current: number[] = []
    let next: number[] = []
    for (let at = 0; ; at++) {
      this.step++
      if (this.step === 0xffff_ffff) {
        this.seen.fill(0)
        this.step = 1
      }
      const active = this.spread(current, text, at, end)
      if (active === null) return true
      if (at >= end) return false
      const code = text.charCodeAt(at)
      next.length = 0
      for (const pc of active) {
        const instruction = this.program[pc] as Instruction & { op: 'set' }
        if (inSet(instruction.ranges, code) !== instruction.negated) next.push(pc + 1)
      }
      ;[current, next] = [next, current]
    }
  }

  /** All `set` instructions reachable from these and from the start without taking a unit; null: `match` is. */
  private spread(from: readonly number[], text: string, at: number, end: number): number[] | null {
    const out: number[] = []
    const stack = this.stack
    stack.length = 0
    stack.push(0)
    for (const pc of from) stack.push(pc)
    while (stack.length > 0) {
      const pc = stack.pop() as number
      if (this.seen[pc] === this.step) continue
      this.seen[pc] = this.step
      const instruction = this.program[pc] as Instruction
      switch (instruction.op) {
        case 'match': return null
        case 'jump': stack.push(instruction.to); break
        case 'split': stack.push(instruction.a, instruction.b); break
        case 'assert': if (holds(instruction.what, text, at, end)) stack.push(pc + 1); break
        case 'set': out.push(pc); break
      }
    }
    return out
  }
}

function inSet(ranges: readonly Range[], code: number): boolean {
  for (const range of ranges) if (code >= range[0] && code <= range[1]) return true
  return false
}

/** Throws PatternError. */
export function compileSafeRegex(pattern: string): SafeRegex {
  const compiler = new Compiler()
  compiler.add(new PatternParser(pattern).parse())
  return new Matcher([...compiler.program, { op: 'match' }])
}
