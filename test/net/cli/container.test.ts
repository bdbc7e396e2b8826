import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'

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
    return true
  } catch {
    return false
  }
})()
const pathOf = (id: string): string => join(root, slice, `docker-${id.repeat(64)}.scope`)

beforeAll(async () => {
  installed = installSluice()
  lab = await makeLab()
  await lab.peer('server', 'serve', 'far', '8080').event(({ event }) => event === 'listening')
  before = await snapshot(lab)
})
afterEach(async () => {
  await lab.remove()
  for (const path of [pathOf('a'), pathOf('b'), join(root, slice)]) await remove(path)
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
async function isRelayed(id?: string): Promise<boolean> {
  const asking = [process.execPath, peerProgram, 'ask', labAddresses.ipv4.server, '8080']
  const { stdout } = await lab.exec('router', id === undefined ? asking : inCgroup(pathOf(id), ...asking))
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
})
