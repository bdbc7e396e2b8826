import { parseArgs } from 'node:util'

import { Failure } from '#core/contract/failure.ts'
import { nearest } from '#core/filter/nearest.ts'

export interface OptionShape {
  readonly type: 'string' | 'boolean'
  readonly short?: string
  readonly multiple?: boolean
}
export type OptionShapes = Readonly<Record<string, OptionShape>>
type Value<Shape extends OptionShape> = Shape extends { type: 'boolean' } ? boolean : Shape extends { multiple: true } ? string[] : string
export type Options<Shapes extends OptionShapes> = { [Name in keyof Shapes]?: Value<Shapes[Name]> }

export interface Parsed<Shapes extends OptionShapes> {
  readonly values: Options<Shapes>
  readonly positionals: readonly string[]
}

const usage = (message: string): Failure => new Failure('usage', message)

/** node:util parseArgs with sentences of our own, a suggestion for what is misspelt, and the same option twice refused where it takes one value. */
export function parseOptions<const Shapes extends OptionShapes>(args: readonly string[], shapes: Shapes): Parsed<Shapes> {
  const options = { help: { type: 'boolean', short: 'h' }, ...shapes } as Record<string, OptionShape>
  const { tokens, positionals } = parseArgs({ args: [...args], options: options as never, strict: false, allowPositionals: true, tokens: true })
  const values: Record<string, string | boolean | string[]> = {}
  for (const token of tokens as readonly { kind: string; name: string; rawName: string; value?: string | undefined; inlineValue?: boolean | undefined }[]) {
    if (token.kind !== 'option') continue
    const shape = Object.hasOwn(options, token.name) ? (options[token.name] as OptionShape) : undefined
    if (shape === undefined) throw unknownOption(token.rawName, Object.keys(options))
    if (shape.type === 'boolean') {
      if (token.value !== undefined) throw usage(`${token.rawName} takes no value`)
      values[token.name] = true
      continue
    }
    // `-o --json`: the next option is not a file name.
    if (token.value === undefined || (token.inlineValue !== true && /^--?[a-z]/.test(token.value))) throw usage(`${token.rawName} needs a value`)
    const before = values[token.name]
    if (shape.multiple === true) values[token.name] = [...((before as string[] | undefined) ?? []), token.value]
    else if (before !== undefined) throw usage(`${token.rawName} is there twice`)
    else values[token.name] = token.value
  }
  return { values: values as Options<Shapes>, positionals }
}

function unknownOption(raw: string, known: readonly string[]): Failure {
  const close = raw.startsWith('--') ? nearest(raw.slice(2), known) : undefined
  return usage(`unknown option ${raw}${close === undefined ? '' : ` (did you mean --${close}?)`}`)
}

/** Exactly these positional arguments, by name. */
export function takePositionals(positionals: readonly string[], ...names: readonly string[]): string[] {
  if (positionals.length < names.length) throw usage(`${names[positionals.length] as string} is missing`)
  if (positionals.length > names.length) throw usage(`"${positionals[names.length] as string}" is one argument too many`)
  return [...positionals]
}
