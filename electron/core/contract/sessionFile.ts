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
