import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'

import { listCgroups } from '#probe/cgroups.ts'
import { labAddresses, makeLab, peerProgram } from '#test/lab/makeLab.ts'
import type { Lab } from '#test/lab/makeLab.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'

import { expectClean, snapshot } from '../helper/harness.ts'
import { installSluice, prepared, sluice, startSluice } from './harness.ts'
import type { Installed } from './harness.ts'

/** A container that is removed and made anew under its name has another id and another cgroup: a person who chose the name means that one, too. */
let installed: Installed
let lab: Lab
let before: string
const slice = `sluicelab-container-${String(process.pid)}.slice`
const root = `/sys/fs/cgroup/${(await listCgroups())?.prefix ?? ''}`
const canMake = ((): boolean => {
  try {
    mkdirSync(join(root, slice))
    rmdirSync(join(root, slice))
    return true
  } catch {
    return false
  }
})()
const pathOf = (id: string): string => join(root, slice, `docker-${id.repeat(64)}.scope`)
const unit = `sluicelab-${String(process.pid)}.service`
const made = [...['a', 'b', 'c', 'd'].map(pathOf), join(root, slice, unit), join(root, slice, 'plain')]

beforeAll(() => {
  installed = installSluice()
}, 240_000)
beforeEach(async () => {
  mkdirSync(join(root, slice), { recursive: true })
  lab = await makeLab()
  await lab.peer('server', 'serve', 'far', '8080').event(({ event }) => event === 'listening')
  before = await snapshot(lab)
})
afterEach(async () => {
  await lab.remove()
  for (const path of [...made, join(root, slice)]) await remove(path)
})
afterAll(() => installed.remove())
/** The kernel lets go of one when its last process has been collected. */
async function remove(path: string): Promise<void> {
  await expect.poll(() => {
    try {
      if (existsSync(path)) rmdirSync(path)
      return true
    } catch {
      return false
    }
  }, { timeout: 10_000, interval: 20 }).toBe(true)
}
const inCgroup = (path: string, ...words: string[]): string[] => ['sh', '-c', 'echo $$ > "$0"/cgroup.procs && exec "$@"', path, ...words]
/** Docker's daemon is not here; what stands for its command says which process a name leads to now, as it would. */
const docker = '#!/bin/sh\nfor word; do :; done\ncat "WHERE/$word" || exit 1'
const withDocker = (): string[] => prepared(`mount -t tmpfs none /mnt; mkdir /mnt/up /mnt/work
mount -t overlay overlay -o lowerdir=/usr,upperdir=/mnt/up,workdir=/mnt/work /usr
printf '%s\\n' '${docker.replace('WHERE', join(installed.folder, 'sessions'))}' > /usr/bin/docker; chmod 755 /usr/bin/docker`)
const run = (name: string, pid: number | undefined): void => writeFileSync(join(installed.folder, 'sessions', name), `${String(pid ?? 0)}\n`)
async function startContainer(id: string): Promise<LabProcess> {
  mkdirSync(pathOf(id))
  const main = lab.spawn('router', inCgroup(pathOf(id), 'sh', '-c', 'echo up; exec sleep 300'))
  await main.line((line) => line === 'up')
  return main
}
const isRelayed = (id?: string): Promise<boolean> => isRelayedFrom(id === undefined ? undefined : pathOf(id))
async function isRelayedFrom(path: string | undefined): Promise<boolean> {
  const asking = [process.execPath, peerProgram, 'ask', labAddresses.ipv4.server, '8080']
  const { stdout } = await lab.exec('router', path === undefined ? asking : inCgroup(path, ...asking))
  const { ok, seenPort, localPort } = JSON.parse(stdout) as { ok: boolean; seenPort: number; localPort: number }
  expect(ok).toBe(true)
  return seenPort !== localPort
}

describe.runIf(canMake)('a container chosen by its name', () => {
  test('is taken again when it was made anew, and that is said', async () => {
    const first = await startContainer('a')
    run('web', first.pid)
    const folder = installed.session('container')
    const gate = startSluice(lab, installed, ['capture', '--tcp', '8080', '--scope', 'local', '--container', 'web', '--json', '-o', folder], withDocker())
    await gate.event(({ event }) => event === 'ready', 30_000)
    expect(await isRelayed('a')).toBe(true)
    expect(await isRelayed()).toBe(false)
    await first.stop()
    await remove(pathOf('a'))
    await gate.event(({ event, message }) => event === 'warning' && String(message).includes('has ended'), 30_000)
    // Its daemon says a moment later than the kernel that it runs.
    run('web', undefined)
    const second = await startContainer('b')
    run('web', second.pid)
    await gate.event(({ event, message }) => event === 'warning' && String(message).includes('Container web was made anew'), 30_000)
    expect(await isRelayed('b')).toBe(true)
    expect(await isRelayed()).toBe(false)
    await second.stop()
    expect((await sluice(lab, installed, ['change', folder, '--close'])).code).toBe(0)
    expect(await gate.ended).toMatchObject({ code: 0 })
    await expectClean(lab, before)
  })

  test('chosen while the gate is open, as units and cgroups may be: what bears the name is taken, also when it was made anew, until it is chosen no longer', async () => {
    const [service, plain] = [join(root, slice, unit), join(root, slice, 'plain')]
    for (const path of [service, plain]) mkdirSync(path)
    const first = await startContainer('c')
    run('db', first.pid)
    const folder = installed.session('changed')
    const gate = startSluice(lab, installed, ['capture', '--tcp', '8080', '--scope', 'local', '--cgroup', join(slice, 'plain'), '--json', '-o', folder], withDocker())
    await gate.event(({ event }) => event === 'ready', 30_000)
    const change = async (...words: string[]): Promise<void> => expect(await sluice(lab, installed, ['change', folder, ...words], withDocker())).toMatchObject({ code: 0, stderr: '' })
    /** The plain cgroup, the unit, the container, who is in none of them. */
    const taken = async (container: string): Promise<readonly boolean[]> => [await isRelayedFrom(plain), await isRelayedFrom(service), await isRelayed(container), await isRelayed()]
    expect(await taken('c')).toEqual([true, false, false, false])
    await change('--unit', unit, '--container', 'db', '--remove-cgroup', join(slice, 'plain'))
    expect(await taken('c')).toEqual([false, true, true, false])
    await first.stop()
    await remove(pathOf('c'))
    const second = await startContainer('d')
    run('db', second.pid)
    await gate.event(({ event, message }) => event === 'warning' && String(message).includes('Container db was made anew'), 30_000)
    await change('--remove-unit', unit, '--cgroup', join(slice, 'plain'))
    expect(await taken('d')).toEqual([true, false, true, false])
    await change('--remove-container', 'db')
    expect(await taken('d')).toEqual([true, false, false, false])
    await change('--cgroup', '*')
    expect(await taken('d')).toEqual([true, true, true, true])
    await second.stop()
    expect((await sluice(lab, installed, ['change', folder, '--close'])).code).toBe(0)
    expect(await gate.ended).toMatchObject({ code: 0 })
    await expectClean(lab, before)
  })
})
