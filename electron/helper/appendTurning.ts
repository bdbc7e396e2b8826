import { spawnSync } from 'node:child_process'
import { chmodSync, closeSync, constants, fchmodSync, fstatSync, lstatSync, mkdirSync, openSync, renameSync, statSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'

import { findTool, toolEnvironment } from '#probe/tools.ts'

/**
 * Appends to a file of root's that all may read and several processes write. Beyond `limit` bytes it turns: `PATH.1` is what it was, and one older file is kept.
 * Nothing is written where the folder is not root's or the path is no file. Throws what the kernel says.
 */
export function appendTurning(path: string, text: string, limit: number): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
  const folder = lstatSync(dirname(path))
  if (!folder.isDirectory() || folder.uid !== 0) return
  // Our umask took what mkdir was told.
  if ((folder.mode & 0o777) !== 0o755) chmodSync(dirname(path), 0o755)
  const file = openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o644)
  try {
    const facts = fstatSync(file)
    if (!facts.isFile()) return
    fchmodSync(file, 0o644)
    // One write: entries of several helpers do not mix.
    writeSync(file, text)
    if (facts.size > limit) turn(path, facts.ino)
  } finally {
    closeSync(file)
  }
}

/**
 * One at a time, and only the file that was seen to be too long: whoever comes second would put the new one, with an entry or two, over what has just been put aside. Who does not get the
 * lock at once leaves it to who has it. It lies in a file nobody else can open, or anybody could keep the log from turning.
 */
function turn(path: string, seen: number): void {
  const flock = findTool('flock')
  if (flock === undefined) return
  const lock = openSync(join(dirname(path), '.turning'), constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o600)
  try {
    // It ends and the lock stays ours, as in acquireLock.ts.
    const { status } = spawnSync(flock, ['--exclusive', '--nonblock', '3'], { stdio: ['ignore', 'ignore', 'ignore', lock], env: toolEnvironment, cwd: '/', timeout: 2000 })
    if (status === 0 && statSync(path, { throwIfNoEntry: false })?.ino === seen) renameSync(path, `${path}.1`)
  } finally {
    closeSync(lock)
  }
}
