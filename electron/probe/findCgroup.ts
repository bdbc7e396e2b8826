import { readFile } from 'node:fs/promises'

import { execa } from 'execa'

import { Failure } from '#core/contract/failure.ts'
import { parseCgroup } from '#core/plan/parseNames.ts'
import { listCgroups } from './cgroups.ts'
import { placeOfUnit, unitName } from './unitPlace.ts'

/**
 * The cgroups (paths below the version 2 hierarchy) of a systemd unit: `nginx`, `nginx.service`, `session-3.scope`, `user-1000.slice`. Several when several users' managers run a
 * unit of that name. Looked for where systemd puts them rather than asked of systemd, so that it works for other people's user units and without a bus. One of the system's that is
 * not running has a place where it will be, when there is a unit of that name: who chooses it before starting it wants to see its first connections.
 * Fails with `unknown-cgroup`: it neither runs nor is known (a user's unit has to run).
 */
export async function findUnitCgroups(name: string): Promise<string[]> {
  const running = unitCgroups(await paths(), name)
  if (running.length > 0) return running
  const place = await placeOfUnit(name)
  if (place !== undefined) return [place]
  throw new Failure('unknown-cgroup', `there is no unit ${unitName(name)} that runs (no cgroup of that name), nor one of the system's that could be started`)
}

/** The same of what runs. @param all every path of the hierarchy */
export function unitCgroups(all: readonly string[], name: string): string[] {
  const unit = unitName(name)
  return all.filter((path) => path.split('/').at(-1) === unit)
}

/**
 * The cgroups of a container, by id (twelve digits or more, as Docker, Podman, containerd and CRI-O write it into the path) or by name (LXC, systemd-nspawn; Docker and
 * Podman are asked for its process). A container of theirs that is removed and made anew gets another id and so another cgroup: see containerWatch.ts.
 * Fails with `unknown-cgroup`.
 */
export async function findContainerCgroups(name: string): Promise<string[]> {
  const found = containerCgroups(await paths(), name)
  if (found.length > 0) return found
  for (const tool of ['/usr/bin/docker', '/usr/bin/podman']) {
    const { stdout, failed } = await execa(tool, ['inspect', '--format', '{{.State.Pid}}', '--', name], { reject: false, timeout: 10_000 })
    const pid = failed ? '' : stdout.trim()
    if (!/^[1-9]\d*$/.test(pid)) continue
    const path = /^0::\/(.+)$/m.exec(await readFile(`/proc/${pid}/cgroup`, 'latin1').catch(() => ''))?.[1]
    if (path !== undefined) return [path]
  }
  throw new Failure('unknown-cgroup', `there is no running container ${name} (no cgroup of it, and neither docker nor podman knows it)`)
}

/** The same without asking anybody. @param all every path of the hierarchy */
export function containerCgroups(all: readonly string[], name: string): string[] {
  const last = (path: string): string => path.split('/').at(-1) ?? ''
  const byId = /^[0-9a-f]{12,64}$/.test(name) ? all.filter((path) => new RegExp(`(?:^|-)${name}[0-9a-f]*(?:\\.scope)?$`).test(last(path))) : []
  const named = [`lxc.payload.${name}`, `machine-${name}.scope`, `systemd-nspawn@${name}.service`]
  return outermost(byId.length > 0 ? byId : all.filter((path) => named.includes(last(path))))
}

/** A cgroup that was typed as a path. Fails with `bad-cgroup`, or `unknown-cgroup`: a path that is not there is a mistyped one. */
export async function findCgroup(path: string): Promise<string> {
  const parsed = parseCgroup(path)
  const facts = await listCgroups()
  if (facts?.paths !== undefined && !facts.paths.includes(parsed)) throw new Failure('unknown-cgroup', `There is no cgroup ${parsed} here; a unit that is yet to start is chosen by its name`)
  return parsed
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
