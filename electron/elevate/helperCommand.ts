import { existsSync, readFileSync } from 'node:fs'

import type { Places } from '#probe/places.ts'

/** Programs only by absolute path, from folders only root writes to. */
const find = (name: string): string | undefined => ['/usr/bin', '/bin', '/usr/sbin', '/sbin'].map((folder) => `${folder}/${name}`).find((path) => existsSync(path))

export interface HelperCommand {
  readonly program: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  /** `root`: we are root already. `action`: polkit's action of our own. `generic`: polkit's "run a program as another user". */
  readonly way: 'root' | 'action' | 'generic'
}

const installedHelper = '/usr/lib/sluice/helper.mjs'
const installedWrapper = '/usr/lib/sluice/sluice-helper'
const installedPolicy = '/usr/share/polkit-1/actions/org.sluice.policy'

export type PermissionState = 'installed' | 'outdated' | 'missing'

/** Whether the action of our own is there, and its helper is the one we would start: another version's would compile other rules. */
export function readPermission(places: Places): PermissionState {
  if (!existsSync(installedPolicy) || !existsSync(installedWrapper)) return 'missing'
  try {
    const [installed, ours] = [readFileSync(installedHelper), readFileSync(places.helper)]
    return installed.equals(ours) ? 'installed' : 'outdated'
  } catch {
    return 'outdated'
  }
}

/** How the helper is to be started here; undefined: this machine has no pkexec. Pure but for looking which files exist. */
export function chooseHelperCommand(places: Places, facts: { readonly isRoot: boolean; readonly permission: PermissionState; readonly netns?: string }): HelperCommand | undefined {
  const inside = facts.netns === undefined ? [] : ['--netns', facts.netns]
  if (facts.isRoot) {
    // sudo's word for who asked travels on, nothing else does.
    const env: Record<string, string> = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' }
    for (const name of ['PKEXEC_UID', 'SUDO_UID'] as const) {
      const value = process.env[name]
      if (value !== undefined) env[name] = value
    }
    if (places.runtimeIsElectron) env['ELECTRON_RUN_AS_NODE'] = '1'
    return { program: places.runtime, args: [places.helper, ...inside], env, way: 'root' }
  }
  const pkexec = find('pkexec')
  if (pkexec === undefined) return undefined
  // pkexec asks through the session's agent, or on the terminal it was started from.
  const env = Object.fromEntries(
    ['PATH', 'HOME', 'LANG', 'LC_ALL', 'LANGUAGE', 'DISPLAY', 'XAUTHORITY', 'WAYLAND_DISPLAY', 'XDG_RUNTIME_DIR', 'XDG_SESSION_ID', 'DBUS_SESSION_BUS_ADDRESS', 'TERM', 'SHELL', 'USER', 'LOGNAME']
      .flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
  ) as Record<string, string>
  if (facts.permission === 'installed') return { program: pkexec, args: [installedWrapper, ...inside], env, way: 'action' }
  const wrapped = places.runtimeIsElectron ? ['/usr/bin/env', 'ELECTRON_RUN_AS_NODE=1', places.runtime] : [places.runtime]
  return { program: pkexec, args: [...wrapped, places.helper, ...inside], env, way: 'generic' }
}
