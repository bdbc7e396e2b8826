import { existsSync } from 'node:fs'

import { execa } from 'execa'

import { Failure } from '#core/contract/failure.ts'

import { logAction } from './actionLog.ts'

/** The whole environment of every program the helper starts. HOME leads nowhere, so that no start-up or history file of root's is read or written. */
export const toolEnvironment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', HOME: '/nonexistent' } as const

const folders = ['/usr/sbin', '/sbin', '/usr/bin', '/bin'] as const

/** Absolute path of a program in the four folders only root writes to; undefined when none has it. */
export function findTool(name: string): string | undefined {
  return folders.map((folder) => `${folder}/${name}`).find((path) => existsSync(path))
}

export function requireTool(name: string): string {
  const path = findTool(name)
  if (path === undefined) throw new Failure('backend-missing', `${name} is not installed`)
  return path
}

export interface ToolResult {
  /** Undefined: killed, or never started. */
  readonly exitCode: number | undefined
  readonly stdout: string
  readonly stderr: string
}

export interface ToolOptions {
  readonly input?: string
  readonly timeout?: number
  readonly signal?: AbortSignal
}

/**
 * Runs one program to its end, by absolute path, with an argument array, at most `timeout` milliseconds (then SIGKILL). Never throws for what the program
 * did; the caller judges. Settles only after the program is gone, also when `signal` aborts, so that an undo never races with it. What it was told stands in the log of actions.
 */
export async function runTool(path: string, args: readonly string[], options: ToolOptions = {}): Promise<ToolResult> {
  const result = await askTool(path, args, options)
  const { exitCode, stderr } = result
  logAction({
    result: exitCode === 0 ? 'ok' : 'failed',
    text: [path, ...args].join(' '),
    ...(options.input === undefined ? {} : { input: options.input }),
    ...(exitCode === 0 ? {} : { said: `status ${String(exitCode ?? 'none')}: ${stderr}` }),
  })
  return result
}

/** Process ids of the programs run last: who is told of a change in the kernel is told by whom a moment later. */
const latest: number[] = []
const keptIds = 64

/** Whether this was one of the last programs run here. */
export function isOwnTool(pid: number): boolean {
  return latest.includes(pid)
}

/** As `runTool`, for a program that only looks: not logged. */
export async function askTool(path: string, args: readonly string[], options: ToolOptions = {}): Promise<ToolResult> {
  const running = execa(path, args, {
    ...(options.input === undefined ? { stdin: 'ignore' as const } : { input: options.input }),
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    env: toolEnvironment,
    extendEnv: false,
    cwd: '/',
    reject: false,
    timeout: options.timeout ?? 10_000,
    killSignal: 'SIGKILL',
    maxBuffer: 16 << 20,
    stripFinalNewline: false,
  })
  if (running.pid !== undefined) latest.splice(0, Math.max(0, latest.push(running.pid) - keptIds))
  const result = await running
  const why = result.timedOut ? `${path} took too long and was ended\n` : result.exitCode === undefined ? `${result.shortMessage}\n` : ''
  return { exitCode: result.exitCode, stdout: textOf(result.stdout), stderr: why + textOf(result.stderr) }
}

/** A tool that could not be started has no output, whatever execa's types say. */
function textOf(output: unknown): string {
  return typeof output === 'string' ? output : ''
}
