import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { describe, expect, test } from 'vitest'

import { labAddresses } from '#test/lab/makeLab.ts'
import type { Place } from '#test/lab/makeLab.ts'
import { openGate, planFor, snapshot } from '#test/net/helper/harness.ts'

import { folder, helper, lab, programs, withOrigin } from './stage.ts'
import { ask, flowsOf, untilListening } from './support.ts'

// Where new flows go, and whether they wait for their server, chosen anew while others run: those go on as they began.

withOrigin()

const server = labAddresses.ipv4.server
const places = ['client', 'router'] as const

/** HAProxy that takes both the PROXY protocol and connections as they are. */
async function startHaproxy(): Promise<void> {
  const config = join(folder, 'haproxy.cfg')
  writeFileSync(config, `defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:8888 accept-proxy
  bind 127.0.0.1:8889 transparent
  default_backend b
backend b
  server orig 0.0.0.0
`)
  lab.spawn('router', ['haproxy', '-db', '-f', config])
  await untilListening(lab, '127.0.0.1:8889')
}

async function converse(place: Place) {
  const peer = lab.peer(place, 'talk', server, '8080')
  await peer.event(({ event }) => event === 'line')
  return {
    async say(word: string) {
      peer.write(`send ${word}`)
      await peer.event(({ event, line }) => event === 'line' && line === word)
    },
    async end() {
      peer.write('end')
      await peer.event(({ event }) => event === 'close')
    },
  }
}

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  test('where flows are sent: new ones go the new way, those under way go on', async () => {
    await startHaproxy()
    const { folder: session } = await openGate(helper, programs, backend, { tcp: '8080', scope: ['local', 'forwarded'] })
    const ways = ['', '8080=proxy2:127.0.0.1:8888', '8080=tproxy:8889', '8080=proxy2:127.0.0.1:8888', ''] as const
    const running: Awaited<ReturnType<typeof converse>>[] = []
    for (const [index, way] of ways.entries()) {
      if (index > 0) await helper.request('change', planFor({ backend, tcp: '8080', send: way === '' ? [] : [way], scope: ['local', 'forwarded'] }))
      for (const place of places) {
        expect(await ask(lab, place, server, 8080), `${place} ${way}`).toMatchObject({ ok: true, server: 'origin', echo: 'hello' })
        running.push(await converse(place))
      }
      for (const each of running) await each.say(`word-${String(index)}`)
    }
    for (const each of running) await each.end()
    await helper.request('close', {})
    // Each way was gone by two flows from each place; HAProxy's own stand besides.
    const flows = (await flowsOf(session)).filter(({ row }) => row.process?.name !== 'haproxy')
    expect(flows.map(({ row, via }) => `${row.scope} ${row.state} ${via ?? ''}`).sort()).toEqual(
      ways.flatMap((way) => ['forwarded', 'local'].flatMap((scope) => [1, 2].map(() => `${scope} finished ${way.replace('8080=', '')}`))).sort(),
    )
  })

  test('whether connections wait for their server: closed ports look closed from then on, and back', async () => {
    const { folder: session } = await openGate(helper, programs, backend, { tcp: '8080,8081', hold: false })
    const running: Awaited<ReturnType<typeof converse>>[] = []
    for (const [index, hold] of [false, true, false, true].entries()) {
      if (index > 0) await helper.request('change', planFor({ backend, tcp: '8080,8081', hold }))
      for (const place of places) {
        // Nobody listens on 8081.
        expect(await ask(lab, place, server, 8081), `${place} ${String(hold)}`).toMatchObject({ ok: false, error: hold ? 'ECONNREFUSED' : 'ECONNRESET' })
        expect(await ask(lab, place, server, 8080)).toMatchObject({ ok: true, echo: 'hello' })
        running.push(await converse(place))
      }
      for (const each of running) await each.say(`word-${String(index)}`)
    }
    for (const each of running) await each.end()
    await helper.request('close', {})
    const flows = await flowsOf(session)
    expect(flows.filter(({ row }) => row.state === 'finished')).toHaveLength(16)
    expect(flows.filter(({ row }) => row.state === 'refused')).toHaveLength(8)
  })
})

test('a relay that hangs is found out while it is told, and nothing is put in after that', async () => {
  const before = await snapshot(lab)
  const { relayPid } = await openGate(helper, programs, 'nft', { tcp: '8080' })
  process.kill(relayPid, 'SIGSTOP')
  await expect(helper.request('change', planFor({ backend: 'nft', tcp: '8080,8081', send: ['8080=proxy2:127.0.0.1:8888'] }))).rejects.toMatchObject({ code: 'not-open' })
  expect(await helper.event('closed')).toMatchObject({ failure: { code: 'relay-died' } })
  expect(await snapshot(lab)).toBe(before)
  expect(await ask(lab, 'client', server, 8080)).toMatchObject({ ok: true, echo: 'hello' })
})
