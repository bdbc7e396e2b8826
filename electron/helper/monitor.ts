import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'

import { readIdentity } from './processIdentity.ts'
import type { ProcessIdentity } from './processIdentity.ts'
import { readLines } from './readLines.ts'
import { findTool, toolEnvironment } from './runTool.ts'

export interface Monitor {
  readonly identity: ProcessIdentity | undefined
  stop(): void
}

const lineLimit = 1 << 20

/**
 * A tool that prints what others change in the kernel (`ip monitor`, `nft monitor`), line by line, until stopped. `onEnd` is told once when it ends by itself. It
 * dies with us (parent-death signal): it writes only when something changes, so a closed pipe alone might end it years later.
 */
export function startMonitor(words: readonly [string, ...string[]], onLine: (line: string) => void, onEnd: () => void): Monitor {
  const setpriv = findTool('setpriv')
  const [command, ...args] = setpriv === undefined ? words : [setpriv, '--pdeathsig', 'KILL', '--', ...words]
  let over = false
  const finish = (): void => {
    if (over) return
    over = true
    onEnd()
  }
  let child: ChildProcess
  try {
    child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'], env: toolEnvironment, cwd: '/', detached: true })
  } catch {
    queueMicrotask(finish)
    return { identity: undefined, stop: () => (over = true) }
  }
  child.once('error', finish)
  child.once('exit', finish)
  // A line too long is no change of ours; the monitor begins anew.
  if (child.stdout !== null) readLines(child.stdout, lineLimit, { line: onLine, tooLong: () => child.kill('SIGKILL'), end: () => undefined })
  return {
    identity: child.pid === undefined ? undefined : readIdentity(child.pid),
    stop: () => {
      over = true
      child.kill('SIGKILL')
    },
  }
}
