import { existsSync, lchownSync, lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { connect } from 'node:net'

import { sudoPerson } from './sessionFolder.ts'

/** Under /run root alone makes something; in /tmp anybody might have made it before us, so whose it is is looked at. */
const rootFolder = '/run/sluice'
const mostSockets = 64

const myUid = (): number => process.geteuid?.() ?? 0
/** Whom the gate is for. */
const personUid = (): number => sudoPerson()?.uid ?? myUid()

function userFolders(uid: number): string[] {
  const given = process.env['XDG_RUNTIME_DIR']
  return [...(given === undefined || !given.startsWith('/') || uid !== myUid() ? [] : [`${given}/sluice`]), `/run/user/${String(uid)}/sluice`, `/tmp/sluice-${String(uid)}`]
}
const rootsFolder = (uid: number): string => `${rootFolder}/control-${String(uid)}`

/** A folder that nobody but its owner can put something into, and the owner is one of these. */
function isSafe(folder: string, owners: readonly number[]): boolean {
  try {
    const facts = lstatSync(folder)
    return facts.isDirectory() && owners.includes(facts.uid) && (facts.mode & 0o022) === 0
  } catch {
    return false
  }
}

/**
 * Where this process may listen: a path nobody else's socket can be at; undefined when there is no such place. As root (under sudo, too) beneath /run, in a folder of root's, since in
 * one of the person's a link might stand.
 */
export function makeControlPath(): string | undefined {
  const folders = myUid() === 0 ? [rootsFolder(personUid())] : userFolders(myUid())
  for (const folder of folders) {
    try {
      mkdirSync(folder, { recursive: myUid() === 0, mode: myUid() === 0 ? 0o755 : 0o700 })
    } catch {
      // It is there already, or cannot be: what counts is what it is now.
    }
    const path = `${folder}/${String(process.pid)}.sock`
    // sun_path, unix(7).
    if (isSafe(folder, [myUid()]) && Buffer.byteLength(path) <= 107) {
      rmSync(path, { force: true })
      return path
    }
  }
  return undefined
}

/** The socket belongs to whom the gate is for. It lies in a folder only root writes to, so nobody can have changed what is there. */
export function giveToPerson(path: string): void {
  const person = sudoPerson()
  if (person !== undefined) lchownSync(path, person.uid, person.gid)
}

/** Sockets of gates that this person may change. Root sees everybody's. */
export function listControlPaths(): string[] {
  const uid = personUid()
  const mine = [...new Set([...userFolders(uid), rootsFolder(uid)])].filter((folder) => isSafe(folder, [0, uid]))
  const others = myUid() !== 0 || !isSafe(rootFolder, [0]) ? [] : readdirSync(rootFolder).filter((name) => /^control-\d+$/.test(name)).map((name) => `${rootFolder}/${name}`).filter((folder) => isSafe(folder, [0]))
  return [...new Set([...mine, ...others])].flatMap((folder) => readdirSync(folder).filter((name) => /^\d+\.sock$/.test(name)).map((name) => `${folder}/${name}`)).slice(0, mostSockets)
}

/** Sockets that killed ones left in the folder of `path`. Best effort. */
export async function sweepControlPaths(path: string): Promise<void> {
  const folder = path.slice(0, path.lastIndexOf('/'))
  const others = readdirSync(folder).filter((name) => /^\d+\.sock$/.test(name) && `${folder}/${name}` !== path).slice(0, mostSockets)
  await Promise.all(others.map(async (name) => {
    // One that is just being made refuses, too, between bind(2) and listen(2).
    if (!existsSync(`/proc/${name.slice(0, -'.sock'.length)}`) && await isDead(`${folder}/${name}`)) rmSync(`${folder}/${name}`, { force: true })
  }))
}

function isDead(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(false)
    })
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'))
  })
}
