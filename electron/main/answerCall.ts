import * as v from 'valibot'

import type { BridgeAnswer, BridgeCalls } from '#core/contract/bridge.ts'
import { bridgeArguments } from '#core/contract/bridgeArguments.ts'
import { toFailureReport } from '#core/contract/failure.ts'

import { pageOrigin } from './pagePolicy.ts'

type Awaitable<T> = T | Promise<T>
export type BridgeHandlers = { readonly [Name in keyof BridgeCalls]: (argument: BridgeCalls[Name]['argument']) => Awaitable<BridgeCalls[Name]['value']> }

interface Sender {
  readonly origin: string
  readonly url: string
  readonly parent: unknown
}

/** The main frame of our own page, and no other page, frame or worker. */
export function isOwnPage(frame: Sender | null): boolean {
  return frame !== null && frame.parent === null && frame.origin === pageOrigin && frame.url.startsWith(`${pageOrigin}/`)
}

/** One call: known name, checked argument; whatever fails becomes an answer, as an exception would lose its code on the way. */
export async function answerCall(handlers: BridgeHandlers, name: unknown, argument: unknown): Promise<BridgeAnswer<keyof BridgeCalls>> {
  try {
    if (typeof name !== 'string' || !Object.hasOwn(bridgeArguments, name)) return { ok: false, error: { code: 'protocol', message: 'the page asked for something unknown' } }
    const known = name as keyof BridgeCalls
    const checked = v.safeParse(bridgeArguments[known], argument)
    if (!checked.success) return { ok: false, error: { code: 'protocol', message: `the page asked for ${known} with a wrong argument`, detail: v.summarize(checked.issues).slice(0, 2000) } }
    const handler = handlers[known] as (argument: unknown) => unknown
    return { ok: true, value: (await handler(checked.output)) as BridgeCalls[typeof known]['value'] }
  } catch (error) {
    return { ok: false, error: toFailureReport(error) }
  }
}
