import type { LabProcess } from '#test/lab/labProcess.ts'
import { peerProgram, type Lab, type Place } from '#test/lab/makeLab.ts'
import type { AppliedRules } from './applyRules.ts'
import type { TestRelay } from './testRelay.ts'

export type Exchange = Record<string, unknown> & { readonly relayed: boolean }

/** One exchange, and whether the relay took it. `enter`: words in front of the program that asks. */
export async function exchange(lab: Lab, relay: TestRelay, place: Place, address: string, port: string, enter: readonly string[] = []): Promise<Exchange> {
  const total = await relay.total()
  const answer = await lab.spawn(place, [...enter, process.execPath, peerProgram, 'ask', address, port, '--timeout', '10000']).event(() => true)
  return { ...answer, relayed: (await relay.total()) > total }
}

export type Talk = LabProcess & { say(word: string): Promise<void> }

/** A connection that stays; `say` sends a line and awaits its echo. */
export async function startTalk(lab: Lab, place: Place, address: string, port: string, more: readonly string[] = []): Promise<Talk> {
  const peer = lab.peer(place, 'talk', address, port, ...more)
  await peer.event((event) => event['event'] === 'line')
  return Object.assign(peer, {
    async say(word: string) {
      peer.write(`send ${word}`)
      await peer.event((event) => event['event'] === 'line' && event['line'] === word)
    },
  })
}

/** After each test: whoever still talks, then the rules, then the relay. */
export async function leave(running: Set<LabProcess>, rules: AppliedRules | undefined, relay: TestRelay): Promise<void> {
  for (const each of running) await each.stop()
  running.clear()
  await rules?.remove()
  await relay.stop()
}
