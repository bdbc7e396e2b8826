import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { link, lstat, open, rename, unlink } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'

import { Failure } from '#core/contract/failure.ts'
import type { ExportFormat, ExportResult } from '#core/contract/inspectorProtocol.ts'
import { exportHar } from '#core/export/exportHar.ts'
import { exportNdjson } from '#core/export/exportNdjson.ts'
import { exportPcapng } from '#core/export/exportPcapng.ts'
import type { ExportSteps, ExportTally } from '#core/export/exportSteps.ts'
import type { SessionReader } from '#core/export/sessionReader.ts'

declare const __SLUICE_VERSION__: string | undefined
const version = typeof __SLUICE_VERSION__ === 'string' ? __SLUICE_VERSION__ : '0.0.0'

export interface WriteExportWish {
  readonly format: ExportFormat
  readonly path: string
  readonly filter: string
  readonly overwrite: boolean
  readonly signal?: AbortSignal
  readonly onProgress?: (done: number, of: number) => void
}

/** Bytes gathered before a write, and milliseconds worked before others get a turn. */
const writeSize = 256 * 1024
const turnTime = 10

/**
 * Exports into a file, whole or not at all: written beside the target under a name of its own, synced, then put in place in one step.
 * Failures: `cancelled`, `bad-filter`, `disk-full`, `cannot-write` (an existing file among them, unless `overwrite`); each leaves nothing behind.
 */
export async function writeExport(reader: SessionReader, wish: WriteExportWish): Promise<ExportResult> {
  const target = resolve(wish.path)
  const temporary = join(dirname(target), `.${basename(target).slice(0, 100)}.${randomBytes(6).toString('hex')}.part`)
  const steps = startSteps(reader, wish)
  let file: FileHandle | undefined
  let placed = false
  try {
    throwIfAborted(wish.signal)
    if (!wish.overwrite) await refuseExisting(target)
    file = await open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600)
    const { tally, bytes } = await pump(steps, file, wish.signal)
    await file.sync()
    await file.close()
    file = undefined
    throwIfAborted(wish.signal)
    await place(temporary, target, wish.overwrite)
    placed = true
    return { ...tally, bytes }
  } catch (error) {
    throw asFailure(error, target)
  } finally {
    steps.return({ flows: 0, entries: 0, notes: [] })
    await file?.close().catch(() => undefined)
    if (!placed) await unlink(temporary).catch(() => undefined)
  }
}

function startSteps(reader: SessionReader, wish: WriteExportWish): ExportSteps {
  const plain = { filter: wish.filter, ...(wish.onProgress === undefined ? {} : { onProgress: wish.onProgress }) }
  switch (wish.format) {
    case 'har': return exportHar(reader, { ...plain, version })
    case 'pcapng': return exportPcapng(reader, plain)
    case 'ndjson': return exportNdjson(reader, plain)
  }
}

async function pump(steps: ExportSteps, file: FileHandle, signal: AbortSignal | undefined): Promise<{ tally: ExportTally; bytes: number }> {
  const buffer = Buffer.allocUnsafe(writeSize)
  let used = 0
  let bytes = 0
  let lastTurn = performance.now()
  const flush = async (): Promise<void> => {
    await writeAll(file, buffer.subarray(0, used))
    bytes += used
    used = 0
  }
  for (;;) {
    const step = steps.next()
    if (step.done === true) {
      await flush()
      return { tally: step.value, bytes }
    }
    const piece = typeof step.value === 'string' ? Buffer.from(step.value, 'utf8') : step.value
    if (used + piece.length > buffer.length) await flush()
    if (piece.length > buffer.length) {
      await writeAll(file, piece)
      bytes += piece.length
    } else {
      buffer.set(piece, used)
      used += piece.length
    }
    if (performance.now() - lastTurn > turnTime) {
      await turn()
      lastTurn = performance.now()
    }
    throwIfAborted(signal)
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, bytes.length - at)
    at += bytesWritten
  }
}

async function refuseExisting(target: string): Promise<void> {
  // lstat and not access: a dangling link is somebody's, too.
  const there = await lstat(target).then(() => true, (error: unknown) => {
    if (codeOf(error) === 'ENOENT') return false
    throw error
  })
  if (there) throw new Failure('cannot-write', `${target} exists already`)
}

/** In one step; without `overwrite` through a hard link, which never replaces anything. */
async function place(temporary: string, target: string, overwrite: boolean): Promise<void> {
  if (!overwrite) {
    try {
      await link(temporary, target)
      await unlink(temporary)
      return
    } catch (error) {
      // File systems without hard links (vfat, some network ones): the name is claimed first, then taken over.
      if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'EXDEV'].includes(codeOf(error))) throw error
      await (await open(target, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600)).close()
      await rename(temporary, target).catch(async (reason: unknown) => {
        await unlink(target).catch(() => undefined)
        throw reason
      })
      return
    }
  }
  await rename(temporary, target)
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new Failure('cancelled', 'the export was cancelled')
}
function codeOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : ''
}
function asFailure(error: unknown, target: string): Failure | Error {
  if (error instanceof Failure) return error
  const code = codeOf(error)
  const detail = error instanceof Error ? error.message : String(error)
  if (code === 'ENOSPC' || code === 'EDQUOT') return new Failure('disk-full', `no space left for ${target}; nothing was written`, detail)
  if (code === 'EEXIST') return new Failure('cannot-write', `${target} exists already`, detail)
  const reasons: Readonly<Record<string, string>> = {
    ENOENT: 'its folder does not exist', ENOTDIR: 'its folder is none', EACCES: 'its folder may not be written', EPERM: 'its folder may not be written', EROFS: 'the file system is read-only',
    EISDIR: 'a folder has that name', ENAMETOOLONG: 'the name is too long', EFBIG: 'the file would be too big', EIO: 'the disk reports an error',
  }
  const reason = reasons[code]
  if (reason !== undefined) return new Failure('cannot-write', `cannot write ${target}: ${reason}`, detail)
  return error instanceof Error ? error : new Error(detail)
}
