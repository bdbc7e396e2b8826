import type { Bridge, BridgeCalls, BridgeEvents } from '#core/contract/bridge.ts'
import { Failure, fromFailureReport } from '#core/contract/failure.ts'

export type CallName = keyof BridgeCalls
export type CallValue<Name extends CallName> = BridgeCalls[Name]['value']
export type CallArgument<Name extends CallName> = BridgeCalls[Name]['argument']

/** The bridge as the page uses it: an answer is a value or a thrown Failure, never anything else. */
export interface Client {
  /** @throws Failure what main said, or `internal` when it did not answer at all. */
  call<Name extends CallName>(name: Name, argument: CallArgument<Name>): Promise<CallValue<Name>>
  on<Name extends keyof BridgeEvents>(name: Name, listener: (value: BridgeEvents[Name]) => void): () => void
}

export function makeClient(bridge: Bridge): Client {
  return {
    async call(name, argument) {
      let answer
      try {
        // Rune proxies cannot be cloned across processes; arguments are small and plain, so a JSON copy is the plainest way out.
        answer = await bridge.invoke(name, JSON.parse(JSON.stringify(argument)) as typeof argument)
      } catch (error) {
        throw new Failure('internal', `Sluice’s main process did not answer “${name}”`, error instanceof Error ? error.message : String(error))
      }
      if (!answer.ok) throw fromFailureReport(answer.error)
      return answer.value
    },
    on: (name, listener) => bridge.on(name, listener),
  }
}
