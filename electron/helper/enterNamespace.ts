import { spawn } from 'node:child_process'
import { closeSync, constants, openSync, statfsSync } from 'node:fs'

import { Failure } from '#core/contract/failure.ts'

import { requireTool } from './runTool.ts'

/** statfs(2) type of namespace files. */
const nsfs = 0x6e736673

/**
 * The helper once more, inside another network namespace: everything it does (rules, routes, the relay's sockets, lock and journal) is that namespace's from its first step. `which` is a name below
 * /run/netns, or the id of a process. Input and output are handed on, so the app speaks with the inner one; its exit status is the result. The outer one only waits.
 *
 * Whoever was given an administrator's permission may choose any namespace: with the same permission a gate in the machine's own sees the traffic of every namespace that is routed
 * through it. What is checked is that nothing but a network namespace is entered: it is opened once, looked at, and handed on as that open file, so that neither a renamed
 * file nor a process id used again can come between.
 */
export async function runInNamespace(which: string, program: string, environment: Readonly<Record<string, string>>): Promise<number> {
  const descriptor = openNamespace(which)
  const inherited = 3
  const child = spawn(requireTool('nsenter'), [`--net=/proc/self/fd/${String(inherited)}`, '--', process.execPath, program, '--entered'], {
    stdio: ['inherit', 'inherit', 'inherit', descriptor],
    env: environment,
    cwd: '/',
  })
  closeSync(descriptor)
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void child.kill(signal))
  return new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new Failure('internal', 'nsenter cannot be started', error.message)))
    child.once('exit', (code) => resolve(code ?? 1))
  })
}

function openNamespace(which: string): number {
  const path = namespacePath(which)
  if (path === undefined) throw new Failure('usage', `${JSON.stringify(which.slice(0, 80))} is neither the name of a network namespace nor a process id`)
  let descriptor: number
  try {
    // Not O_NOFOLLOW: /proc/PID/ns/net is a link, though not to a path.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    throw new Failure('unknown-namespace', `there is no network namespace ${which} here`, (error as NodeJS.ErrnoException).code)
  }
  if (statfsSync(`/proc/self/fd/${String(descriptor)}`).type === nsfs) return descriptor
  closeSync(descriptor)
  throw new Failure('unknown-namespace', `${path} is no network namespace`)
}

function namespacePath(which: string): string | undefined {
  if (/^[1-9]\d{0,9}$/.test(which)) return `/proc/${which}/ns/net`
  return /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$/.test(which) ? `/run/netns/${which}` : undefined
}
