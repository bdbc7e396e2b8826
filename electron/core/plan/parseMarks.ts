import { Failure } from '../contract/failure.ts'
import { priorityLimits, type InterceptionPlan, type Priority } from './plan.ts'

/**
 * `FORWARDED,LOCAL,UPLINK`, one bit each, all different: `0x2000000,0x10000000,0x80000000`.
 * @throws Failure `bad-plan`
 */
export function parseMarks(text: string): InterceptionPlan['marks'] {
  const words = text.split(',').map((word) => word.trim())
  const isBit = (value: number): boolean => Number.isInteger(value) && value >= 1 && value <= 0x8000_0000 && (value & (value - 1)) === 0
  const [forwarded = 0, local = 0, uplink = 0] = words.map((word) => (/^(?:0x[0-9a-f]{1,8}|\d{1,10})$/i.test(word) ? Number(word) : 0))
  if (words.length !== 3 || ![forwarded, local, uplink].every(isBit) || new Set([forwarded, local, uplink]).size !== 3) {
    throw new Failure('bad-plan', `Marks are three different single bits, forwarded, local and uplink, such as 0x2000000,0x10000000,0x80000000, not ${JSON.stringify(text.slice(0, 80))}`)
  }
  return { forwarded, local, uplink }
}

/** @throws Failure `bad-plan` */
export function parseTable(text: string): number {
  if (!/^\d{3,10}$/.test(text) || Number(text) < 256 || Number(text) > 0x7fff_ffff) throw new Failure('bad-plan', `A routing table has a number from 256 to 2147483647, not ${JSON.stringify(text.slice(0, 40))}`)
  return Number(text)
}

/**
 * `PREROUTING,OUTPUT,RULES`, from the left as many as are meant: `-120`, `-120,-160`, `50,-150,100`.
 * @throws Failure `bad-plan`
 */
export function parsePriority(text: string): Partial<Priority> {
  const kinds = ['prerouting', 'output', 'rule'] as const
  const words = text.split(',').map((word) => word.trim())
  const isGood = (word: string, index: number): boolean => {
    const limits = kinds[index] === undefined ? undefined : priorityLimits[kinds[index]]
    return limits !== undefined && /^-?\d{1,5}$/.test(word) && Number(word) >= limits.least && Number(word) <= limits.most
  }
  if (!words.every(isGood)) throw new Failure('bad-plan', `Priorities are up to three numbers, of the chains in prerouting and output (-199 to 10000) and of the ip rules (0 to 32765), such as 50,-150,0, not ${JSON.stringify(text.slice(0, 80))}`)
  const chosen: { -readonly [Kind in keyof Priority]?: number } = {}
  for (const [index, kind] of kinds.entries()) if (words[index] !== undefined) chosen[kind] = Number(words[index])
  return chosen
}
