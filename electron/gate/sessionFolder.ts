import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { mkdir, open, rm, writeFile } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { isAbsolute, join } from 'node:path'

import * as v from 'valibot'

import { Failure } from '#core/contract/failure.ts'
import { sessionFileName, sessionFileShape } from '#core/contract/sessionFile.ts'
import type { SessionFile } from '#core/contract/sessionFile.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'

export interface SessionChoice {
  readonly plan: InterceptionPlan
  readonly payload: boolean
  readonly version: string
}

const fileLimit = 8 << 20

/**
 * Makes a session folder (mode 0700) with its `session.json`, never in an existing one. Under sudo the folder is to be the person's: then a child with their rights alone makes it,
 * so that a link planted on the way leads root nowhere. `path` is absolute.
 * Fails with `session-exists`, `cannot-write`.
 */
export async function createSessionFolder(path: string, { plan, payload, version }: SessionChoice): Promise<void> {
  if (!isAbsolute(path)) throw new Failure('cannot-write', `${path} is not an absolute path`)
  const content: SessionFile = { format: 1, tool: 'sluice', version, startedAt: new Date().toISOString(), plan: v.parse(sessionFileShape.entries.plan, plan), payload }
  const text = `${JSON.stringify(content, null, 2)}\n`
  const owner = sudoPerson()
  const code = owner === undefined ? await makeFolder(path, text) : await makeFolderAs(owner, path, text)
  if (code === undefined) return
  if (code === 'EEXIST') throw new Failure('session-exists', `${path} exists already`)
  if (code === 'ENOSPC' || code === 'EDQUOT') throw new Failure('disk-full', `there is no room for ${path}`, code)
  throw new Failure('cannot-write', `${path} cannot be made`, code)
}

/** Undefined when it went well, else the errno's name. */
async function makeFolder(path: string, text: string): Promise<string | undefined> {
  try {
    await mkdir(path, { mode: 0o700 })
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error)
  }
  try {
    await writeFile(join(path, sessionFileName), text, { flag: 'wx', mode: 0o600 })
    return undefined
  } catch (error) {
    await rm(path, { recursive: true, force: true })
    return (error as NodeJS.ErrnoException).code ?? String(error)
  }
}

export interface Owner {
  readonly uid: number
  readonly gid: number
}

/** Who called sudo, when we are root by it; undefined: our files are our own. */
export function sudoPerson(): Owner | undefined {
  const [uid, gid] = [process.env['SUDO_UID'], process.env['SUDO_GID']]
  if (process.geteuid?.() !== 0 || uid === undefined || gid === undefined || !/^\d{1,10}$/.test(uid) || !/^\d{1,10}$/.test(gid) || uid === '0') return undefined
  return { uid: Number(uid), gid: Number(gid) }
}

/** Runs in the child: plain CommonJS, its arguments path, file name and text by standard input. */
const childProgram = `
const fs = require('node:fs'), path = require('node:path')
const [folder, name] = process.argv.slice(1)
const text = fs.readFileSync(0, 'utf8')
let made = false
try {
  fs.mkdirSync(folder, { mode: 0o700 })
  made = true
  fs.writeFileSync(path.join(folder, name), text, { flag: 'wx', mode: 0o600 })
} catch (error) {
  if (made) fs.rmSync(folder, { recursive: true, force: true })
  process.stdout.write(String(error.code))
}
`

function makeFolderAs(owner: Owner, path: string, text: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['-e', childProgram, '--', path, sessionFileName], {
      stdio: ['pipe', 'pipe', 'ignore'],
      uid: owner.uid,
      gid: owner.gid,
      env: { PATH: '/usr/bin:/bin', ELECTRON_RUN_AS_NODE: '1' },
      cwd: '/',
    })
    let said = ''
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (said += chunk))
    child.once('error', (error) => resolve(error.message))
    child.once('close', (status) => resolve(said !== '' ? said : status === 0 ? undefined : `exit ${String(status)}`))
    child.stdin.on('error', () => undefined)
    child.stdin.end(text)
  })
}

/** Reads and checks `session.json`. Fails with `session-missing`, `session-unreadable` (no file, a link or pipe, too big, damaged, of a newer Sluice). */
export async function readSessionFile(folder: string): Promise<SessionFile> {
  const path = join(folder, sessionFileName)
  let file: FileHandle
  try {
    // No link is followed and no pipe waited for: a session folder may come from a stranger.
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') throw new Failure('session-missing', `${folder} is no Sluice session`, code)
    throw new Failure('session-unreadable', `${path} cannot be read`, code)
  }
  try {
    const facts = await file.stat()
    if (!facts.isFile()) throw new Failure('session-unreadable', `${path} is not a file`)
    if (facts.size > fileLimit) throw new Failure('session-unreadable', `${path} is too big to be Sluice's`)
    const buffer = Buffer.alloc(Math.min(facts.size, fileLimit))
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0)
    return parseSession(buffer.toString('utf8', 0, bytesRead), path)
  } finally {
    await file.close()
  }
}

function parseSession(text: string, path: string): SessionFile {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new Failure('session-unreadable', `${path} is damaged`)
  }
  const format = typeof value === 'object' && value !== null && 'format' in value ? value.format : undefined
  if (typeof format === 'number' && format > 1) throw new Failure('session-unreadable', `${path} was written by a newer Sluice (format ${String(format)})`)
  const parsed = v.safeParse(sessionFileShape, value)
  if (!parsed.success) throw new Failure('session-unreadable', `${path} is damaged`, v.getDotPath(parsed.issues[0]) ?? undefined)
  return parsed.output
}
