import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { FlowRow } from '#core/flow/flow.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'
import { labAddresses, makeLab, type Lab, type Place } from '#test/lab/makeLab.ts'

import { installSluice, sluice, startSluice, type Installed } from '../cli/harness.ts'
import { expectClean, snapshot } from '../helper/harness.ts'
import { startServers, type ServerFiles } from './servers.ts'

/** Real programs against real servers through one open gate, from both sides and in both families: what they get, whom the server saw, and what the record says of them. */
let installed: Installed
let lab: Lab
let files: ServerFiles
let capture: LabProcess
let session: string
let before: string
const iperfDatagrams = 150
/** What receivers of iperf3 over TCP counted, two a side. */
const iperfReceived: { readonly from: Place; readonly family: 'ipv4' | 'ipv6'; readonly bytes: number }[] = []

beforeAll(async () => {
  installed = installSluice()
  lab = await makeLab()
  files = await startServers(lab)
  before = await snapshot(lab)
  session = installed.session('programs')
  capture = startSluice(lab, installed, ['capture', '--tcp', '22,5201,5432,6379', '--udp', '443,5201', '--udp-idle', '2', '--backend', 'nft', '--json', '-o', session])
  await capture.event(({ event }) => event === 'ready', 30_000)
}, 240_000)
afterAll(async () => {
  await lab.remove()
  installed.remove()
  files.remove()
})

const sum = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex')
const sides = (['client', 'router'] as const).flatMap((from) => (['ipv4', 'ipv6'] as const).map((family) => ({ from, family })))
const server = (family: 'ipv4' | 'ipv6'): string => labAddresses[family].server
const ownAddress = (from: Place, family: 'ipv4' | 'ipv6'): string => (from === 'client' ? labAddresses[family].client : labAddresses[family].routerToServer)
const shell = (from: Place, script: string): Promise<string> => lab.exec(from, ['sh', '-ec', script]).then(({ stdout }) => stdout.trim())

describe.each(sides)('$family from the $from', ({ from, family }) => {
  interface Iperf {
    readonly end: { readonly sum_sent: { readonly bytes: number }; readonly sum_received: { readonly bytes: number }; readonly sum?: { readonly packets: number; readonly lost_packets: number } }
  }
  const iperf = async (...words: string[]): Promise<Iperf['end']> => (JSON.parse((await lab.exec(from, ['iperf3', '-c', server(family), '-J', ...words])).stdout) as Iperf).end

  test('iperf3 over TCP, there and back', async () => {
    for (const way of [[], ['--reverse']]) {
      const { sum_sent: sent, sum_received: received } = await iperf('-n', '16M', ...way)
      expect(sent.bytes).toBeGreaterThanOrEqual(16 << 20)
      // It ends when the sender has written enough, whatever is still under way.
      expect(received.bytes).toBeGreaterThan(1 << 20)
      iperfReceived.push({ from, family, bytes: received.bytes })
    }
  })

  test('iperf3 over UDP', async () => {
    // As many as the relay's socket may hold where net.core.rmem_max is what it is by default: however long it does not get its turn, none is lost.
    const { sum: datagrams } = await iperf('-u', '-b', '8M', '-l', '1200', '-k', String(iperfDatagrams))
    // Its word that all was sent goes by TCP and may be there before the last datagrams, which it then counts as lost: the record says below that none was.
    expect(datagrams?.packets).toBe(iperfDatagrams)
    expect(datagrams?.lost_packets).toBeLessThan(iperfDatagrams)
  })

  test('redis: a value of 4 MiB comes back as it went', async () => {
    const cli = `redis-cli -h ${server(family)}`
    expect(await shell(from, `${cli} -x set value < ${files.random}`)).toBe('OK')
    expect(await shell(from, `${cli} --raw get value | head -c ${String(4 << 20)} | sha256sum`)).toContain(sum(readFileSync(files.random)))
    expect(await shell(from, `${cli} client info`)).toContain(` addr=${family === 'ipv6' ? `[${ownAddress(from, family)}]` : ownAddress(from, family)}:`)
  })

  test('ssh: bytes there and back, status and the client\u2019s address', async () => {
    const ssh = `ssh -F none -i ${files.key} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@${server(family)}`
    expect(await shell(from, `${ssh} sha256sum < ${files.random}`)).toContain(sum(readFileSync(files.random)))
    expect(await shell(from, `${ssh} cat ${files.random} | sha256sum`)).toContain(sum(readFileSync(files.random)))
    expect(await shell(from, `${ssh} 'echo $SSH_CLIENT; exit 7' || echo status $?`)).toMatch(new RegExp(`^${ownAddress(from, family)} \\d+ 22\\nstatus 7$`))
  })

  test('PostgreSQL: rows, the client\u2019s address, and a query that is cancelled by a connection of its own', async () => {
    const psql = `psql -X -At -h ${server(family)} -U postgres`
    expect(await shell(from, `${psql} -c "select host(inet_client_addr())"`)).toBe(ownAddress(from, family))
    const rows = Array.from({ length: 50_000 }, (_, index) => `${String(index + 1)}\trow ${String(index + 1)}\n`).join('')
    expect(await shell(from, `${psql} -c "copy (select i, 'row ' || i from generate_series(1, 50000) i) to stdout" | sha256sum`)).toContain(sum(rows))
    const sleeper = lab.spawn(from, ['psql', '-X', '-h', server(family), '-U', 'postgres', '-c', 'select pg_sleep(600)'])
    const runs = "select count(*) from pg_stat_activity where state = 'active' and query = 'select pg_sleep(600)'"
    await expect.poll(() => shell('server', `psql -X -At -h ${server(family)} -U postgres -c "${runs}"`), { timeout: 10_000 }).toBe('1')
    process.kill(sleeper.pid, 'SIGINT')
    await sleeper.ended
    expect(sleeper.errors()).toContain('canceling statement due to user request')
  })

  test('HTTP/3: a file of 4 MiB over QUIC', async () => {
    const folder = join(files.folder, 'got', `${from}-${family}`)
    await shell(from, `mkdir ${folder}; gtlsclient --quiet --exit-on-all-streams-close --download ${folder} ${server(family)} 443 https://server.test/random 2>&1`)
    expect(sum(readFileSync(join(folder, 'random')))).toBe(sum(readFileSync(files.random)))
  })
})

test('the record says of each flow what it was, and nothing is left behind', async () => {
  process.kill(capture.pid, 'SIGINT')
  expect(await capture.ended).toEqual({ code: 0, signal: null })
  await expectClean(lab, before, ['peer.mjs'])
  const rows = (await sluice(lab, installed, ['flows', session, '--json'])).stdout.trimEnd().split('\n').map((line) => JSON.parse(line) as FlowRow)
  const size = 4 << 20
  for (const { from, family } of sides) {
    const scope = from === 'client' ? 'forwarded' : 'local'
    const own = rows.filter((row) => row.scope === scope && row.server.address === server(family))
    expect(own.every((row) => row.client.address === ownAddress(from, family) && row.bytesLost === 0)).toBe(true)
    const of = (port: number, transport: 'tcp' | 'udp'): FlowRow[] => own.filter((row) => row.server.port === port && row.transport === transport)

    // Two tests over TCP and one over UDP, each led by a connection of its own; then the bytes: a cookie of 37 more than what was received, and what was still under way.
    const iperf = of(5201, 'tcp').toSorted((a, b) => b.bytesUp + b.bytesDown - a.bytesUp - a.bytesDown)
    expect(iperf).toHaveLength(5)
    const counted = iperfReceived.filter((each) => each.from === from && each.family === family).map(({ bytes }) => bytes)
    const relayed = iperf.slice(0, 2).map((row) => Math.max(row.bytesUp - 37, row.bytesDown))
    expect(Math.max(...relayed)).toBeGreaterThanOrEqual(Math.max(...counted))
    expect(Math.min(...relayed)).toBeGreaterThanOrEqual(Math.min(...counted))
    expect(of(5201, 'udp')).toMatchObject([{ datagramsUp: iperfDatagrams + 1, datagramsDown: 1, bytesUp: iperfDatagrams * 1200 + 4, state: 'idle' }])

    const redis = of(6379, 'tcp')
    expect(redis.map(({ state }) => state)).toEqual(['finished', 'finished', 'finished'])
    expect([redis[0]?.bytesUp ?? 0, redis[1]?.bytesDown ?? 0].every((bytes) => bytes > size && bytes < size + 100)).toBe(true)
    const ssh = of(22, 'tcp')
    expect(ssh).toHaveLength(3)
    expect([ssh[0]?.bytesUp ?? 0, ssh[1]?.bytesDown ?? 0].every((bytes) => bytes > size)).toBe(true)
    // The cancel request: 16 bytes on a connection of its own.
    expect(of(5432, 'tcp').map(({ bytesUp }) => bytesUp === 16)).toEqual([false, false, false, true])
    const [quic, ...more] = of(443, 'udp')
    expect(more).toEqual([])
    expect(quic).toMatchObject({ protocol: 'quic', quic: { version: 'QUIC 1', alpnOffered: ['h3'] } })
    expect(quic?.bytesDown).toBeGreaterThan(size)
    if (scope === 'local') {
      const names = new Map([[5201, 'iperf3'], [6379, 'redis-cli'], [22, 'ssh'], [5432, 'psql'], [443, 'gtlsclient']])
      expect(own.filter((row) => row.process?.name !== names.get(row.server.port))).toEqual([])
    }
  }
  expect(rows).toHaveLength(sides.length * 17)
})
