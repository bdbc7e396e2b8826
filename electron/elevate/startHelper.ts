import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'

import { Failure } from '#core/contract/failure.ts'
import { helperProtocolVersion } from '#core/contract/helperProtocol.ts'
import type { HelloResult } from '#core/contract/helperProtocol.ts'
import { findPlaces } from '#probe/places.ts'

import { chooseHelperCommand, readPermission } from './helperCommand.ts'
import { connectHelper } from './helperConnection.ts'
import type { HelperConnection, HelperEnd } from './helperConnection.ts'

export interface StartedHelper extends HelperConnection {
  readonly hello: HelloResult
}

/**
 * Starts the helper with root's rights and greets it. As root directly; else through pkexec, by Sluice's own action where it is installed. Takes as long as a
 * person takes for a password; `signal` ends the waiting and whatever was started.
 * `netns`: the name of a network namespace, or a process in it; the helper then works there.
 * Fails with `elevation-refused`, `elevation-unavailable`, `cancelled`, `helper-died`.
 */
export async function startHelper({ signal, netns }: { readonly signal?: AbortSignal; readonly netns?: string } = {}): Promise<StartedHelper> {
  const places = findPlaces()
  const throwIfGivenUp = (): void => {
    if (signal?.aborted === true) throw new Failure('cancelled', 'starting the helper was given up')
  }
  throwIfGivenUp()
  if (!existsSync(places.helper)) throw new Failure('helper-died', 'the helper is not built', `${places.helper} is missing`)
  const isRoot = process.geteuid?.() === 0
  const command = chooseHelperCommand(places, { isRoot, permission: isRoot ? 'missing' : readPermission(places), ...(netns === undefined ? {} : { netns }) })
  if (command === undefined) {
    throw new Failure('elevation-unavailable', 'Sluice needs administrator rights and pkexec is not installed: run it with sudo, or install pkexec (Debian: apt install pkexec polkitd)')
  }
  const child = spawn(command.program, [...command.args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: command.env,
    cwd: '/',
    // Apart from the terminal's group, so that Ctrl-C is the app's to answer. pkexec must keep the terminal: it may ask for the password there.
    detached: command.way === 'root',
  })
  const connection = connectHelper(child)
  const ended = new Promise<HelperEnd>((resolve) => connection.onEnd(resolve))
  const giveUp = (): void => {
    void connection.end()
    // Until it is root, pkexec is still ours to signal; afterwards the end of its input ends it.
    child.kill('SIGTERM')
  }
  signal?.addEventListener('abort', giveUp, { once: true })
  try {
    const hello = await connection.request('hello', { protocol: helperProtocolVersion })
    throwIfGivenUp()
    return { ...connection, hello }
  } catch (error) {
    void connection.end()
    throwIfGivenUp()
    if (error instanceof Failure && error.code === 'helper-died') throw explainEnd(await ended, command.way)
    throw error
  } finally {
    signal?.removeEventListener('abort', giveUp)
  }
}

/** pkexec(1): 126 the person dismissed the question, 127 not authorised or an error of its own. The helper itself never ends with either. */
export function explainEnd({ code, stderr }: HelperEnd, way: 'root' | 'action' | 'generic'): Failure {
  const detail = stderr.trim() === '' ? undefined : stderr.trim()
  if (way !== 'root' && (code === 126 || code === 127)) {
    if (/No authentication agent|Error getting authority|Error opening current controlling terminal|must be setuid root/i.test(stderr)) {
      return new Failure('elevation-unavailable', 'nobody could be asked for permission here (no authentication agent): run Sluice with sudo', detail)
    }
    return new Failure('elevation-refused', code === 126 ? 'the permission was not given' : 'the permission was refused', detail)
  }
  return new Failure('helper-died', 'the helper ended before it was ready', detail)
}
