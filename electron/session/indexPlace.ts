import { randomBytes } from 'node:crypto'
import { constants, closeSync, existsSync, lstatSync, mkdirSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { isAbsolute, join } from 'node:path'

import type { CaptureFiles } from './captureFiles.ts'
import type { FoundSession } from './sessionFolder.ts'
import { openRegularFile, readAt } from './openFile.ts'
import { Database } from './store/database.ts'
import { IndexStore } from './store/indexStore.ts'
import { indexVersion } from './store/schema.ts'
import { indexFileName } from '#core/contract/sessionFile.ts'

/** Folders outside the session an inspector writes in; its client makes them before it is confined. */
export function ownFolders(): { readonly state: string; readonly cache: string } {
  const base = (name: string, fallback: string): string => {
    const set = process.env[name]
    return set !== undefined && isAbsolute(set) ? set : join(homedir(), fallback)
  }
  return { state: join(base('XDG_STATE_HOME', '.local/state'), 'sluice'), cache: join(base('XDG_CACHE_HOME', '.cache'), 'sluice') }
}

/** An index that may be written, and what becomes of it in the end. */
export interface PlacedIndex {
  readonly store: IndexStore
  /** Filled already, and to be believed: nothing has to be read. */
  readonly complete: boolean
  /** All was read: makes the index one that may be believed next time. Call again after changing it. */
  seal(): void
  close(): void
}

interface Stamp {
  readonly dev: string
  readonly ino: string
  readonly size: string
  readonly changed: string
}

/** Of an index as it lies on disk. Nobody but root can put a chosen change time on a file, so one that was carried away and back differs. */
function stampOf(path: string): Stamp | null {
  try {
    const stat = lstatSync(path, { bigint: true })
    if (!stat.isFile() || stat.nlink !== 1n || Number(stat.uid) !== process.getuid?.()) return null
    return { dev: String(stat.dev), ino: String(stat.ino), size: String(stat.size), changed: String(stat.ctimeNs) }
  } catch {
    return null
  }
}

function tokenPath(token: string): string {
  return join(ownFolders().state, 'index-tokens', token)
}

function writeToken(token: string, stamp: Stamp): void {
  const path = tokenPath(token)
  mkdirSync(join(ownFolders().state, 'index-tokens'), { recursive: true, mode: 0o700 })
  const descriptor = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW, 0o600)
  try {
    writeSync(descriptor, JSON.stringify(stamp))
  } finally {
    closeSync(descriptor)
  }
}

const leftovers = ['-wal', '-shm', '-journal'] as const

/**
 * Opens the session's own index when it may be believed: a plain file of this user's with no journal beside it (SQLite would replay one),
 * bearing a token that this user's state folder knows together with the file's very inode and change time, of this version and for
 * this capture. Null otherwise. It is not opened before all that can be told from outside has been.
 */
function openTrusted(path: string, capture: CaptureFiles): { database: Database; token: string } | null {
  const stamp = stampOf(path)
  if (stamp === null || leftovers.some((ending) => existsSync(path + ending))) return null
  let database: Database | undefined
  try {
    // By the stamp alone, before SQLite sees a byte of the file.
    const known = knownTokens()
    const wanted = known.find((candidate) => candidate.stamp === JSON.stringify(stamp))
    if (wanted === undefined) return null
    database = new Database(path)
    const store = new IndexStore(database)
    const good =
      store.meta('version') === String(indexVersion) && store.meta('token') === wanted.token && store.meta('complete') === '1' &&
      store.meta('capture') === capture.fingerprint()
    if (good) return { database, token: wanted.token }
    database.close()
    return null
  } catch {
    database?.close()
    return null
  }
}

function knownTokens(): { readonly token: string; readonly stamp: string }[] {
  const folder = join(ownFolders().state, 'index-tokens')
  try {
    if (lstatSync(folder).uid !== process.getuid?.()) return []
    return readdirSync(folder).filter((name) => /^[0-9a-f]{32}$/.test(name)).flatMap((token) => {
      try {
        const descriptor = openRegularFile(join(folder, token), 'token')
        if (descriptor === null) return []
        try {
          return [{ token, stamp: Buffer.from(readAt(descriptor, 0, 1024)).toString('utf8') }]
        } finally {
          closeSync(descriptor)
        }
      } catch {
        return []
      }
    })
  } catch {
    return []
  }
}

/** Held as long as the process lives, whatever kills it: an exclusive lock of SQLite's on a file beside the index. Null: somebody else has it. */
function lockIndex(path: string): Database | null {
  try {
    const lock = new Database(`${path}.lock`)
    try {
      lock.exec('PRAGMA journal_mode=OFF; BEGIN EXCLUSIVE')
      return lock
    } catch {
      lock.close()
      return null
    }
  } catch {
    return null
  }
}

function create(path: string, journal: 'WAL' | 'MEMORY'): IndexStore {
  for (const ending of ['', ...leftovers]) rmSync(path + ending, { force: true })
  // Made here, not by SQLite, so that it is nobody's planted link and only this user's to read.
  closeSync(openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600))
  const database = new Database(path)
  database.exec(`PRAGMA journal_mode=${journal}; PRAGMA synchronous=${journal === 'WAL' ? 'NORMAL' : 'OFF'}; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-32768`)
  return IndexStore.create(database)
}

/**
 * The index of a session: the one in its folder if it can be believed, else a new one there; for a stranger's session, a folder that
 * cannot be written, or one another inspector is at work on, a private one in this user's cache that goes with the process.
 */
export function placeIndex(session: FoundSession, capture: CaptureFiles): PlacedIndex {
  const path = join(session.folder, indexFileName)
  const lock = session.own ? lockIndex(path) : null
  if (lock === null) return placePrivate()
  try {
    const trusted = openTrusted(path, capture)
    if (trusted !== null) return placed(new IndexStore(trusted.database), path, trusted.token, true, capture, lock)
    return placed(create(path, 'WAL'), path, randomBytes(16).toString('hex'), false, capture, lock)
  } catch {
    lock.close()
    return placePrivate()
  }
}

function placed(store: IndexStore, path: string, token: string, complete: boolean, capture: CaptureFiles, lock: Database): PlacedIndex {
  return {
    store,
    complete,
    seal: () => {
      store.putMeta('version', String(indexVersion))
      store.putMeta('token', token)
      store.putMeta('capture', capture.fingerprint())
      store.putMeta('complete', '1')
      store.flush()
      // Out of WAL, so that the file alone is the index and nothing is replayed into it next time.
      store.database.exec('PRAGMA journal_mode=DELETE')
      const stamp = stampOf(path)
      if (stamp !== null) writeToken(token, stamp)
    },
    close: () => {
      store.database.close()
      lock.close()
    },
  }
}

function placePrivate(): PlacedIndex {
  const folder = privateFolder()
  const store = create(join(folder, indexFileName), 'MEMORY')
  const close = (): void => {
    store.database.close()
    rmSync(folder, { recursive: true, force: true })
  }
  return { store, complete: false, seal: () => { store.flush() }, close }
}

/** A folder of this process's own; those of processes that are no more are swept on the way. */
function privateFolder(): string {
  for (const base of [join(ownFolders().cache, 'index'), join(tmpdir(), `sluice-index-${String(process.getuid?.() ?? 0)}`)]) {
    try {
      mkdirSync(base, { recursive: true, mode: 0o700 })
      const { uid, mode } = lstatSync(base)
      if (uid !== process.getuid?.() || (mode & 0o022) !== 0) continue
      for (const name of readdirSync(base)) {
        const pid = /^([0-9]+)-[0-9a-f]{16}$/.exec(name)?.[1]
        if (pid !== undefined && !isAlive(Number(pid))) rmSync(join(base, name), { recursive: true, force: true })
      }
      const folder = join(base, `${String(process.pid)}-${randomBytes(8).toString('hex')}`)
      mkdirSync(folder, { mode: 0o700 })
      return folder
    } catch {
      // The next one.
    }
  }
  throw new Error('no folder for an index can be written')
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

