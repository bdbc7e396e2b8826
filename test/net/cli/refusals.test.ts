import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { makeLab } from '#test/lab/makeLab.ts'
import type { Lab, LabResult } from '#test/lab/makeLab.ts'
import { buildCapture } from '#test/support/captureFixture.ts'

import { ask, expectClean, snapshot } from '../helper/harness.ts'
import { asNobody, installSluice, onSmallDisk, sluice, startSluice, withoutFirewalls, writeCapture } from './harness.ts'
import type { Installed } from './harness.ts'

/** Bad input, bad surroundings: one clear line, status 1 or 2, nothing changed, nothing lost. */
let lab: Lab
let installed: Installed
let before: string
let good: string

beforeAll(async () => {
  installed = installSluice()
  lab = await makeLab()
  await lab.peer('server', 'serve', 'origin', '8080').event(({ event }) => event === 'listening')
  before = await snapshot(lab)
  const capture = buildCapture()
  capture.exchange('GET / HTTP/1.1\r\nHost: example.test\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi')
  good = writeCapture(installed, 'good', capture.bytes())
}, 240_000)
afterAll(async () => {
  await lab.remove()
  installed.remove()
})

function expectRefusal({ code, stdout, stderr }: LabResult, status: 1 | 2, says: RegExp): void {
  expect(stderr).toMatch(/^sluice: [^\n]{5,600}\n$/)
  expect(stderr).toMatch(says)
  expect(stderr).not.toMatch(/ at .*\.mjs|node:internal|undefined|\[object/)
  expect(stdout).toBe('')
  expect(code).toBe(status)
}
/** What `capture` leaves when it cannot begin: no session, no rule. */
async function expectNothing(name: string): Promise<void> {
  expect(existsSync(installed.session(name))).toBe(false)
  expect(await snapshot(lab)).toBe(before)
}

describe.each(['plan', 'capture'] as const)('%s', (command) => {
  const words = (args: readonly string[]): string[] => [command, ...args, ...(command === 'capture' ? ['-o', installed.session('never')] : [])]
  test.each([
    [['--tcp', '0'], /port/i], [['--tcp', '70000'], /70000/], [['--tcp', '80-70'], /80-70/], [['--tcp', 'abc'], /abc/], [['--tcp', ''], /port/i], [['--tcp', '80,,90'], /port/i], [['--tcp', '-1'], /-1|port/],
    [['--tcp', '80\u001b[31m'], /\\u001b/], [['--tcp', '1e3'], /1e3/], [[], /--tcp/],
    [['--tcp', '80', '--iface', 'a/b'], /a\/b/], [['--tcp', '80', '--iface', 'name-that-is-too-long'], /longer|15/], [['--tcp', '80', '--user', 'nobody-of-this-name'], /nobody-of-this-name/],
    [['--tcp', '80', '--exclude', '203.0.113.0/40'], /203\.0\.113\.0\/40/], [['--tcp', '80', '--scope', 'everything'], /local, forwarded/], [['--tcp', '80', '--backend', 'ipfw'], /nft/],
    [['--tcp', '80', '--port', '0'], /--port/], [['--tcp', '80', '--tpc', '90'], /--tcp/], [['--tcp', '80', 'stray'], /stray/], [['--tcp'], /--tcp/], [['--tcp', '80', '--backend', 'nft', '--backend', 'nft'], /twice/],
    [['--tcp', '80', '--json=yes'], /no value/],
  ] as const)('%j', async (args, says) => {
    expectRefusal(await sluice(lab, installed, words(args)), 2, says)
    await expectNothing('never')
  })

  test('an interface that is not there', async () => {
    expectRefusal(await sluice(lab, installed, words(['--tcp', '80', '--iface', 'nosuch0'])), 1, /nosuch0/)
    await expectNothing('never')
  })
  test('a cgroup that is not there', async () => {
    expectRefusal(await sluice(lab, installed, words(['--tcp', '80', '--cgroup', 'no/such.slice'])), 1, /no\/such\.slice/)
    await expectNothing('never')
  })
  test('no nft and no iptables', async () => {
    expectRefusal(await sluice(lab, installed, words(['--tcp', '80']), withoutFirewalls(installed.folder)), 1, /nftables.*iptables.*install/)
    await expectNothing('never')
  })
})

describe('the command line', () => {
  test.each([
    [['captrue'], /there is no command "captrue" \(did you mean capture\?\)/], [['--tcp', '80'], /a command comes first/], [['flows'], /missing/], [['show', 'x'], /missing/], [['show', 'x', 'first'], /first/],
    [['help', 'nothing'], /nothing/], [['capture', '--tcp', '80'], /-o/], [['capture', '--tcp', '80', '-o', 'x', '--for', 'soon'], /soon/], [['capture', '--tcp', '80', '-o', 'x', '--max-bytes', 'much'], /much/],
    [['capture', '--tcp', '80', '-o', 'x', '--threads', '0'], /--threads/], [['export', 'x'], /--format|-o/], [['export', 'x', '--format', 'pdf', '-o', 'y'], /pdf/], [['permission', 'grant'], /grant/], [['cleanup', '--hard'], /--hard/],
  ] as const)('%j', async (args, says) => {
    expectRefusal(await sluice(lab, installed, args), 2, says)
    expect(await snapshot(lab)).toBe(before)
  })
  test('nothing at all: the help, on standard error', async () => {
    const { code, stdout, stderr } = await sluice(lab, installed, [])
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toContain('sluice COMMAND [OPTIONS]')
  })
})

describe('capture', () => {
  test('without privileges', async () => {
    expectRefusal(await sluice(lab, installed, ['capture', '--tcp', '80', '-o', installed.session('nobodys')], asNobody), 1, /sudo|administrator|permission/)
    await expectNothing('nobodys')
  })
  test('into a folder that is there: what lies in it stays', async () => {
    const files = readdirSync(good)
    expectRefusal(await sluice(lab, installed, ['capture', '--tcp', '80', '-o', good]), 1, /there.*already|exists/)
    expect(readdirSync(good)).toEqual(files)
    expect(await snapshot(lab)).toBe(before)
  })
  test('into a place that is not there, or is a file', async () => {
    expectRefusal(await sluice(lab, installed, ['capture', '--tcp', '80', '-o', '/nonexistent/deeper/x.sluice']), 1, /nonexistent/)
    writeFileSync(join(installed.folder, 'file'), '')
    expectRefusal(await sluice(lab, installed, ['capture', '--tcp', '80', '-o', join(installed.folder, 'file', 'x.sluice')]), 1, /file/)
    expect(await snapshot(lab)).toBe(before)
  })
  test('onto a disk that is full', async () => {
    expectRefusal(await sluice(lab, installed, ['capture', '--tcp', '80', '-o', join(installed.folder, 'disk', 'x.sluice')], onSmallDisk(installed.folder, 64, 0)), 1, /no room/)
    expect(await snapshot(lab)).toBe(before)
  })

  test.each(['nft', 'iptables'] as const)('%s: while another Sluice has the gate open, which goes on undisturbed', async (backend) => {
    const first = startSluice(lab, installed, ['capture', '--tcp', '8080', '-o', installed.session(`first-${backend}`), '--backend', backend])
    await first.line((line) => line.startsWith('READY '), 30_000)
    const open = await snapshot(lab)
    expectRefusal(await sluice(lab, installed, ['capture', '--tcp', '8080', '-o', installed.session('second')]), 1, /open already|already open|another Sluice/i)
    expect(existsSync(installed.session('second'))).toBe(false)
    // Ports of a lease are renewed all the time; everything else stands still.
    const still = (text: string): string => text.replaceAll(/ (timeout|expires) [0-9a-z]+/g, '')
    expect(still(await snapshot(lab))).toBe(still(open))
    expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ ok: true, relayed: true })
    process.kill(first.pid, 'SIGINT')
    expect(await first.ended).toMatchObject({ code: 0 })
    await expectClean(lab, before)
  })
})

describe.each(['flows', 'show', 'export'] as const)('%s of a session', (command) => {
  const words = (folder: string): string[] => [command, folder, ...(command === 'show' ? ['1'] : command === 'export' ? ['--format', 'har', '-o', join(installed.folder, 'never.har')] : [])]
  test.each([
    ['that is not there', () => installed.session('nothing'), /there is no session/],
    ['that is a file', () => { writeFileSync(installed.session('file'), 'x'); return installed.session('file') }, /is a file/],
    ['without a capture', () => { mkdirSync(installed.session(`empty-${command}`)); return installed.session(`empty-${command}`) }, /capture|session/],
    ['that is damaged from its first byte', () => writeCapture(installed, `pdf-${command}`, Buffer.from('%PDF-1.7 and so on and on')), /not a capture/],
  ] as const)('%s', async (_name, make, says) => {
    expectRefusal(await sluice(lab, installed, words(make())), 1, says)
    expect(existsSync(join(installed.folder, 'never.har'))).toBe(false)
  })
  test('that is somebody else\'s', async () => {
    expectRefusal(await sluice(lab, installed, words(good), asNobody), 1, /cannot be read|EACCES|permission/i)
  })
  test('with a filter that is none', async () => {
    if (command === 'show') return
    expectRefusal(await sluice(lab, installed, [...words(good), '--filter', 'port ==']), 2, /filter|value/)
  })
})

test('a flow that is not in the session', async () => {
  expectRefusal(await sluice(lab, installed, ['show', good, '99']), 1, /no flow 99/)
})

test('an export never writes over a file, nor onto a full disk in silence', async () => {
  const file = join(installed.folder, 'kept.har')
  writeFileSync(file, 'kept')
  const result = await sluice(lab, installed, ['export', good, '--format', 'har', '-o', file])
  expectRefusal(result, 1, /there.*already|exists/)
  const full = await sluice(lab, installed, ['export', good, '--format', 'har', '-o', join(installed.folder, 'disk', 'x.har')], onSmallDisk(installed.folder, 64, 0))
  expectRefusal(full, 1, /no room|ENOSPC|full/i)
})
