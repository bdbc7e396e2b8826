import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Where Sluice's own programs lie: a checkout (sources or build/), a package, or the root-owned copies under /usr/lib/sluice. */
export interface Places {
  readonly root: string
  /** Node-compatible runtime: Node itself, or Electron to be run with ELECTRON_RUN_AS_NODE=1 (then `runtimeIsElectron`). */
  readonly runtime: string
  readonly runtimeIsElectron: boolean
  readonly relay: string
  readonly confine: string
  readonly helper: string
  readonly inspector: string
  readonly cli: string
}

const here = dirname(fileURLToPath(import.meta.url))

/**
 * Bundles lie in ROOT/build/<kind>/ and this source in ROOT/electron/probe/, so the root is two up either way; the root-owned
 * copies lie flat in one folder (helper.mjs beside sluice-relay).
 */
export function findPlaces(): Places {
  const flat = existsSync(join(here, 'sluice-relay'))
  const root = flat ? here : join(here, '..', '..')
  const packaged = join(root, '..', 'bin', 'sluice-relay')
  const native = flat ? here : existsSync(packaged) ? dirname(packaged) : join(root, 'native', 'build')
  const unpacked = root.endsWith('app.asar') ? `${root}.unpacked` : root
  const bundle = (name: string): string => (flat ? join(here, name) : join(unpacked, 'build', 'node', name))
  return {
    root,
    runtime: process.execPath,
    runtimeIsElectron: 'electron' in process.versions,
    relay: join(native, 'sluice-relay'),
    confine: join(native, 'sluice-confine'),
    helper: bundle('helper.mjs'),
    inspector: bundle('inspector.mjs'),
    cli: bundle('cli.mjs'),
  }
}
