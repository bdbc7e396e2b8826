import { spawn } from 'node:child_process'

import { exec } from 'sudo-prompt'

import { Failure } from '#core/contract/failure.ts'
import { findPlaces } from '#probe/places.ts'

import { readPermission } from './helperCommand.ts'
import type { PermissionState } from './helperCommand.ts'

/** Whether polkit knows an action of Sluice's own and its helper is ours. */
export function permissionState(): PermissionState {
  return readPermission(findPlaces())
}

/** Installs polkit's action and the root-owned copies it names; asks a person once. Fails with `elevation-refused`, `elevation-unavailable`, `cannot-write`. */
export function installPermission(): Promise<void> {
  return runOnce('--install')
}
/** Takes away what `installPermission` put there. */
export function removePermission(): Promise<void> {
  return runOnce('--uninstall')
}

/** A job of a second or two, not a helper to speak with: that is what sudo-prompt is for. */
function runOnce(job: '--install' | '--uninstall'): Promise<void> {
  const { runtime, runtimeIsElectron, helper } = findPlaces()
  return new Promise((resolve, reject) => {
    const settle = (error: Error | undefined, said: string): void => {
      if (error === undefined) resolve()
      else if (/did not grant permission/i.test(error.message)) reject(new Failure('elevation-refused', 'the permission was not given'))
      else if (/no polkit authentication agent/i.test(error.message)) reject(new Failure('elevation-unavailable', 'nobody could be asked for permission here: use sudo', error.message))
      else reject(new Failure('cannot-write', job === '--install' ? 'the permission could not be installed' : 'the permission could not be removed', (said || error.message).trim().slice(0, 2000)))
    }
    if (process.geteuid?.() === 0) {
      const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', ...(process.env['SUDO_UID'] === undefined ? {} : { SUDO_UID: process.env['SUDO_UID'] }), ...(runtimeIsElectron ? { ELECTRON_RUN_AS_NODE: '1' } : {}) }
      const child = spawn(runtime, [helper, job], { stdio: ['ignore', 'ignore', 'pipe'], env, cwd: '/' })
      let said = ''
      child.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-4000)))
      child.once('error', (error) => settle(error, said))
      child.once('close', (code) => settle(code === 0 ? undefined : new Error(`exit ${String(code)}`), said))
      return
    }
    const words = ['/usr/bin/env', '-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL=C', ...(runtimeIsElectron ? ['ELECTRON_RUN_AS_NODE=1'] : []), runtime, helper, job]
    // For whom, as pkexec says it: the shell that root's rights are given to fills it in, not the one that asks for them.
    const [env, clean, ...rest] = words.map(quote)
    exec([env, clean, '\\${PKEXEC_UID:+PKEXEC_UID=\\$PKEXEC_UID}', ...rest].join(' '), { name: 'Sluice' }, (error, _stdout, stderr) => settle(error ?? undefined, String(stderr ?? '')))
  })
}

/** One word of a POSIX shell, whatever is in it. */
export function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`
}
