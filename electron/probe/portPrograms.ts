import { readdir, readFile, readlink } from 'node:fs/promises'

/** Milliseconds one look may take: the list is asked for every two seconds. */
const patience = 400
const rememberLimit = 20_000

/** What earlier looks found; null: nobody we may look into holds it. Only sockets that are still asked for are kept. */
let remembered = new Map<string, string | null>()

/** Names of the programs that hold these sockets, by inode; only processes this user may look into. */
export async function programsOf(inodes: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const asked = new Set(inodes)
  const next = new Map<string, string | null>()
  for (const inode of asked) {
    const name = remembered.get(inode)
    if (name !== undefined) next.set(inode, name)
  }
  const wanted = new Set([...asked].filter((inode) => !next.has(inode)))
  if (wanted.size > 0) await search(wanted, next)
  if (next.size > rememberLimit) next.clear()
  remembered = next
  return new Map([...next].filter((entry): entry is [string, string] => entry[1] !== null))
}

async function search(wanted: Set<string>, found: Map<string, string | null>): Promise<void> {
  const end = performance.now() + patience
  // Newest first: what was just started is what a person looks for.
  const pids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name)).map(Number).sort((a, b) => b - a)
  for (const pid of pids) {
    if (wanted.size === 0) return
    if (performance.now() > end) return
    await look(pid, wanted, found)
  }
  // All processes were looked at: these belong to others, and looking again would find no more.
  for (const inode of wanted) found.set(inode, null)
}

async function look(pid: number, wanted: Set<string>, found: Map<string, string | null>): Promise<void> {
  const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => [])
  let name: string | undefined
  for (let at = 0; at < descriptors.length; at += 64) {
    const links = await Promise.all(descriptors.slice(at, at + 64).map((descriptor) => readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => '')))
    for (const link of links) {
      const inode = /^socket:\[(\d+)\]$/.exec(link)?.[1]
      if (inode === undefined || !wanted.delete(inode)) continue
      name ??= await readFile(`/proc/${pid}/comm`, 'utf8').then((text) => text.trimEnd(), () => '')
      found.set(inode, name === '' ? null : name)
    }
    if (wanted.size === 0) return
  }
}
