import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'

import { Failure } from '#core/contract/failure.ts'

import { askTool, requireTool, toolEnvironment } from './runTool.ts'
import type { ToolOptions, ToolResult } from './runTool.ts'

/** A network namespace of nobody's, in which rules can be tried: what a kernel and a tool make of them is seen without anybody's packets passing them. */
export interface ScratchNamespace {
  run(path: string, args: readonly string[], options?: ToolOptions): Promise<ToolResult>
  /** It goes with its last process. Idempotent. */
  end(): void
}

export async function makeScratchNamespace(): Promise<ScratchNamespace> {
  const [unshare, nsenter, ip, cat] = ['unshare', 'nsenter', 'ip', 'cat'].map(requireTool) as [string, string, string, string]
  // What holds it open ends when we do, and its answer says that it is there.
  const holder = spawn(unshare, ['--net', '--', cat], { stdio: ['pipe', 'pipe', 'ignore'], env: toolEnvironment, cwd: '/' })
  await answers(holder)
  const run = (path: string, args: readonly string[], options?: ToolOptions): Promise<ToolResult> => askTool(nsenter, [`--net=/proc/${String(holder.pid)}/ns/net`, '--', path, ...args], options)
  // Routes cannot go over an interface that is down.
  await run(ip, ['link', 'set', 'lo', 'up'])
  return { run, end: () => void holder.kill('SIGKILL') }
}

function answers(holder: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (): void => reject(new Failure('internal', 'a network namespace to try rules in cannot be made'))
    holder.once('error', fail)
    holder.once('exit', fail)
    holder.stdin?.on('error', fail)
    holder.stdout?.once('data', () => {
      holder.off('exit', fail)
      resolve()
    })
    holder.stdin?.write('\n')
  })
}
