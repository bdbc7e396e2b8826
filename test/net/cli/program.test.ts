import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'

import type { Action } from '#core/contract/actionLog.ts'
import { listCgroups } from '#probe/cgroups.ts'
import { labAddresses, makeLab, peerProgram } from '#test/lab/makeLab.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'
import type { Lab } from '#test/lab/makeLab.ts'
import { namespaceInode, snapshot } from '../helper/harness.ts'
import { asNobody, installSluice, onSmallDisk, sluice, startSluice } from './harness.ts'
import type { Installed } from './harness.ts'

// `sluice run`: the gate is open for one program, and for nobody else.

let lab: Lab
let installed: Installed
let before: string
beforeAll(async () => {
  installed = installSluice()
  lab = await makeLab()
  await lab.peer('server', 'serve', 'far', '8080').event(({ event }) => event === 'listening')
  before = await snapshot(lab)
})
afterAll(async () => {
  await lab.remove()
  installed.remove()
})

const { server } = labAddresses.ipv4
const asking = [process.execPath, peerProgram, 'ask', server, '8080']
const talking = [process.execPath, peerProgram, 'talk', server, '8080']
/** So many bytes, which the server says back. */
async function sayMuch(running: LabProcess, bytes: number): Promise<void> {
  await running.event(({ event }) => event === 'line', 30_000)
  running.write(`bulk ${String(bytes)}`)
  expect(await running.event(({ event }) => event === 'bytes', 30_000)).toMatchObject({ bytes })
}
/** Made for a program of this laboratory's: others may run beside. */
const leftCgroups = async (): Promise<string[]> => {
  const ours = (['router', 'client'] as const).map((place) => `sluice-run-${namespaceInode(lab, place)}-`)
  return ((await listCgroups())?.paths ?? []).filter((path) => ours.some((name) => path.includes(name)))
}
const relayed = (answer: string): boolean => {
  const { ok, seenPort, localPort } = JSON.parse(answer) as { ok: boolean; seenPort: number; localPort: number }
  expect(ok).toBe(true)
  return seenPort !== localPort
}

test('the program is intercepted, with what it starts, as the person it is for; its status is passed on; nothing is left', async () => {
  const folder = installed.session('first')
  const script = 'id -u; "$@"; exit 7'
  const { stdout, stderr, code } = await sluice(lab, installed, ['run', '--tcp', '8080', '-o', folder, '--', 'sh', '-c', script, 'sh', ...asking], ['env', 'SUDO_UID=65534', 'SUDO_GID=65534'])
  expect(stderr).toContain('sluice: 1 flow in first.sluice')
  expect(code).toBe(7)
  const [user, answer = ''] = stdout.trim().split('\n')
  expect(user).toBe('65534')
  expect(relayed(answer)).toBe(true)
  expect(existsSync(`${folder}/capture-000001.pcapng`)).toBe(true)
  expect(await snapshot(lab)).toBe(before)
  expect(await leftCgroups()).toEqual([])
  // Root made a cgroup for it and dissolved it: both stand in the log.
  const here = namespaceInode(lab)
  const log = await sluice(lab, installed, ['log', '--json'])
  const said = log.stdout.trimEnd().split('\n').map((line) => JSON.parse(line) as Action).filter(({ namespace, text }) => namespace === here && /^(?:made|dissolved) cgroup \S*sluice-run-/.test(text)).slice(-2)
  const [, path = ''] = /^made cgroup (\S+) for process \d+$/.exec(said[0]?.text ?? '') ?? []
  expect(said).toMatchObject([{ result: 'ok', person: 'nobody(65534)' }, { result: 'ok', person: 'nobody(65534)', text: `dissolved cgroup ${path}` }])
})

test.each(['its name', 'a process in it'])('in another network namespace, given by %s: program and gate are there, and nothing is done here', async (by) => {
  const inside = lab.spawn('client', ['sh', '-c', 'echo inside; exec sleep 600'])
  // Before that it is a process of the namespace it was started in, where nothing may be done.
  await inside.line((line) => line === 'inside')
  const there = await snapshot(lab, 'client')
  const folder = installed.session(by === 'its name' ? 'by-name' : 'by-process')
  const netns = by === 'its name' ? lab.names.client : String(inside.pid)
  const script = 'id -u; "$@"; read -r go'
  const running = startSluice(lab, installed, ['run', '--tcp', '8080', '--threads', '2', '--netns', netns, '-o', folder, '--', 'sh', '-c', script, 'sh', ...asking], ['env', 'SUDO_UID=65534', 'SUDO_GID=65534'])
  const answer = await running.line((line) => line.startsWith('{'), 30_000)
  expect(relayed(answer)).toBe(true)
  expect(JSON.parse(answer)).toMatchObject({ seenAddress: labAddresses.ipv4.client })
  expect(running.output().split('\n')[0]).toBe('65534')
  expect(await snapshot(lab)).toBe(before)
  expect(await snapshot(lab, 'client')).not.toBe(there)
  expect(JSON.parse((await sluice(lab, installed, ['change', folder, '--add', '9000', '--json'])).stdout)).toMatchObject({ added: { tcp: '9000' } })
  running.write('go')
  expect(await running.ended).toMatchObject({ code: 0 })
  expect(running.errors()).toContain('sluice: 1 flow in')
  expect(await snapshot(lab, 'client')).toBe(there)
  expect(await leftCgroups()).toEqual([])
  await inside.stop()
})

test('with a time the gate closes, and the program goes on', async () => {
  const folder = installed.session('timed')
  const running = startSluice(lab, installed, ['run', '--tcp', '8080', '--for', '200ms', '-o', folder, '--', 'sh', '-c', 'echo up; read -r go; "$@"; exit 4', 'sh', ...asking])
  await running.line((line) => line === 'up', 30_000)
  await expect.poll(async () => (await sluice(lab, installed, ['change', folder, '--status'])).code, { timeout: 30_000 }).toBe(1)
  expect(await snapshot(lab)).toBe(before)
  running.write('go')
  expect(relayed(await running.line((line) => line.startsWith('{'), 30_000))).toBe(false)
  expect(await running.ended).toMatchObject({ code: 4 })
})

test('another program of the same person goes direct meanwhile, and a child that outlives the program is set free', async () => {
  const running = startSluice(lab, installed, ['run', '--tcp', '8080', '-o', installed.session('second'), '--', 'sh', '-c', 'sleep 300 >&- 2>&- & echo $!; read -r go'])
  const child = Number(await running.line((line) => /^\d+$/.test(line), 30_000))
  expect(readFileSync(`/proc/${String(child)}/cgroup`, 'latin1')).toContain('sluice-run-')
  const answer = await lab.exec('router', asking)
  expect(relayed(answer.stdout)).toBe(false)
  running.write('go')
  expect(await running.ended).toMatchObject({ code: 0 })
  expect(readFileSync(`/proc/${String(child)}/cgroup`, 'latin1')).not.toContain('sluice-run-')
  process.kill(child, 'SIGKILL')
  expect(await leftCgroups()).toEqual([])
  expect(await snapshot(lab)).toBe(before)
})

test('sluice change adds a port while the program runs, still for it alone, and closing the gate leaves the program running', async () => {
  await lab.peer('server', 'serve', 'far', '9000').event(({ event }) => event === 'listening')
  const folder = installed.session('changed')
  const asking9000 = asking.map((word) => (word === '8080' ? '9000' : word))
  const running = startSluice(lab, installed, ['run', '--tcp', '8080', '-o', folder, '--', 'sh', '-c', 'echo up; while read -r go; do "$@"; done; echo over', 'sh', ...asking9000])
  await running.line((line) => line === 'up', 30_000)
  const answers = (): string[] => running.output().split('\n').filter((line) => line.startsWith('{'))
  const askInside = async (): Promise<boolean> => {
    const before = answers().length
    running.write('go')
    await running.line((line) => line.startsWith('{') && answers().length > before, 30_000)
    return relayed(answers().at(-1) ?? '')
  }
  expect(await askInside()).toBe(false)
  const { stdout } = await sluice(lab, installed, ['change', folder, '--add', '9000', '--json'])
  expect(JSON.parse(stdout)).toMatchObject({ session: folder, phase: 'open', added: { tcp: '9000' } })
  expect(await askInside()).toBe(true)
  expect(relayed((await lab.exec('router', asking9000)).stdout)).toBe(false)
  expect((await sluice(lab, installed, ['change', folder, '--close'])).code).toBe(0)
  expect(await askInside()).toBe(false)
  running.stdin.end()
  await running.line((line) => line === 'over', 30_000)
  expect(await running.ended).toMatchObject({ code: 0 })
  expect(await snapshot(lab)).toBe(before)
  expect(await leftCgroups()).toEqual([])
})

test('a budget keeps the newest of what the program says, whole files of it', async () => {
  const folder = installed.session('budget')
  const running = startSluice(lab, installed, ['run', '--tcp', '8080', '-o', folder, '--scope', 'local', '--max-bytes', '1MiB', '--segment-bytes', '64KiB', '--', ...talking])
  await sayMuch(running, 4 << 20)
  running.write('end')
  expect(await running.ended).toMatchObject({ code: 0 })
  const segments = readdirSync(folder).filter((name) => name.endsWith('.pcapng'))
  expect(segments).not.toContain('capture-000001.pcapng')
  expect(segments.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)).toBeLessThanOrEqual(1 << 20)
})

test('a warning is said on standard error, and the program goes on', async () => {
  const disk = join(installed.folder, 'disk')
  const running = startSluice(lab, installed, ['run', '--tcp', '8080', '-o', join(disk, 'x.sluice'), '--', ...talking], onSmallDisk(installed.folder, 2048, 1500))
  await sayMuch(running, 4 << 20)
  // What is relayed is written a while later: a program that had ended by then would be told nothing.
  await expect.poll(() => running.errors(), { timeout: 20_000 }).toContain('sluice: the recording ended, flows go on')
  running.write('end')
  expect(await running.ended).toMatchObject({ code: 0 })
  expect(running.output()).not.toContain('the recording ended')
})

test.each([
  ['no program', ['--tcp', '8080', '-o', 'x.sluice'], 2, 'which program?'],
  ['a cgroup as well', ['--tcp', '8080', '-o', 'x.sluice', '--cgroup', 'a', '--', 'true'], 2, 'a cgroup of its own'],
  ['no place', ['--tcp', '8080', '--', 'true'], 2, 'where to?'],
  ['what others send', ['--tcp', '8080', '-o', 'x.sluice', '--scope', 'local,forwarded', '--', 'true'], 2, 'leave out --scope'],
  ['an interface', ['--tcp', '8080', '-o', 'x.sluice', '-i', 'up0', '--', 'true'], 2, 'leave it out'],
  ['a namespace that is none', ['--tcp', '8080', '-o', 'x.sluice', '--netns', 'a/b', '--', 'true'], 2, 'neither the name'],
  ['a namespace that is not there', ['--tcp', '8080', '-o', 'x.sluice', '--netns', 'nosuch', '--', 'true'], 1, 'no network namespace nosuch'],
  ['a budget that is no number', ['--tcp', '8080', '-o', 'x.sluice', '--max-bytes', 'much', '--', 'true'], 2, 'not "much"'],
])('%s: refused', async (_name, args, status, said) => {
  const { code, stderr } = await sluice(lab, installed, ['run', ...args])
  expect(stderr).toContain(said)
  expect(code).toBe(status)
})

test('only root starts a program in another namespace', async () => {
  const { code, stderr } = await sluice(lab, installed, ['run', '--tcp', '8080', '-o', installed.session('nobodys'), '--netns', lab.names.client, '--', 'true'], asNobody)
  expect(stderr).toContain('only root can start a program in another network namespace')
  expect(code).toBe(1)
})

test('a program that is not there: the shell\'s status and words', async () => {
  const { code, stderr } = await sluice(lab, installed, ['run', '--tcp', '8080', '-o', installed.session('third'), '--', 'no-such-program'])
  expect(stderr).toContain('no-such-program')
  expect(code).toBe(127)
})
