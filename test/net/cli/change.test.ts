import { existsSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { describe, expect, test } from 'vitest'

import { labAddresses, makeLab } from '#test/lab/makeLab.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'

import { ask, expectClean, expectDirect } from '../helper/harness.ts'
import { sluice, startSluice } from './harness.ts'
import { before, installed, lab, withServers } from './stage.ts'

/** `sluice change` on a gate that another `sluice capture` has open: what is taken afterwards, by packets, and what goes on. */
withServers('8080', '9000')

let count = 0
async function openGate(args: readonly string[] = [], within: readonly string[] = []): Promise<{ readonly capture: LabProcess; readonly session: string }> {
  const session = installed.session(`change-${++count}`)
  const capture = startSluice(lab, installed, ['capture', '--tcp', '8080', '-o', session, ...args], within)
  await capture.line((line) => line.startsWith('READY ') || line.startsWith('{"event":"ready"'), 30_000)
  return { capture, session }
}
const change = (...args: string[]) => sluice(lab, installed, ['change', ...args])
async function isTaken(port: number): Promise<readonly boolean[]> {
  const asked = await Promise.all((['client', 'router'] as const).flatMap((from) => (['ipv4', 'ipv6'] as const).map((family) => ask(lab, from, family, port))))
  expect(asked.map(({ ok }) => ok)).toEqual([true, true, true, true])
  return [...new Set(asked.map(({ relayed }) => relayed))]
}

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  test('ports and exclusions come and go, and what is relayed stays', async () => {
    const { capture, session } = await openGate(['--json', '--backend', backend])
    const flow = lab.peer('client', 'talk', labAddresses.ipv4.server, '8080')
    await flow.event(({ event }) => event === 'line')
    expect(await isTaken(9000)).toEqual([false])

    const added = await change(session, '--add', '9000,9443/udp', '--remove', '8080', '--json')
    expect(JSON.parse(added.stdout)).toMatchObject({ session, phase: 'open', backend, added: { tcp: '9000', udp: '9443' }, removed: { tcp: '8080', udp: '' }, plan: { tcp: [{ from: 9000, to: 9000 }], udp: [{ from: 9443, to: 9443 }] } })
    await capture.event(({ event, added: what }) => event === 'changed' && (what as { tcp: string }).tcp === '9000')
    expect([await isTaken(9000), await isTaken(8080)]).toEqual([[true], [false]])
    flow.write('send still here')
    await flow.event(({ line }) => line === 'still here')

    expect((await change(session, '--exclude', `${labAddresses.ipv4.server},${labAddresses.ipv6.server}`)).stdout).toMatch(/^servers left alone as well: /)
    expect(await isTaken(9000)).toEqual([false])
    expect((await change(session, '--include', '0.0.0.0/0,::/0')).code).toBe(0)
    expect(await isTaken(9000)).toEqual([true])
    expect((await change(session, '--add', '9000')).stdout).toMatch(/^Nothing to change\./)

    expect((await change(session, '--server', '198.51.100.77')).stdout).toMatch(/^servers included as well: /)
    expect(await isTaken(9000)).toEqual([false])
    expect(await change(session, '--remove-server', '198.51.100.77')).toMatchObject({ code: 2, stderr: expect.stringMatching(/No server would be left/) as string })
    const sent = await change(session, '--server', '0.0.0.0/0,::/0', '--send', '9000=socks5:127.0.0.1:1', '--refuse', '9443', '--udp-idle', 'other=7', '--no-hold', '--json')
    expect(JSON.parse(sent.stdout)).toMatchObject({ plan: { handOver: [{ to: { kind: 'socks5', port: 1 } }], refuse: [{ from: 9443, to: 9443 }], udpIdle: { other: 7 }, hold: false } })
    // Nobody is the proxy: whoever comes is told by a reset.
    expect(await lab.peer('client', 'ask', labAddresses.ipv4.server, '9000').event(() => true)).toMatchObject({ ok: false, error: 'ECONNRESET' })
    expect((await change(session, '--direct', '9000', '--carry', '9443', '--hold')).stdout).toMatch(/^what of UDP is refused changed; whether connections wait for their server changed; what is sent to a proxy changed\./)
    expect(await isTaken(9000)).toEqual([true])

    expect(JSON.parse((await change(session, '--drain', '--json')).stdout)).toMatchObject({ phase: 'draining' })
    await expectDirect(lab)
    expect(await change(session, '--add', '8080')).toMatchObject({ code: 1, stderr: expect.stringMatching(/draining/) as string })
    expect((await change(session, '--resume')).stdout).toMatch(/ open on tcp 9000 udp 9443 /)
    expect(await isTaken(9000)).toEqual([true])
    flow.write('send and here')
    await flow.event(({ line }) => line === 'and here')

    expect((await change(session, '--close')).code).toBe(0)
    expect(await flow.event(({ event }) => event === 'error')).toMatchObject({ error: 'ECONNRESET' })
    expect(await capture.ended).toEqual({ code: 0, signal: null })
    await expectClean(lab, before)
  })
})

test('whom it concerns: users, interfaces, cgroups, whose traffic', async () => {
  const { capture, session } = await openGate(['--backend', 'nft'])
  /** Of a device, of a program here (which is root). */
  const taken = async (): Promise<readonly boolean[]> => {
    const asked = await Promise.all((['client', 'router'] as const).map((from) => ask(lab, from, 'ipv4', 8080)))
    expect(asked.map(({ ok }) => ok)).toEqual([true, true])
    return asked.map(({ relayed }) => relayed)
  }
  const changes: readonly (readonly [words: readonly string[], says: string, device: boolean, program: boolean])[] = [
    [['--user', 'nobody', '--iface', 'sv0'], 'interfaces included as well: sv0; users included as well: 65534.', false, false],
    [['--user', 'root', '--remove-iface', 'sv0', '-i', 'cl*'], 'interfaces included as well: cl*; interfaces no longer included: sv0; users included as well: 0.', true, true],
    [['--remove-user', 'root', '--scope', 'local'], 'users no longer included: 0; whose traffic is taken changed.', false, false],
    [['--user', '*', '--group', '65534', '--scope', 'forwarded,local'], 'every user included; groups included as well: 65534; whose traffic is taken changed.', true, false],
    [['--group', '0', '--iface', '*'], 'every interface included; groups included as well: 0.', true, true],
  ]
  expect(await taken()).toEqual([true, true])
  for (const [words, says, ...wanted] of changes) {
    expect((await change(session, ...words)).stdout.split('\n')[0]).toBe(says)
    expect(await taken(), says).toEqual(wanted)
  }
  expect(await change(session, '--remove-group', '0,65534')).toMatchObject({ code: 2, stderr: expect.stringMatching(/No group would be left/) as string })
  expect(await change(session, '--iface', 'none0')).toMatchObject({ code: 1, stderr: expect.stringMatching(/no interface none0/) as string })
  expect(await change(session, '--unit', 'no-such-unit-here')).toMatchObject({ code: 1, stderr: expect.stringMatching(/no unit/) as string })
  expect(JSON.parse((await change(session, '--group', '*', '--no-hold', '--json')).stdout)).toMatchObject({ removed: { groups: ['0', '65534'] }, changed: ['hold'], plan: { groups: [], users: [], interfaces: [], scope: ['local', 'forwarded'] } })
  expect((await change(session, '--close')).code).toBe(0)
  expect(await capture.ended).toEqual({ code: 0, signal: null })
})

test('a port with an end goes by itself, and the last of them closes the gate', async () => {
  const { capture, session } = await openGate(['--for', '1h'])
  const status = await change(session, '--add', '9000', '--for', '10m')
  expect(status.stdout).toMatch(/^tcp 9000 added\.\n.* open on tcp 8080,9000 by nft; .*\n {2}tcp 9000 goes in \d+ seconds .*\n {2}the gate drains in \d+ seconds /)
  expect(await isTaken(9000)).toEqual([true])
  // Another end for what has one.
  expect(await change(session, '--add', '9000', '--for', '200ms')).toMatchObject({ code: 0 })
  await expect.poll(async () => (JSON.parse((await change(session, '--status', '--json')).stdout) as { plan: { tcp: unknown } }).plan.tcp, { timeout: 20_000 }).toEqual([{ from: 8080, to: 8080 }])
  expect(await isTaken(9000)).toEqual([false])
  expect((await change(session, '--for', '300ms')).code).toBe(0)
  expect(await capture.ended).toEqual({ code: 0, signal: null })
  await expectClean(lab, before)
  expect(await change(session, '--status')).toMatchObject({ code: 1, stderr: expect.stringContaining('nobody records into') as string })
})

test('two gates are told apart; nobody else may, and nonsense changes nothing', async () => {
  // Other tests run beside, and each gate that opens takes away what killed ones of its person have left: this person has no other gates. Nor has he who is nobody's friend.
  const [person, stranger] = [2, 65533]
  const forPerson = ['env', `SUDO_UID=${String(person)}`, `SUDO_GID=${String(person)}`]
  const { capture, session } = await openGate([], forPerson)
  const other = await makeLab()
  try {
    const second = installed.session('change-other')
    const elsewhere = startSluice(other, installed, ['capture', '--tcp', '8080', '-o', second])
    await elsewhere.line((line) => line.startsWith('READY '), 30_000)
    expect(await change('--add', '9000')).toMatchObject({ code: 2, stderr: expect.stringContaining('several gates are open') as string })
    // From anywhere: the socket is a file, and knows no network namespace.
    expect((await sluice(other, installed, ['change', session, '--add', '9000'])).stdout).toMatch(/^tcp 9000 added\./)
    await capture.line((line) => line === 'CHANGED tcp 8080,9000: tcp 9000 added')
    const sessions = (await change('--status', '--json')).stdout.trimEnd().split('\n').map((line) => (JSON.parse(line) as { session: string }).session)
    expect(sessions.filter((each) => [session, second].includes(each)).sort()).toEqual([session, second].sort())
    process.kill(elsewhere.pid, 'SIGINT')
    expect(await elsewhere.ended).toMatchObject({ code: 0 })
  } finally {
    await other.remove()
  }
  const path = `/run/sluice/control-${String(person)}/${String(capture.pid)}.sock`
  expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(await sluice(lab, installed, ['change', '--status'], ['setpriv', '--reuid', String(stranger), '--regid', String(stranger), '--clear-groups', '--'])).toMatchObject({ code: 0, stdout: 'No gate of yours is open.\n' })
  for (const line of ['nonsense', '{"type":"edit","edit":{"marks":{}},"duration":null}', '{"type":"open"}', '[]', `{"type":"status","x":"${'x'.repeat(2 << 20)}`]) {
    expect(await tell(path, line), line.slice(0, 40)).toMatchObject({ ok: false, error: { code: 'protocol' } })
  }
  expect(await isTaken(9000)).toEqual([true])
  process.kill(capture.pid, 'SIGKILL')
  await expectClean(lab, before)
  // What a killed one leaves, the next one takes away.
  expect(existsSync(path)).toBe(true)
  expect(await change(session, '--add', '1')).toMatchObject({ code: 1, stderr: expect.stringContaining('nobody records into') as string })
  const next = await openGate([], forPerson)
  expect(existsSync(path)).toBe(false)
  process.kill(next.capture.pid, 'SIGINT')
  expect(await next.capture.ended).toMatchObject({ code: 0 })
  await expectClean(lab, before)
})

/** Sends one line and resolves with what is answered. */
function tell(path: string, line: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => socket.write(`${line}\n`))
    let said = ''
    socket.setEncoding('utf8').on('data', (text: string) => (said += text))
    // It may be closed on us while we still send.
    socket.on('error', () => undefined)
    socket.once('close', () => {
      try {
        resolve(JSON.parse(said.split('\n')[0] ?? ''))
      } catch {
        reject(new Error(`no answer: ${said}`))
      }
    })
  })
}
