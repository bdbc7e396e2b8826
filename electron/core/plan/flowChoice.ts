import { mostFlows } from '../contract/flowLimit.ts'
import { Failure } from '../contract/failure.ts'

/** Flows at once as typed; undefined for an empty text: the usual. @throws Failure `usage`, in a sentence for the field. */
export function flowChoice(text: string): number | undefined {
  const typed = text.trim()
  if (typed === '') return undefined
  if (!/^\d{1,7}$/.test(typed) || Number(typed) < 1 || Number(typed) > mostFlows) throw new Failure('usage', `A number from 1 to ${String(mostFlows)}, not ${JSON.stringify(typed)}`)
  return Number(typed)
}

/** The relay is told when it starts. */
export const flowsAreFixed = 'How many flows there may be at once cannot be changed while the gate is open'
