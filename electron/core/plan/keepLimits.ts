import type { GateChoice } from '../contract/bridge.ts'
import { Failure } from '../contract/failure.ts'
import { parseSize } from './parseSize.ts'

/** Of a session whose person has chosen nothing: days of a few devices, and no disk is full when a window is forgotten. */
export const usualSessionBudget = '4 GiB'

/** A record is cut into files a quarter of its budget at most: below this it would be heads and repeated facts for the most part. */
const leastSession = 2 ** 20

export interface KeepLimits {
  /** Bytes; null: no limit. */
  readonly maxBytes: number | null
  readonly maxBytesPerFlow: number | null
}

/** What a choice keeps at most, as the helper takes it. @throws Failure `usage`, in a sentence for the field. */
export function keepLimits({ session, flow }: GateChoice['keep']): KeepLimits {
  return { maxBytes: limit(session, leastSession, '1 MiB'), maxBytesPerFlow: limit(flow, 1, '1 byte') }
}

function limit(text: string, least: number, leastText: string): number | null {
  if (text.trim() === '') return null
  const bytes = parseSize(text)
  if (bytes === undefined) throw new Failure('usage', `A number of bytes such as 500M or 4 GiB, not ${JSON.stringify(text)}`)
  if (bytes < least) throw new Failure('usage', `At least ${leastText}, not ${JSON.stringify(text)}`)
  return bytes
}

/** The relay is told when it starts. */
export const keepIsFixed = 'How much is kept cannot be changed while the gate is open'

/** Whether both keep the same, however it is typed. */
export function keepsSame(one: GateChoice['keep'], other: GateChoice['keep']): boolean {
  return JSON.stringify(keepLimits(one)) === JSON.stringify(keepLimits(other))
}
