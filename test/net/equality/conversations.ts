import { expect } from 'vitest'

import { labAddresses } from '#test/lab/makeLab.ts'
import type { Lab, Place } from '#test/lab/makeLab.ts'

/** Something that is under way while rules change. */
export interface Conversation {
  /** Whether the server saw another port than the client's own. */
  readonly relayed: boolean
  /** There and back, by the way it went before; unless it `lives`, datagrams may go any. `after`: what happened, should it fail. */
  say(word: string, after: string, lives?: boolean): Promise<void>
  end(): Promise<void>
}

export type Server = 'server' | 'routerToClient'

export async function converse(lab: Lab, place: Place, family: 'ipv4' | 'ipv6', server: Server = 'server', port = 8080): Promise<Conversation> {
  const peer = lab.peer(place, 'talk', labAddresses[family][server], String(port))
  const { localPort } = await peer.event(({ event }) => event === 'open')
  const greeting = String((await peer.event(({ event }) => event === 'line'))['line'])
  return {
    relayed: Number(greeting.split(' ')[2]) !== localPort,
    async say(word) {
      peer.write(`send ${word}`)
      await peer.event(({ line }) => line === word)
    },
    async end() {
      peer.write('end')
      await peer.event(({ event }) => event === 'close')
    },
  }
}

/** Datagrams from one socket, bound to a port that the relay never has, to one that nobody here has on every address: only then does a flow outlive its rules. */
export async function converseByUdp(lab: Lab, place: Place, family: 'ipv4' | 'ipv6', server: Server, bind: number): Promise<Conversation> {
  const peer = lab.peer(place, 'talk', labAddresses[family][server], '8080', '--udp', '--bind', String(bind))
  const ask = async (word: string): Promise<unknown> => {
    peer.write(`send ${word}`)
    return (await peer.event(({ event, echo }) => event === 'answer' && echo === word))['seenPort']
  }
  const first = await ask('first')
  return {
    relayed: first !== bind,
    async say(word, after, lives = true) {
      const seen = await ask(word)
      if (lives) expect(seen, `UDP of ${place} to ${server}, ${family}: ${after}`).toBe(first)
    },
    end: () => peer.stop(),
  }
}
