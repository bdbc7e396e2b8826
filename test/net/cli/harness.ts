import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { execFileSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { Lab, LabResult, Place } from '#test/lab/makeLab.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'

const root = join(import.meta.dirname, '..', '..', '..')

/** A Sluice as it lies where it is installed, which anybody may read, and room for sessions. */
export interface Installed {
  readonly folder: string
  readonly cli: string
  session(name: string): string
  remove(): void
}

export function installSluice(): Installed {
  // The launcher builds what is not built.
  execFileSync(process.execPath, [join(root, 'resources/bin/sluice.mjs'), '--version'], { stdio: ['ignore', 'ignore', 'inherit'] })
  const folder = mkdtempSync(join(tmpdir(), `sluice-cli-${process.pid}-`))
  chmodSync(folder, 0o755)
  for (const name of readdirSync(join(root, 'build/node')).filter((each) => each.endsWith('.mjs'))) copyFileSync(join(root, 'build/node', name), join(folder, name))
  for (const name of ['sluice-relay', 'sluice-confine']) copyFileSync(join(root, 'native/build', name), join(folder, name))
  for (const name of ['libsql', '@libsql', '@neon-rs', 'detect-libc']) {
    const module = join(root, 'node_modules', name)
    if (existsSync(module)) cpSync(module, join(folder, 'node_modules', name), { recursive: true })
  }
  copyFileSync(join(root, 'package.json'), join(folder, 'package.json'))
  mkdirSync(join(folder, 'sessions'))
  chmodSync(join(folder, 'sessions'), 0o777)
  return { folder, cli: join(folder, 'cli.mjs'), session: (name) => join(folder, 'sessions', `${name}.sluice`), remove: () => rmSync(folder, { recursive: true, force: true }) }
}

const environment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', HOME: '/nonexistent' }

/** `sluice ARGS` to its end. `within`: words that start it. */
export function sluice(lab: Lab, installed: Installed, args: readonly string[], within: readonly string[] = [], place: Place = 'router'): Promise<LabResult> {
  return lab.exec(place, [...within, process.execPath, installed.cli, ...args], { reject: false, env: environment })
}
export function startSluice(lab: Lab, installed: Installed, args: readonly string[], within: readonly string[] = []): LabProcess {
  return lab.spawn('router', [...within, process.execPath, installed.cli, ...args], { env: environment, cwd: installed.folder })
}

export const asNobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', '--'] as const

/** A mount namespace in which this script has run; what it mounts is nobody else's. */
export function prepared(script: string): string[] {
  return ['unshare', '--mount', '--propagation', 'private', '--', 'sh', '-ec', `${script}\nexec "$@"`, 'prepared']
}
/** A machine without nftables and iptables: nothing else is missing. */
export function withoutFirewalls(folder: string): string[] {
  const real = join(folder, 'real-sbin')
  mkdirSync(real, { recursive: true })
  return prepared(
    `mount --bind /usr/sbin ${real}; mount -t tmpfs none /usr/sbin\n` +
      `for f in ${real}/*; do case "\${f##*/}" in nft|iptables*|ip6tables*|xtables*) ;; *) ln -s "$f" /usr/sbin/ ;; esac; done`,
  )
}
/** A disk of its own of so many KiB at `folder/disk`, filled but for `free` KiB. */
export function onSmallDisk(folder: string, size: number, free: number): string[] {
  const disk = join(folder, 'disk')
  mkdirSync(disk, { recursive: true })
  const fill = size - free
  return prepared(`mount -t tmpfs -o size=${size}k none ${disk}\n${fill > 0 ? `head -c ${fill * 1024} /dev/zero > ${disk}/fill` : ''}`)
}

/** A session that is recorded, for the commands that read one. */
export function writeCapture(installed: Installed, name: string, capture: Uint8Array): string {
  const folder = installed.session(name)
  mkdirSync(folder, { mode: 0o700 })
  writeFileSync(join(folder, 'session.json'), JSON.stringify({ format: 1, tool: 'sluice', version: '0.1.0', startedAt: '2025-11-25T00:00:00Z', plan: null, payload: true }))
  writeFileSync(join(folder, 'capture-000001.pcapng'), capture)
  return folder
}
