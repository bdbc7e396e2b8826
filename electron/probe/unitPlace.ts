import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'

/** Where systemd looks for the system's units (systemd.unit(5)), the first one that has it counts. */
const unitFolders = ['/etc/systemd/system', '/run/systemd/system', '/run/systemd/generator', '/usr/local/lib/systemd/system', '/usr/lib/systemd/system', '/lib/systemd/system']

/** With its kind: a word alone is a service. */
export function unitName(name: string): string {
  return /\.(?:service|scope|slice|socket|mount|swap)$/.test(name) ? name : `${name}.service`
}

/**
 * The cgroup that a service of the system's will have when it runs: its slice's (`Slice=` of its file and what is dropped in beside it, else the usual one), then its own name.
 * Undefined where there is no such service. Not asked of systemd, which a laboratory or a container does not have.
 */
export async function placeOfUnit(name: string, folders: readonly string[] = unitFolders): Promise<string | undefined> {
  const unit = unitName(name)
  if (!/^[A-Za-z0-9_.:@\\-]+\.service$/.test(unit) || unit.startsWith('.')) return undefined
  const template = /^([^@]+)@[^@]+\.service$/.exec(unit)?.[1]
  const names = template === undefined ? [unit] : [unit, `${template}@.service`]
  const own = await firstOf(names.flatMap((each) => folders.map((folder) => join(folder, each))))
  if (own === undefined) return undefined
  const usual = template === undefined ? 'system.slice' : `system-${template.replaceAll('-', '\\x2d')}.slice`
  const slice = sliceIn([own, ...(await dropIns(names, folders))]) ?? usual
  return `${slicePath(slice)}/${unit}`
}

/** `a-b.slice` lies in `a.slice`; `-.slice` is the root. */
function slicePath(slice: string): string {
  const parts = slice.replace(/\.slice$/, '').split('-')
  return parts.map((_, index) => `${parts.slice(0, index + 1).join('-')}.slice`).join('/')
}

/** The last one said, empty: none. */
function sliceIn(texts: readonly string[]): string | undefined {
  const said = texts.flatMap((text) => [...text.matchAll(/^[ \t]*Slice[ \t]*=[ \t]*(.*?)[ \t]*$/gm)].map(([, value = '']) => value))
  const last = said.at(-1)
  return last !== undefined && /^[A-Za-z0-9_:\\][A-Za-z0-9_.:\\-]*\.slice$/.test(last) ? last : undefined
}

async function dropIns(names: readonly string[], folders: readonly string[]): Promise<string[]> {
  const files = await Promise.all(
    names.flatMap((name) => folders.map((folder) => join(folder, `${name}.d`))).map(async (folder) => (await readdir(folder).catch(() => [])).filter((file) => file.endsWith('.conf')).map((file) => ({ file, path: join(folder, file) }))),
  )
  // By their names, whichever folder they lie in.
  const sorted = files.flat().sort((a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : 0))
  return Promise.all(sorted.map(({ path }) => readFile(path, 'utf8').catch(() => '')))
}

/** A masked unit is a link to /dev/null, and so an empty file: it cannot be started. */
async function firstOf(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    const text = await readFile(path, 'utf8').catch(() => undefined)
    if (text !== undefined) return text === '' ? undefined : text
  }
  return undefined
}
