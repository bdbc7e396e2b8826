import { connect } from 'node:net'

import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { controlLineLimit, controlRequestShape } from '#core/contract/controlProtocol.ts'
import type { ControlStatus } from '#core/contract/controlProtocol.ts'
import { planEditShape } from '#core/plan/editPlan.ts'
import { parsePlan } from '#core/plan/parsePlan.ts'
import { labAddresses, makeLab } from '#test/lab/makeLab.ts'
import type { Lab } from '#test/lab/makeLab.ts'
import { until } from '#test/lab/until.ts'
import { seed } from '#test/support/seed.ts'

import { installSluice, startSluice } from '../cli/harness.ts'
import type { Installed } from '../cli/harness.ts'
import { expectClean, namespaceInode, snapshot } from '../helper/harness.ts'
import { asJson, rubbish, spoil } from './hostile.ts'
import { watchTools } from './toolLog.ts'
import type { ToolLog } from './toolLog.ts'

/**
 * The socket by which a person's other programs steer an open gate. Whatever is said there: the gate stays open, says what it is when asked, no tool of root's is given anything but what
 * a valid plan compiles to, and nobody else may speak. FUZZ_TIMES=number makes it so many times longer, and on each backend; SEED repeats.
 */
const times = Number(process.env['FUZZ_TIMES'] ?? 1)
const timeLimit = 120_000 * times

let installed: Installed
let lab: Lab
let before: string
let tools: ToolLog
beforeAll(() => {
  console.log(`SEED=${String(seed)} FUZZ_TIMES=${String(times)}`)
  installed = installSluice()
}, 240_000)
afterAll(() => installed.remove())
beforeEach(async () => {
  lab = await makeLab()
  before = await snapshot(lab)
  tools = watchTools(namespaceInode(lab))
})
afterEach(() => lab.remove())

const ports = { add: [{ from: 9000, to: 9000 }], remove: [{ from: 9100, to: 9100 }] }
const networks = { add: ['203.0.113.64/26'], remove: ['203.0.113.128/26'] }
const ids = { add: [1000], remove: [1001], every: true }
/** Any text is somebody's name; what nobody here is called the helper refuses, and before that nothing is done. */
const names = { interfaces: { add: ['nosuch0'], remove: ['nosuch1'], every: true }, cgroups: { add: ['nosuch.slice'], remove: ['nosuch.scope'], every: true } }
/** Told so, a gate of port 8080 does it. */
const meant = { type: 'edit', edit: { tcp: ports, exclude: networks }, duration: null }
/** One of each request that says more than its name, with something in every field. */
const requests = {
  edit: {
    edit: {
      tcp: ports, udp: ports, refuse: ports, exclude: networks, excludeSources: networks, servers: networks, sources: networks, users: ids, groups: ids, ...names, scope: ['local', 'forwarded'],
      send: { add: [{ ports: [{ from: 8081, to: 8081 }], to: { kind: 'socks5', address: '127.0.0.1', port: 1080 } }, { ports: [{ from: 8082, to: 8082 }], to: { kind: 'proxy-v2', path: '/run/proxy.sock' } }], remove: [{ from: 8083, to: 8083 }] },
      udpIdle: { dns: 10, quic: 60, other: 60 }, hold: true,
    },
    duration: 3_600_000,
  },
  'close-after': { duration: 3_600_000 },
} as const

/** Says this on one connection and waits until the gate has ended it, or answered so many lines. */
function say(path: string, chunks: readonly (string | Uint8Array)[], answers = Infinity): Promise<string[]> {
  return new Promise((resolve) => {
    const socket = connect({ path, allowHalfOpen: true })
    let said = ''
    const lines = (): string[] => said.split('\n').slice(0, -1)
    socket.setEncoding('utf8').on('data', (text: string) => {
      said += text
      if (lines().length >= answers) socket.destroy()
    })
    // It may end the conversation while we are still speaking.
    socket.on('error', () => undefined)
    socket.once('end', () => socket.destroy())
    socket.once('close', () => resolve(lines()))
    socket.once('connect', () => {
      for (const chunk of chunks) socket.write(chunk)
      if (answers === Infinity) socket.end()
    })
  })
}
function withoutNames(request: unknown): string {
  const { edit, duration } = request as { edit: Record<string, unknown> | null; duration: unknown }
  return JSON.stringify([typeof edit === 'object' && edit !== null ? Object.entries(edit).filter(([name]) => !(name in names)) : edit, duration])
}
const line = (value: unknown): string => `${JSON.stringify(value)}\n`

async function statusOf(path: string): Promise<ControlStatus> {
  // Those who spoke just now may still take up the room.
  const [answer = ''] = await until('it answers', () => say(path, [line({ type: 'status' })], 1), ({ length }) => length === 1)
  const reply = JSON.parse(answer) as { ok: boolean; status: ControlStatus }
  expect(reply.ok).toBe(true)
  return reply.status
}

test('the samples have every request, and every field of an edit', () => {
  const saying = controlRequestShape.options.filter(({ entries }) => Object.keys(entries).length > 1)
  expect(Object.keys(requests).sort()).toEqual(saying.map(({ entries }) => entries.type.literal).sort())
  expect(Object.keys(requests.edit.edit).sort()).toEqual(Object.keys(planEditShape.entries).sort())
})

// What stands between socket and root is the same whatever holds the rules.
describe.each(times === 1 ? ['nft'] as const : ['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  test('random, spoilt, cut, huge and replayed messages, and strangers: the gate stays what it is', async () => {
    await lab.peer('server', 'serve', 'origin', '8080').event(({ event }) => event === 'listening')
    const capture = startSluice(lab, installed, ['capture', '--tcp', '8080', '--backend', backend, '-o', installed.session(`control-${backend}`)])
    await capture.line((text) => text.startsWith('READY '), 30_000)
    const path = `/run/sluice/control-0/${String(capture.pid)}.sock`
    const opened = await statusOf(path)
    expect(opened).toMatchObject({ phase: 'open', backend })
    const doneBefore = tools.done().length
    const expectAsOpened = async (): Promise<void> => expect((await statusOf(path)).plan).toEqual(opened.plan)

    await fc.assert(
      fc.asyncProperty(fc.array(rubbish, { minLength: 1, maxLength: 6 }), async (chunks) => {
        for (const answer of await say(path, chunks)) expect(JSON.parse(answer)).toMatchObject({ ok: false })
      }),
      { numRuns: 60 * times, interruptAfterTimeLimit: 15_000 * times, seed },
    )
    await expectAsOpened()

    for (const [type, sample] of Object.entries(requests)) {
      for (const request of spoil({ ...(asJson(sample) as object), type }, times, seed)) {
        const [answer = ''] = await say(path, [line(request)], 1)
        const { ok, error } = JSON.parse(answer) as { ok: boolean; error: { code: string } }
        expect(ok, JSON.stringify(request)).toBe(false)
        // Only another name gets as far as the sample itself.
        if (type !== 'edit' || withoutNames(request) !== withoutNames(requests.edit)) expect(error.code, JSON.stringify(request)).not.toBe('unknown-interface')
      }
    }
    await expectAsOpened()

    const edit = line({ type: 'edit', ...requests.edit })
    await fc.assert(
      fc.asyncProperty(fc.nat(edit.length - 2), async (at) => {
        expect(await say(path, [edit.slice(0, at)])).toEqual([])
      }),
      { numRuns: 20 * times, seed },
    )
    // Once one was no request, nothing that follows is heard.
    expect((await say(path, ['no request\n', line(meant), line(meant)])).map((answer) => JSON.parse(answer) as unknown)).toEqual([expect.objectContaining({ ok: false })])
    expect((await say(path, [`no request\n${line(meant)}`])).length).toBe(1)
    await expectAsOpened()
    // A line without an end, more requests at once than are answered, and more who speak at once than are heard.
    expect((await say(path, [`{"type":"edit","edit":"${'x'.repeat(controlLineLimit)}`])).map((answer) => JSON.parse(answer) as unknown)).toEqual([expect.objectContaining({ ok: false })])
    for (const answer of await say(path, [line({ type: 'status' }).repeat(1000)])) expect(JSON.parse(answer)).toHaveProperty('ok')
    await Promise.all(Array.from({ length: 64 }, () => say(path, ['{"type":'])))
    await expectAsOpened()
    // So far root was told nothing; what is renewed by itself is no doing.
    expect(tools.done().length).toBe(doneBefore)

    // Another person, and nobody at all, cannot even begin.
    const stranger = `require('net').connect(${JSON.stringify(path)}).on('error', (e) => console.log(e.code)).on('connect', () => console.log('heard'))`
    for (const user of ['4711', '65534']) {
      const { stdout } = await lab.exec('router', ['timeout', '10', 'setpriv', '--reuid', user, '--regid', user, '--clear-groups', '--', process.execPath, '-e', stranger])
      expect(stdout.trim()).toBe('EACCES')
    }

    // What is meant, again and again, and from all sides: one valid plan after the other. With a flow that runs, draining is not over before it is taken back.
    const talking = lab.peer('client', 'talk', labAddresses.ipv4.server, '8080')
    await talking.event(({ event }) => event === 'line')
    const answers = await Promise.all([line(meant).repeat(3), line({ type: 'drain' }), line({ type: 'resume' }), line(meant), line({ type: 'resume' })].map((text) => say(path, [text], text.split('\n').length - 1)))
    for (const answer of answers.flat()) expect(JSON.parse(answer)).toHaveProperty('ok')
    await say(path, [line({ type: 'resume' })], 1)
    await say(path, [line(meant)], 1)
    const { phase, plan } = await statusOf(path)
    expect([phase, plan?.tcp, plan?.exclude]).toEqual(['open', [{ from: 8080, to: 8080 }, { from: 9000, to: 9000 }], ['203.0.113.64/26']])
    expect(parsePlan(plan)).toEqual(plan)
    tools.expectCompiled()
    talking.write('end')
    await talking.event(({ event }) => event === 'close')
    process.kill(capture.pid, 'SIGINT')
    expect(await capture.ended).toEqual({ code: 0, signal: null })
    tools.expectCompiled()
    await expectClean(lab, before)
  }, timeLimit)
})
