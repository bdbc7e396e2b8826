import { Failure } from '../contract/failure.ts'
import { mergePorts } from './mergePorts.ts'
import type { PortRange } from './plan.ts'

/** More than anybody types; with it a hostile text costs nothing. */
const longestText = 65_536

/**
 * Ports as a person writes them (`80, 443, 8000-8100`, commas or white space between) as canonical ranges.
 * @throws Failure `bad-ports`, one line naming the word that is wrong.
 */
export function parsePorts(text: string): PortRange[] {
  if (text.length > longestText) throw new Failure('bad-ports', 'The list of ports is too long')
  // "8000 - 8100" is one range to a person, so spaces around the dash go first.
  const words = text.trim().replace(/\s*-\s*/g, '-').split(/\s*,\s*|\s+/)
  if (words.length === 1 && words[0] === '') throw new Failure('bad-ports', 'No ports given: write for example 80,443,8000-8100')
  return mergePorts(words.map(parseWord))
}

function parseWord(word: string): PortRange {
  if (word === '') throw new Failure('bad-ports', 'The list of ports has nothing between two commas')
  const shown = JSON.stringify(word.length > 40 ? `${word.slice(0, 40)}…` : word)
  const parts = /^([0-9]+)(?:-([0-9]+))?$/.exec(word)
  if (parts === null) throw new Failure('bad-ports', `${shown} is no port: write a number from 1 to 65535 or a range like 8000-8100`)
  const from = Number(parts[1])
  const to = parts[2] === undefined ? from : Number(parts[2])
  for (const port of [from, to]) {
    if (port < 1 || port > 65535) throw new Failure('bad-ports', `${shown} is out of range: ports go from 1 to 65535`)
  }
  if (from > to) throw new Failure('bad-ports', `${shown} runs backwards: write ${to}-${from}`)
  return { from, to }
}
