import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'

import { labAddresses } from '#test/lab/makeLab.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'

import { ask, expectClean, expectDirect, findProcess, snapshot } from '../helper/harness.ts'
import { onSmallDisk, sluice, startSluice } from './harness.ts'
import { before, installed, lab, withServers } from './stage.ts'

/** `sluice capture` on real traffic: what it prints, how it ends, and what is left when it is killed. */
withServers('8080')

let count = 0
async function openGate(args: readonly string[] = [], within: readonly string[] = []): Promise<{ readonly capture: LabProcess; readonly session: string; readonly ready: string }> {
  const session = installed.session(`run-${++count}`)
  const capture = startSluice(lab, installed, ['capture', '--tcp', '8080', '-o', session, ...args], within)
  const ready = await capture.line((line) => line.startsWith('READY ') || line.startsWith('{"event":"ready"'), 30_000)
  return { capture, session, ready }
}
async function converse(): Promise<LabProcess> {
  const peer = lab.peer('client', 'talk', labAddresses.ipv4.server, '8080')
  await peer.event(({ event }) => event === 'line')
  return peer
}
const said = (capture: LabProcess, text: RegExp): Promise<unknown> => expect.poll(() => capture.errors(), { timeout: 15_000 }).toMatch(text)

describe('what it prints', () => {
  test('READY in one line, then a line for each flow that is over, and a summary on standard error', async () => {
    const { capture, session, ready } = await openGate()
    expect(ready).toBe(`READY nft tcp 8080 local forwarded relay 127.0.0.1:50080 session ${session}`)
    expect(capture.output()).toBe(`${ready}\n`)
    await ask(lab, 'client', 'ipv4', 8080)
    const line = await capture.line((text) => text.includes(labAddresses.ipv4.server))
    expect(line).toMatch(/8080/)
    process.kill(capture.pid, 'SIGINT')
    expect(await capture.ended).toEqual({ code: 0, signal: null })
    // Counts are told five times a second, so the flow that is over may still be counted as running.
    expect(capture.errors()).toMatch(/^(sluice: draining: 1 flow [^\n]*\n)?Closed: 1 flow, \d+ B, in run-\d+\.sluice\n$/)
    await expectClean(lab, before)
  })

  test('--json: each line an object, in the order things happened', async () => {
    const { capture, session } = await openGate(['--json'])
    // The end of one is known before the other begins: two threads relay, and either may be late.
    for (const [index, [from, family]] of ([['client', 'ipv4'], ['router', 'ipv6']] as const).entries()) {
      await ask(lab, from, family, 8080)
      await capture.event(({ event, flow }) => event === 'ended' && (flow as { id: number }).id === index + 1)
    }
    process.kill(capture.pid, 'SIGINT')
    expect(await capture.ended).toEqual({ code: 0, signal: null })
    // As above: the count may be a fifth of a second old.
    expect(capture.errors()).toMatch(/^(sluice: draining: 1 flow [^\n]*\n)?$/)
    const events = capture.output().trimEnd().split('\n').map((line) => JSON.parse(line) as { event: string; phase?: string; flow?: { id: number; state: string; scope: string; process?: { name: string } } })
    const names = events.map(({ event, phase }) => phase ?? event).filter((name, index, all) => name !== all[index - 1])
    expect(names[0]).toMatch(/step|opening/)
    expect(names.indexOf('ready')).toBeLessThan(names.indexOf('opened'))
    expect(names.at(-1)).toBe('closed')
    expect(new Set(events.map(({ event }) => event))).toEqual(new Set(['step', 'gate', 'ready', 'opened', 'ended', 'closed']))
    expect(events.find(({ event }) => event === 'ready')).toMatchObject({ backend: 'nft', tcp: '8080', scope: ['local', 'forwarded'], relay: { address: '127.0.0.1', port: 50080 }, session, plan: { version: 1 } })
    const ended = events.filter(({ event }) => event === 'ended').map(({ flow }) => flow)
    expect(ended).toMatchObject([{ id: 1, state: 'finished', scope: 'forwarded' }, { id: 2, state: 'finished', scope: 'local', process: { name: 'node' } }])
    expect(events.at(-1)).toMatchObject({ event: 'closed', flows: 2, session: session.slice(session.lastIndexOf('/') + 1) })

    // The same rows from every command that reads the session, and the same twice.
    const flows = await sluice(lab, installed, ['flows', session, '--json'])
    const rows = flows.stdout.trimEnd().split('\n').map((line) => JSON.parse(line) as { id: number })
    expect(rows.map(({ id }) => id)).toEqual([1, 2])
    expect((await sluice(lab, installed, ['flows', session, '--json'])).stdout).toBe(flows.stdout)
    expect(JSON.parse((await sluice(lab, installed, ['show', session, '2', '--json'])).stdout)).toMatchObject({ row: rows[1], exchanges: [] })
    expect((await sluice(lab, installed, ['flows', session, '--json', '--filter', 'scope == local'])).stdout.trimEnd().split('\n')).toHaveLength(1)
    const file = join(installed.folder, `run-${count}.ndjson`)
    expect(await sluice(lab, installed, ['export', session, '--format', 'ndjson', '-o', file])).toMatchObject({ code: 0 })
    expect(readFileSync(file, 'utf8').trimEnd().split('\n').map((line) => (JSON.parse(line) as { row: unknown }).row)).toEqual(rows)
    await expectClean(lab, before)
  })

  test('plan and doctor --json: one object, the same twice, and nothing changed', async () => {
    const plan = await sluice(lab, installed, ['plan', '--tcp', '443,80', '--json'])
    expect(JSON.parse(plan.stdout)).toMatchObject({ plan: { tcp: [{ from: 80, to: 80 }, { from: 443, to: 443 }] }, backend: 'nft' })
    expect(plan.stdout).toMatch(/"digest":"[0-9a-f]{64}"/)
    expect((await sluice(lab, installed, ['plan', '--tcp', '80', '--tcp', '443', '--json'])).stdout).toBe(plan.stdout)
    const doctor = await sluice(lab, installed, ['doctor', '--json'])
    expect(typeof JSON.parse(doctor.stdout)).toBe('object')
    expect(doctor.stderr).toBe('')
    expect(await snapshot(lab)).toBe(before)
  })
})

describe('how it ends', () => {
  test('an interrupt drains: what runs goes on, what is new goes past', async () => {
    const { capture } = await openGate()
    const flow = await converse()
    process.kill(capture.pid, 'SIGINT')
    await said(capture, /draining: 1 flow still runs; interrupt again to close at once/)
    await expectDirect(lab)
    flow.write('send still here')
    await flow.event(({ line }) => line === 'still here')
    flow.write('end')
    await flow.event(({ event }) => event === 'close')
    expect(await capture.ended).toEqual({ code: 0, signal: null })
    await expectClean(lab, before)
  })

  test('a second interrupt closes at once: what runs is reset', async () => {
    const { capture, session } = await openGate()
    const flow = await converse()
    process.kill(capture.pid, 'SIGINT')
    await said(capture, /draining/)
    process.kill(capture.pid, 'SIGINT')
    expect(await flow.event(({ event }) => event === 'error')).toMatchObject({ error: 'ECONNRESET' })
    expect(await capture.ended).toEqual({ code: 0, signal: null })
    expect(JSON.parse((await sluice(lab, installed, ['flows', session, '--json'])).stdout)).toMatchObject({ state: 'gate-closed', closedBy: 'gate' })
    await expectClean(lab, before)
  })

  test('--for ends it by itself', async () => {
    const { capture } = await openGate(['--for', '300ms'])
    expect(await capture.ended).toEqual({ code: 0, signal: null })
    await expectClean(lab, before)
  })

  test('an interrupt while it opens leaves nothing', async () => {
    const session = installed.session('given-up')
    const capture = startSluice(lab, installed, ['capture', '--tcp', '8080', '-o', session, '--json'])
    await capture.event(({ event }) => event === 'step', 30_000)
    process.kill(capture.pid, 'SIGINT')
    const { code } = await capture.ended
    // It may have been open already when the interrupt came; then it drained, which is as good.
    expect(code === 1 ? existsSync(session) : code).toBe(code === 1 ? false : 0)
    await expectClean(lab, before)
  })

  test('more flows at once than were allowed: who comes is reset, which is said and recorded, and there is room again when one has ended', async () => {
    const { capture } = await openGate(['--json', '--max-flows', '2'])
    const [first, second] = [await converse(), await converse()]
    // Held or taken in already, so by either.
    expect((await ask(lab, 'client', 'ipv4', 8080)).error).toMatch(/^ECONN(REFUSED|RESET)$/)
    expect(await capture.event(({ event }) => event === 'warning', 15_000)).toMatchObject({ message: expect.stringContaining('no room for more flows') as string })
    await capture.event(({ event, flow }) => event === 'ended' && (flow as { state: string }).state === 'shed', 15_000)
    first.write('end')
    await first.event(({ event }) => event === 'close')
    await expect.poll(() => ask(lab, 'client', 'ipv4', 8080), { timeout: 15_000 }).toMatchObject({ ok: true, relayed: true })
    second.write('send still here')
    await second.event(({ line }) => line === 'still here')
    second.write('end')
    await second.event(({ event }) => event === 'close')
    process.kill(capture.pid, 'SIGINT')
    expect(await capture.ended).toEqual({ code: 0, signal: null })
  })

  test('more flows than the relay may open files for: refused, with what is possible, and nothing is left', async () => {
    const session = installed.session('too-many')
    const { code, stderr } = await sluice(lab, installed, ['capture', '--tcp', '8080', '-o', session, '--threads', '1', '--max-flows', '500'], ['prlimit', '--nofile=1024:1024', '--'])
    expect(stderr).toContain('1024 files open here, and so at most 424 flows at once, not 500')
    expect(code).toBe(2)
    expect(existsSync(session)).toBe(false)
    await expectClean(lab, before)
  })

  test('a disk that fills up ends the recording, never the relaying', async () => {
    const disk = join(installed.folder, 'disk')
    const session = join(disk, 'x.sluice')
    const capture = startSluice(lab, installed, ['capture', '--tcp', '8080', '-o', session, '--json'], onSmallDisk(installed.folder, 2048, 1500))
    await capture.event(({ event }) => event === 'ready', 30_000)
    for (let turn = 0; turn < 3; turn++) {
      const flow = lab.peer('client', 'talk', labAddresses.ipv4.server, '8080')
      await flow.event(({ event }) => event === 'line')
      flow.write(`bulk ${1 << 20}`)
      expect(await flow.event(({ event }) => event === 'bytes', 30_000)).toMatchObject({ bytes: 1 << 20 })
      flow.write('end')
      await flow.event(({ event }) => event === 'close')
    }
    await capture.event(({ recording }) => recording === 'stopped', 20_000)
    expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ ok: true, relayed: true })
    // Two messages of the relay's, either of which may come first.
    await capture.event(({ event }) => event === 'warning')
    process.kill(capture.pid, 'SIGINT')
    expect(await capture.ended).toEqual({ code: 0, signal: null })
    await expectClean(lab, before)
  })
})

describe.each(['nft', 'iptables'] as const)('%s: killed with SIGKILL', (backend) => {
  test('the command: the helper takes everything back, and what was recorded is there', async () => {
    const { capture, session } = await openGate(['--backend', backend])
    expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ relayed: true })
    await capture.line((text) => text.includes(labAddresses.ipv4.server))
    process.kill(capture.pid, 'SIGKILL')
    await expectDirect(lab)
    await expectClean(lab, before)
    expect((await sluice(lab, installed, ['flows', session, '--json'])).stdout).toMatch(/^\{"id":1,/)
    const again = await openGate(['--backend', backend])
    expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ relayed: true })
    process.kill(again.capture.pid, 'SIGINT')
    expect(await again.capture.ended).toMatchObject({ code: 0 })
    await expectClean(lab, before)
  })

  test('the inspector: traffic and recording go on, the flows are there afterwards', async () => {
    const { capture, session } = await openGate(['--backend', backend])
    process.kill(await inspector(), 'SIGKILL')
    await said(capture, /flows cannot be listed now .*recording goes on/)
    expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ relayed: true })
    process.kill(capture.pid, 'SIGINT')
    expect(await capture.ended).toMatchObject({ code: 0 })
    expect((await sluice(lab, installed, ['flows', session, '--json'])).stdout).toMatch(/^\{"id":1,/)
    await expectClean(lab, before)
  })

  test('the helper: the command says so in one line, status 1', async () => {
    const { capture } = await openGate(['--backend', backend])
    process.kill(findProcess(lab, (line) => line.endsWith('/helper.mjs')), 'SIGKILL')
    expect(await capture.ended).toMatchObject({ code: 1 })
    expect(capture.errors()).toMatch(/^sluice: the helper ended unexpectedly[^\n]*\n$/m)
    await expectDirect(lab)
    await expectClean(lab, before)
  })
})

async function inspector(): Promise<number> {
  const find = (): number | undefined => {
    try {
      return findProcess(lab, (line) => line.includes('/inspector.mjs') && !line.includes('sluice-confine'))
    } catch {
      return undefined
    }
  }
  await expect.poll(find, { timeout: 15_000 }).toBeDefined()
  return find()!
}
