import { closeSync, fstatSync, lstatSync, realpathSync, statSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import * as v from 'valibot'

import { openRegularFile, readAt } from './openFile.ts'
import { Failure } from '#core/contract/failure.ts'
import { sessionFileName, sessionFileShape } from '#core/contract/sessionFile.ts'
import { escapeText } from '#core/flow/escapeText.ts'

const sessionFileLimit = 1024 * 1024

/** What can be said of a session before its capture is read. */
export interface FoundSession {
  readonly folder: string
  /** The folder is this user's own and nobody else may write in it: what lies there is no stranger's. */
  readonly own: boolean
  readonly notes: readonly string[]
}

/** Looks at a session folder. Failures: 'session-missing', 'session-unreadable', each one clear line. */
export function findSession(path: string): FoundSession {
  if (!isAbsolute(path)) throw new Failure('session-missing', 'the session folder has to be an absolute path')
  let folder: string
  try {
    folder = realpathSync(path)
    if (!statSync(folder).isDirectory()) throw new Failure('session-unreadable', `${escapeText(path, 300)} is a file, not a session folder`)
  } catch (error) {
    if (error instanceof Failure) throw error
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') throw new Failure('session-missing', `there is no session at ${escapeText(path, 300)}`)
    throw new Failure('session-unreadable', `${escapeText(path, 300)} cannot be read: ${code ?? 'unknown error'}`)
  }
  const notes = readSessionFile(folder)
  const { uid, mode } = lstatSync(folder)
  return { folder, own: uid === process.getuid?.() && (mode & 0o022) === 0, notes }
}

function readSessionFile(folder: string): string[] {
  const descriptor = openRegularFile(join(folder, sessionFileName), sessionFileName)
  if (descriptor === null) return [`there is no ${sessionFileName}: what was asked for is not known`]
  try {
    if (fstatSync(descriptor).size > sessionFileLimit) throw new Failure('session-unreadable', `${sessionFileName} is too long to be one`)
    let data: unknown
    try {
      data = JSON.parse(Buffer.from(readAt(descriptor, 0, sessionFileLimit)).toString('utf8'))
    } catch {
      throw new Failure('session-unreadable', `${sessionFileName} is damaged: not JSON`)
    }
    const format = typeof data === 'object' && data !== null ? (data as Record<string, unknown>)['format'] : undefined
    if (typeof format === 'number' && format > 1) {
      throw new Failure('session-unreadable', `this session is of format ${String(format)}, written by a newer Sluice; this one reads format 1`)
    }
    if (!v.is(sessionFileShape, data)) throw new Failure('session-unreadable', `${sessionFileName} is damaged: not a session of Sluice`)
    return []
  } finally {
    closeSync(descriptor)
  }
}
