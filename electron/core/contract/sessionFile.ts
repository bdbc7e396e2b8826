import * as v from 'valibot'

import { planShape } from '../plan/plan.ts'

/** `session.json` in a session folder. Readers accept format 1 and refuse a newer one by name. */
export const sessionFileShape = v.object({
  format: v.literal(1),
  tool: v.literal('sluice'),
  version: v.string(),
  startedAt: v.string(),
  plan: v.nullable(planShape),
  payload: v.boolean(),
})
export type SessionFile = v.InferOutput<typeof sessionFileShape>
export const captureFileName = 'capture-000001.pcapng'
export const sessionFileName = 'session.json'
export const indexFileName = 'index.db'

const captureName = /^capture-([0-9]{6,9})\.pcapng$/

/** The number of the segment a file of that name holds, 1 or more; null for any other name. */
export function segmentOf(fileName: string): number | null {
  const digits = captureName.exec(fileName)?.[1]
  const number = digits === undefined ? 0 : Number(digits)
  return number > 0 && segmentName(number) === fileName ? number : null
}

export function segmentName(segment: number): string {
  return `capture-${String(segment).padStart(6, '0')}.pcapng`
}
