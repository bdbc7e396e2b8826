import { mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'

import { Failure } from '#core/contract/failure.ts'
import { listCgroups } from '#probe/cgroups.ts'

import { logAction } from './actionLog.ts'
import type { Person } from './findPerson.ts'
import { readIdentity } from './processIdentity.ts'
import { networkNamespace } from './runFolder.ts'

const beginning = (namespace: string): string => `sluice-run-${namespace}-`
/** Made by this very helper, which is alive. */
const made = new Set<string>()
const mountPoint = '/sys/fs/cgroup'

/**
 * A cgroup of its own for one process of the person's and all it will start: beneath the one it is in, so that whatever limits it there go on limiting it, and
 * no service manager has to be asked. Its path below the hierarchy is the result. The namespace in its name says whose it is after a crash.
 * Fails with `unknown-cgroup` (no version 2 hierarchy), `no-privilege` (not the person's process).
 */
export async function makeRunScope(pid: number, person: Pick<Person, 'uid'>): Promise<string> {
  const facts = await listCgroups()
  if (facts === undefined) throw new Failure('unknown-cgroup', 'a program can be run under the gate only where cgroup version 2 is mounted below /sys/fs/cgroup')
  const before = readIdentity(pid)
  const parent = before === undefined ? undefined : cgroupOf(pid)
  if (before === undefined || parent === undefined || !isOf(pid, person.uid)) throw new Failure('no-privilege', `process ${String(pid)} is not the person's`)
  const name = `${beginning(networkNamespace())}${String(pid)}`
  const path = parent === '' ? name : `${parent}/${name}`
  const folder = folderOf(facts.prefix, path)
  try {
    mkdirSync(folder, { mode: 0o755 })
    writeFileSync(`${folder}/cgroup.procs`, String(pid))
  } catch (error) {
    attempt(() => rmdirSync(folder))
    throw new Failure('unknown-cgroup', `no cgroup can be made in ${parent === '' ? 'the root of all cgroups' : parent}`, (error as NodeJS.ErrnoException).code)
  }
  // Between looking and moving another process could have got that id; then it is not the one to be watched.
  if (readIdentity(pid)?.start !== before.start || !isOf(pid, person.uid)) {
    await dissolve(folder)
    throw new Failure('no-privilege', `process ${String(pid)} ended`)
  }
  made.add(path)
  logAction({ result: 'ok', text: `made cgroup ${path} for process ${String(pid)}` })
  return path
}

/** Dissolves the cgroups this helper made; what still runs in one goes back to where it came from. */
export async function removeRunScopes(): Promise<void> {
  const facts = await listCgroups()
  for (const path of made) await dissolveScope(facts?.prefix ?? '', path)
  made.clear()
}

/** The same with those a crash left in this network namespace. Returns their paths. */
export async function removeLeftScopes(): Promise<string[]> {
  const facts = await listCgroups()
  const prefix = beginning(networkNamespace())
  const found = (facts?.paths ?? []).filter((path) => !made.has(path) && path.split('/').at(-1)?.startsWith(prefix) === true)
  for (const path of found) await dissolveScope(facts?.prefix ?? '', path)
  return found
}

async function dissolveScope(prefix: string, path: string): Promise<void> {
  const isGone = await dissolve(folderOf(prefix, path))
  logAction({ result: isGone ? 'ok' : 'failed', text: `dissolved cgroup ${path}`, ...(isGone ? {} : { said: 'something in it does not go' }) })
}

function folderOf(prefix: string, path: string): string {
  return `${mountPoint}/${prefix === '' ? '' : `${prefix}/`}${path}`
}

async function dissolve(folder: string): Promise<boolean> {
  const parent = `${folder.slice(0, folder.lastIndexOf('/'))}/cgroup.procs`
  // A process may fork while it is being moved, and a dead one's cgroup is let go of only when it has been collected.
  for (let tries = 0; tries < 50; tries++) {
    for (const inner of children(folder)) await dissolve(`${folder}/${inner}`)
    for (const pid of read(`${folder}/cgroup.procs`).split('\n').filter((line) => line !== '')) attempt(() => writeFileSync(parent, pid))
    if (attempt(() => rmdirSync(folder)) || read(`${folder}/cgroup.procs`, 'gone') === 'gone') return true
    await setTimeout(20)
  }
  return false
}

function children(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => entry.name)
  } catch {
    return []
  }
}

/** Real, effective, saved and file system user: all the person's. */
function isOf(pid: number, uid: number): boolean {
  const ids = /^Uid:\t(\d+)\t(\d+)\t(\d+)\t(\d+)$/m.exec(read(`/proc/${String(pid)}/status`))?.slice(1).map(Number)
  return ids?.every((each) => each === uid) === true
}

/** Path in the version 2 hierarchy, empty for its root. */
function cgroupOf(pid: number): string | undefined {
  return /^0::\/(.*)$/m.exec(read(`/proc/${String(pid)}/cgroup`))?.[1]
}

function read(path: string, otherwise = ''): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return otherwise
  }
}

function attempt(work: () => void): boolean {
  try {
    work()
    return true
  } catch {
    return false
  }
}
