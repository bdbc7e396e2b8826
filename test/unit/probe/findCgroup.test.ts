import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { cgroupParents, readCgroupIds } from '#probe/cgroups.ts'
import { containerCgroups, findCgroup, findUnitCgroups, unitCgroups } from '#probe/findCgroup.ts'
import { placeOfUnit } from '#probe/unitPlace.ts'

const id = '0123456789ab'.padEnd(64, 'c')
const other = 'ba9876543210'.padEnd(64, 'd')
const all = [
  'init.scope', 'machine.slice', `machine.slice/libpod-${id}.scope`, `machine.slice/libpod-${id}.scope/container`, 'machine.slice/machine-web.scope',
  'system.slice', `system.slice/docker-${other}.scope`, 'system.slice/nginx.service', 'system.slice/nginx.service.d', 'user.slice',
  'user.slice/user-1000.slice', 'user.slice/user-1000.slice/user@1000.service', 'user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service', 'lxc.payload.web', 'lxc.payload.web/init.scope',
  `docker/${id}`, `kubepods.slice/cri-containerd-${other}.scope`,
]

describe('units', () => {
  test('by name, with and without its kind, whoever runs it', () => {
    const both = ['system.slice/nginx.service', 'user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service']
    expect(unitCgroups(all, 'nginx')).toEqual(both)
    expect(unitCgroups(all, 'nginx.service')).toEqual(both)
    expect(unitCgroups(all, 'user-1000.slice')).toEqual(['user.slice/user-1000.slice'])
    expect(unitCgroups(all, 'ngin')).toEqual([])
    expect(unitCgroups(all, '.*')).toEqual([])
  })

  describe('that do not run', () => {
    let root: string
    const folders = (): string[] => [join(root, 'etc'), join(root, 'usr')]
    const put = (path: string, text: string): void => {
      mkdirSync(join(root, path, '..'), { recursive: true })
      writeFileSync(join(root, path), text)
    }
    beforeEach(() => {
      root = mkdtempSync(join(tmpdir(), 'sluice-units-'))
    })
    afterEach(() => rmSync(root, { recursive: true }))

    test('have a place where they will be', async () => {
      put('usr/web.service', '[Service]\nExecStart=/bin/true\n')
      put('usr/web@.service', '[Service]\nExecStart=/bin/true\n')
      put('usr/my-web@.service', '[Service]\nExecStart=/bin/true\n')
      expect(await placeOfUnit('web', folders())).toBe('system.slice/web.service')
      expect(await placeOfUnit('web@8080', folders())).toBe('system.slice/system-web.slice/web@8080.service')
      expect(await placeOfUnit('my-web@1.service', folders())).toBe('system.slice/system-my\\x2dweb.slice/my-web@1.service')
    })
    test('in the slice that their files say, the last one', async () => {
      put('usr/web.service', '[Service]\nSlice=a.slice\n')
      expect(await placeOfUnit('web', folders())).toBe('a.slice/web.service')
      put('usr/web.service.d/20-b.conf', '[Service]\nSlice = a-b-c.slice \n')
      put('etc/web.service.d/10-a.conf', '[Service]\nSlice=x.slice\n')
      expect(await placeOfUnit('web', folders())).toBe('a.slice/a-b.slice/a-b-c.slice/web.service')
      put('etc/web.service.d/30-none.conf', '[Service]\nSlice=\n')
      expect(await placeOfUnit('web', folders())).toBe('system.slice/web.service')
      put('etc/web.service', '[Service]\nSlice=../../etc.slice\n')
      rmSync(join(root, 'etc/web.service.d'), { recursive: true })
      rmSync(join(root, 'usr/web.service.d'), { recursive: true })
      expect(await placeOfUnit('web', folders())).toBe('system.slice/web.service')
    })
    test('have none where nobody knows them, or they are masked, or the name is none', async () => {
      put('usr/web.service', '[Service]\n')
      mkdirSync(join(root, 'etc'))
      symlinkSync('/dev/null', join(root, 'etc/web.service'))
      for (const name of ['web', 'other', 'a/b', '..', '.service', 'web.scope', 'x y', '']) expect(await placeOfUnit(name, folders()), name).toBeUndefined()
    })
  })

  test('one that nobody knows is refused', async () => {
    await expect(findUnitCgroups('no-such-unit-here')).rejects.toMatchObject({ code: 'unknown-cgroup' })
    await expect(findCgroup('no/such.slice')).rejects.toMatchObject({ code: 'unknown-cgroup' })
    await expect(findCgroup('../x')).rejects.toMatchObject({ code: 'bad-cgroup' })
  })
})

test('containers: by id as everybody writes it, by name where that is in the path, the outer one', () => {
  expect(containerCgroups(all, id)).toEqual([`machine.slice/libpod-${id}.scope`, `docker/${id}`])
  expect(containerCgroups(all, other.slice(0, 12))).toEqual([`system.slice/docker-${other}.scope`, `kubepods.slice/cri-containerd-${other}.scope`])
  expect(containerCgroups(all, 'web')).toEqual(['machine.slice/machine-web.scope', 'lxc.payload.web'])
  expect(containerCgroups(all, '0123456789a')).toEqual([])
  expect(containerCgroups(all, 'nobody')).toEqual([])
})

test('what is no cgroup of the hierarchy has no number, and what is above it is looked at as far as it is there', () => {
  expect(readCgroupIds('', ['..', 'no/such', 'cgroup.procs'])).toEqual({})
  expect([...cgroupParents('', ['no/such/path']).keys()]).toEqual(['/sys/fs/cgroup'])
})
