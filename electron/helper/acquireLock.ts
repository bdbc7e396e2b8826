import { spawn } from 'node:child_process'
import { closeSync, constants, fchmodSync, fchownSync, fstatSync, ftruncateSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs'

import { Failure } from '#core/contract/failure.ts'

import { isAlive, readIdentity } from './processIdentity.ts'
import { makeRunFolder, runFolder } from './runFolder.ts'
import { requireTool, toolEnvironment } from './runTool.ts'

export interface Lock {
  /** Handed on to the guard: the lock stays held until the guard, too, is gone, and so until everything is taken back. */
  readonly descriptor: number
  readonly path: string
  /** Removes the file and lets go. Idempotent. */
  release(): void
}

/** How long to wait for the guard of a helper that died: its patience, and its work. */
const guardPatience = 8

/**
 * One open gate a network namespace. An flock(2) on an open file belongs to the open file description, so the kernel drops it
 * when the last of helper and guard is gone, however they went; no file with a process id could promise that. Node cannot call flock itself:
 * flock(1) takes it on the descriptor it inherits, ends, and the lock stays ours. The file is root's and closed to others, because whoever can open it could hold it.
 * Fails with `already-open`.
 */
export async function acquireLock(namespace: string): Promise<Lock> {
  makeRunFolder()
  const path = `${runFolder}/${namespace}.lock`
  for (;;) {
    const descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o600)
    try {
      if (!fstatSync(descriptor).isFile()) throw new Failure('internal', `${path} is not a file`)
      fchownSync(descriptor, 0, 0)
      fchmodSync(descriptor, 0o600)
      // From the open file: whoever lets go removes the name first, and then a name says nothing of who holds what we opened.
      const holder = readHolder(descriptor)
      const wait = holder !== undefined && !isAlive(holder) ? guardPatience : 0
      if (!(await flock(descriptor, wait))) {
        if (!isSameFile(descriptor, path)) {
          closeSync(descriptor)
          continue
        }
        throw new Failure('already-open', 'another Sluice is open here; close it first', holder === undefined ? undefined : `process ${String(holder.pid)}`)
      }
      if (isSameFile(descriptor, path)) {
        ftruncateSync(descriptor, 0)
        writeSync(descriptor, JSON.stringify(readIdentity(process.pid)), 0)
        return makeLock(descriptor, path)
      }
      // Its last holder removed the file between our open and our lock: once more, with the new one.
      closeSync(descriptor)
    } catch (error) {
      closeSync(descriptor)
      throw error
    }
  }
}

function makeLock(descriptor: number, path: string): Lock {
  let held = true
  return {
    descriptor,
    path,
    release: () => {
      if (!held) return
      held = false
      rmSync(path, { force: true })
      closeSync(descriptor)
    },
  }
}

function isSameFile(descriptor: number, path: string): boolean {
  const ours = fstatSync(descriptor)
  const there = statSync(path, { throwIfNoEntry: false })
  return there?.ino === ours.ino && there.dev === ours.dev
}

function readHolder(descriptor: number): { pid: number; start: string } | undefined {
  try {
    const found = JSON.parse(readFileSync(descriptor, 'utf8')) as { pid?: unknown; start?: unknown }
    return typeof found.pid === 'number' && typeof found.start === 'string' ? { pid: found.pid, start: found.start } : undefined
  } catch {
    return undefined
  }
}

function flock(descriptor: number, seconds: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const how = seconds === 0 ? ['--nonblock'] : ['--wait', String(seconds)]
    const child = spawn(requireTool('flock'), ['--exclusive', ...how, '3'], {
      stdio: ['ignore', 'ignore', 'ignore', descriptor],
      env: toolEnvironment,
      cwd: '/',
    })
    child.on('error', (error) => reject(new Failure('internal', 'flock cannot be started', error.message)))
    child.on('exit', (code) => resolve(code === 0))
  })
}
