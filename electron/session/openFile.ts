import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'

import { Failure } from '#core/contract/failure.ts'

/** Opens a regular file for reading: never through a link at its end, never waiting for a FIFO. Null when there is none; else Failure 'session-unreadable'. */
export function openRegularFile(path: string, what: string): number | null {
  let descriptor: number
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return null
    if (code === 'ELOOP') throw new Failure('session-unreadable', `${what} is a link, not a file`)
    throw new Failure('session-unreadable', `${what} cannot be read: ${code ?? 'unknown error'}`)
  }
  if (!fstatSync(descriptor).isFile()) {
    closeSync(descriptor)
    throw new Failure('session-unreadable', `${what} is not an ordinary file`)
  }
  return descriptor
}

/** Reads up to `length` bytes at `position`, fewer only at the end of the file. */
export function readAt(descriptor: number, position: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  let at = 0
  while (at < length) {
    const read = readSync(descriptor, bytes, at, length - at, position + at)
    if (read === 0) break
    at += read
  }
  return at === length ? bytes : bytes.subarray(0, at)
}
