import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { defaultRelayPort, type Backend } from '#core/plan/plan.ts'
import { Session } from '#session/session.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'
import { labAddresses, makeLab, type Lab, type Place } from '#test/lab/makeLab.ts'
import { expectClean, makeProgramFolder, openGate, snapshot, startTestHelper, type TestHelper } from '#test/net/helper/harness.ts'

// What the kernel's own tests of tproxy ask (tools/testing/selftests/net/netfilter/nft_tproxy_tcp.sh and nft_tproxy_udp.sh), asked of Sluice: a client (theirs: ns1), a router, and two
// servers (ns2, ns3) behind it, each on a link of its own. One server is chosen, the other is not; what the router itself says is chosen only in the part "local". Their proxy
// answers by itself, which is how they know it; ours goes on to the server, which then sees a port that the client does not have, and records. UDP of the router itself is ours alone.

const chosen = { ipv4: labAddresses.ipv4.server, ipv6: labAddresses.ipv6.server }
const other = { ipv4: '203.0.113.130', ipv6: '2001:db8:3::2' }
const servers = { ns2: chosen, ns3: other }
const port = 8080
/** Of every question of theirs over UDP to ns2; ours count on from it. */
const clientPort = 18888
const prober = new URL('../../lab/prober.mjs', import.meta.url).pathname

type Family = 'ipv4' | 'ipv6'
type Transport = 'tcp' | 'udp'
const families: readonly Family[] = ['ipv4', 'ipv6']

let programs: Awaited<ReturnType<typeof makeProgramFolder>>
let lab: Lab
let enterOther: string[]
const probers: Partial<Record<Place, LabProcess>> = {}
let questions = 0

beforeAll(async () => {
  programs = await makeProgramFolder()
  lab = await makeLab()
  // The second server: a namespace that lives as long as its first process.
  const holder = lab.spawn('server', ['unshare', '--net', '--', 'sh', '-c', 'echo there; exec cat'])
  await holder.line((line) => line === 'there')
  enterOther = ['nsenter', `--net=/proc/${String(holder.pid)}/ns/net`, '--']
  await lab.exec('router', ['sh', '-ec', `ip link add sv1 type veth peer name up0 netns ${String(holder.pid)}
    ip addr add 203.0.113.129/25 dev sv1; ip addr add 2001:db8:3::1/64 dev sv1 nodad; ip link set sv1 up`])
  await lab.exec('server', [...enterOther, 'sh', '-ec', `ip link set lo up; ip addr add ${other.ipv4}/25 dev up0; ip addr add ${other.ipv6}/64 dev up0 nodad; ip link set up0 up
    ip route add default via 203.0.113.129; ip route add default via 2001:db8:3::1`])
  for (const [name, addresses] of Object.entries(servers)) {
    const enter = name === 'ns2' ? [] : enterOther
    for (const family of families) {
      for (const more of [[], ['--udp']]) await startServer(enter, name, addresses[family], port, more)
    }
  }
  for (const family of families) await startServer([], 'own', chosen[family], defaultRelayPort)
  for (const place of ['client', 'router'] as const) {
    const started = lab.spawn(place, [process.execPath, prober, String(clientPort)])
    await started.event(({ event }) => event === 'ready')
    probers[place] = started
  }
})
afterAll(async () => {
  await lab.remove()
  programs.remove()
})

async function startServer(enter: readonly string[], name: string, host: string, at: number, more: readonly string[] = []): Promise<void> {
  await lab.spawn('server', [...enter, process.execPath, 'test/lab/peer.mjs', 'serve', name, String(at), '--host', host, ...more]).event(({ event }) => event === 'listening')
}

interface Answer {
  readonly server: string
  readonly relayed: boolean
  /** Whom the server saw. */
  readonly address: string
  readonly localPort: number
}
async function ask(from: Place, transport: Transport, host: string, at = port): Promise<Answer> {
  const id = ++questions
  probers[from]?.write(JSON.stringify({ id, host, port: at, ...(transport === 'udp' ? { udp: true } : {}) }))
  const answer = await probers[from]?.event((event) => event['id'] === id)
  if (answer?.['ok'] !== true) throw new Error(`${from} ${transport} ${host}: ${String(answer?.['error'])}`)
  return { server: String(answer['server']), relayed: answer['seenPort'] !== answer['localPort'], address: String(answer['seenAddress']), localPort: Number(answer['localPort']) }
}

async function expectPings(): Promise<void> {
  for (const address of [chosen.ipv4, chosen.ipv6, other.ipv4, other.ipv6]) await lab.exec('client', ['ping', '-c', '1', '-q', '-W', '5', address])
}

/** The questions of both files; whether the gate stands between is what `local` decides. */
function questionsOf(local: boolean): { readonly from: Place; readonly to: keyof typeof servers; readonly relayed: boolean }[] {
  return [
    { from: 'client', to: 'ns2', relayed: true },
    { from: 'client', to: 'ns3', relayed: false },
    { from: 'router', to: 'ns2', relayed: local },
    { from: 'router', to: 'ns3', relayed: false },
  ]
}

test('the client reaches both servers, by ping, before anything is done', expectPings)

describe.each(['nft', 'iptables', 'iptables-legacy'] satisfies Backend[])('%s', (backend) => {
  describe.each(['forward', 'local'] as const)('%s', (origin) => {
    let helper: TestHelper
    let folder: string
    let relayPort: number
    let before: string
    const expected: string[] = []
    beforeAll(async () => {
      before = await snapshot(lab)
      helper = startTestHelper(lab, programs)
      ;({ folder, relayPort } = await openGate(helper, programs, backend, {
        tcp: String(port),
        udp: String(port),
        servers: Object.values(chosen),
        scope: origin === 'local' ? ['local', 'forwarded'] : ['forwarded'],
      }))
    })
    afterAll(() => helper.kill())

    describe.each(['tcp', 'udp'] as const)('%s', (transport) => {
      describe.each(families)('%s', (family) => {
        test.each(questionsOf(origin === 'local'))('$from to $to: relayed $relayed', async ({ from, to, relayed }) => {
          const answer = await ask(from, transport, servers[to][family])
          const own = from === 'client' ? labAddresses[family].client : { ns2: labAddresses[family].routerToServer, ns3: { ipv4: '203.0.113.129', ipv6: '2001:db8:3::1' }[family] }[to]
          expect(answer).toMatchObject({ server: to, relayed, address: own })
          if (relayed) expected.push(`${transport} ${own} ${String(answer.localPort)} > ${servers[to][family]} ${String(port)}`)
        })
      })
    })

    test('the client reaches both servers by ping', expectPings)

    test('a server on the very port number the relay listens on is nobody\'s but its own', async () => {
      expect(relayPort).toBe(defaultRelayPort)
      for (const family of families) expect(await ask('client', 'tcp', chosen[family], relayPort)).toMatchObject({ server: 'own', relayed: false })
    })

    test('the record has what was relayed, each with its original destination, and nothing else', async () => {
      await helper.request('close', {})
      await helper.end()
      const session = Session.open(folder, false, { changed: () => undefined })
      await session.finish()
      const flows = [...session.flows('')].map(({ transport, client, server }) => `${transport} ${client.address} ${String(client.port)} > ${server.address} ${String(server.port)}`)
      await session.close()
      expect(expected).toHaveLength(origin === 'local' ? 8 : 4)
      expect(flows.sort()).toEqual(expected.sort())
      await expectClean(lab, before, ['prober.mjs'])
    })
  })
})
