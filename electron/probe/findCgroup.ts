import { readFile } from 'node:fs/promises'

import { execa } from 'execa'

import { Failure } from '#core/contract/failure.ts'
import { listCgroups } from './cgroups.ts'

/**
 * The cgroups (paths below the version 2 hierarchy) of a systemd unit: `nginx`, `nginx.service`, `session-3.scope`, `user-1000.slice`. Several when several users' managers run a
 * unit of that name. Looked for where systemd puts them rather than asked of systemd, so that it works for other people's user units and without a bus.
 * Fails with `unknown-cgroup`: a unit that is not running has none.
 */
export async function findUnitCgroups(name: string): Promise<string[]> {
  const unit = /\.(?:service|scope|slice|socket|mount|swap)$/.test(name) ? name : `${name}.service`
  const found = (await paths()).filter((path) => path.split('/').at(-1) === unit)
  if (found.length === 0) throw new Failure('unknown-cgroup', `there is no running unit ${unit} (no cgroup of that name)`)
  return found
}

/**
 * The cgroups of a container, by id (twelve digits or more, as Docker, Podman, containerd and CRI-O write it into the path) or by name (LXC, systemd-nspawn; Docker and
 * Podman are asked for its process).
 * Fails with `unknown-cgroup`.
 */
export async function findContainerCgroups(name: string): Promise<string[]> {
  const all = await paths()
  const last = (path: string): string => path.split('/').at(-1) ?? ''
  const byId = /^[0-9a-f]{12,64}$/.test(name) ? all.filter((path) => new RegExp(`(?:^|-)${name}[0-9a-f]*(?:\\.scope)?$`).test(last(path))) : []
  const named = [`lxc.payload.${name}`, `machine-${name}.scope`, `systemd-nspawn@${name}.service`]
  const found = byId.length > 0 ? byId : all.filter((path) => named.includes(last(path)))
  if (found.length > 0) return outermost(found)
  for (const tool of ['/usr/bin/docker', '/usr/bin/podman']) {
    const { stdout, failed } = await execa(tool, ['inspect', '--format', '{{.State.Pid}}', '--', name], { reject: false, timeout: 10_000 })
    const pid = failed ? '' : stdout.trim()
    if (!/^[1-9]\d*$/.test(pid)) continue
    const path = /^0::\/(.+)$/m.exec(await readFile(`/proc/${pid}/cgroup`, 'latin1').catch(() => ''))?.[1]
    if (path !== undefined) return [path]
  }
  throw new Failure('unknown-cgroup', `there is no running container ${name} (no cgroup of it, and neither docker nor podman knows it)`)
}

/** A container has cgroups of its own inside; the outer one holds them all. */
function outermost(found: readonly string[]): string[] {
  return found.filter((path) => !found.some((other) => path.startsWith(`${other}/`)))
}

async function paths(): Promise<readonly string[]> {
  const facts = await listCgroups()
  if (facts?.paths === undefined) throw new Failure('unknown-cgroup', 'the cgroups of this computer cannot be listed (is cgroup version 2 mounted below /sys/fs/cgroup?)')
  return facts.paths
}
