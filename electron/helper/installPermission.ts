import {
  chmodSync, chownSync, closeSync, constants, existsSync, fstatSync, lstatSync, mkdirSync, openSync, readFileSync, readdirSync, realpathSync, renameSync,
  rmSync, rmdirSync, writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { Failure } from '#core/contract/failure.ts'
import { findPlaces } from '#probe/places.ts'

import policy from '../../resources/polkit/org.sluice.policy?raw'

/** Where the root-owned copies lie, and polkit's action that names them. */
export const installedFolder = '/usr/lib/sluice'
export const policyPath = '/usr/share/polkit-1/actions/org.sluice.policy'
const files = ['helper.mjs', 'sluice-relay', 'sluice-helper'] as const
const runtimeFolder = join(installedFolder, 'runtime')

/**
 * Makes an action of Sluice's own in polkit, so that a person is asked for "intercept network traffic" and not for running any program as root. That action
 * must name a program nobody but root can change; a checkout or home folder is no such place, so helper, relay and, where need be, the
 * runtime are copied. Run as root, once, after a person agreed. Returns the paths of what it wrote.
 */
export function installPermission(): readonly string[] {
  const helper = fileURLToPath(import.meta.url)
  const { relay, runtime, runtimeIsElectron } = findPlaces()
  makeFolder(installedFolder)
  copy(helper, join(installedFolder, 'helper.mjs'), 0o644)
  copy(relay, join(installedFolder, 'sluice-relay'), 0o755)
  const safeRuntime = isRootsAlone(runtime) ? realpathSync(runtime) : copyRuntime(runtime, runtimeIsElectron)
  write(join(installedFolder, 'sluice-helper'), wrapper(safeRuntime), 0o755)
  makeFolder(dirname(policyPath))
  write(policyPath, policy, 0o644)
  return [...files.map((name) => join(installedFolder, name)), ...(existsSync(runtimeFolder) ? [runtimeFolder] : []), policyPath]
}

/** Takes away exactly what `installPermission` put there, and returns its paths. */
export function removePermission(): readonly string[] {
  const there = [policyPath, ...files.map((name) => join(installedFolder, name)), runtimeFolder].filter((path) => existsSync(path))
  rmSync(policyPath, { force: true })
  for (const name of files) rmSync(join(installedFolder, name), { force: true })
  rmSync(runtimeFolder, { recursive: true, force: true })
  try {
    rmdirSync(installedFolder)
  } catch {
    // Something else lies in it (a package's files), or it is gone: not ours to judge.
  }
  return there
}

/** Passes on no argument but the network namespace to work in: who may open the gate may not install. */
export function wrapper(runtime: string): string {
  const quoted = `'${runtime.replaceAll("'", `'\\''`)}'`
  return `#!/bin/sh\n# Sluice's helper, run by polkit's action org.sluice.open-gate.\nif [ "$1" = --netns ]; then set -- --netns "$2"; else set --; fi\nELECTRON_RUN_AS_NODE=1 exec ${quoted} ${installedFolder}/helper.mjs "$@"\n`
}

/** Is a file, and every folder on the way to it (links followed), root's and closed to everybody else's writing? */
export function isRootsAlone(path: string): boolean {
  let at: string
  try {
    at = realpathSync(path)
  } catch {
    return false
  }
  for (;;) {
    const facts = lstatSync(at)
    if (facts.uid !== 0 || (facts.mode & 0o022) !== 0) return false
    const above = dirname(at)
    if (above === at) return true
    at = above
  }
}

/** Node is one file. Electron, run as Node, wants what lies beside it, though not its folders. */
function copyRuntime(runtime: string, isElectron: boolean): string {
  const real = realpathSync(runtime)
  rmSync(runtimeFolder, { recursive: true, force: true })
  makeFolder(runtimeFolder)
  const target = join(runtimeFolder, 'node')
  copy(real, target, 0o755)
  if (isElectron) {
    for (const name of readdirSync(dirname(real))) {
      const from = join(dirname(real), name)
      if (from !== real && lstatSync(from).isFile() && /\.(?:so(?:\.\d+)*|bin|dat)$/.test(name)) copy(from, join(runtimeFolder, name), 0o755)
    }
  }
  return target
}

function makeFolder(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o755 })
  const facts = lstatSync(path)
  if (!facts.isDirectory() || facts.uid !== 0) throw new Failure('cannot-write', `${path} is not root's folder`)
  chmodSync(path, 0o755)
}

function copy(from: string, to: string, mode: number): void {
  if (!existsSync(from)) throw new Failure('relay-missing', `${from} is not there; build first`)
  const descriptor = openSync(from, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    if (!fstatSync(descriptor).isFile()) throw new Failure('cannot-write', `${from} is not a file`)
    write(to, readFileSync(descriptor), mode)
  } finally {
    closeSync(descriptor)
  }
}

/** Whole or not at all, and never through a link: a program that runs from the old file keeps it. */
function write(path: string, content: string | Buffer, mode: number): void {
  const next = `${path}.new`
  rmSync(next, { force: true })
  writeFileSync(next, content, { flag: 'wx', mode })
  chownSync(next, 0, 0)
  chmodSync(next, mode)
  renameSync(next, path)
}
