import { spawn, type ChildProcessByStdio } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'

/** A program running in the laboratory: its lines as they come, its end, and its whole process group to be ended. */
export interface LabProcess {
  readonly pid: number
  readonly stdin: Writable
  /** Everything printed on standard output so far. */
  output(): string
  errors(): string
  /** Resolves with the first line, printed already or yet to come, for which `matches` holds; rejects when the program ends first or after `timeout` ms (default 10 s). */
  line(matches: (line: string) => boolean, timeout?: number): Promise<string>
  /** As `line`, for programs that print one JSON object a line. */
  event(matches: (event: Record<string, unknown>) => boolean, timeout?: number): Promise<Record<string, unknown>>
  write(line: string): void
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>
  /** Sends the signal to the process group and resolves when the program has ended; harmless if it has. */
  stop(signal?: NodeJS.Signals): Promise<void>
}

export function startProcess(argv: readonly string[], options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {}): LabProcess {
  const [command = '', ...args] = argv
  // A group of its own, so that whatever it starts ends with it.
  const child: ChildProcessByStdio<Writable, Readable, Readable> = spawn(command, args, { ...options, stdio: ['pipe', 'pipe', 'pipe'], detached: true })
  const lines: string[] = []
  const waiting = new Set<() => void>()
  let output = ''
  let rest = ''
  let errors = ''
  let over = false
  const wake = (): void => {
    for (const check of [...waiting]) check()
  }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
    const parts = (rest + text).split('\n')
    rest = parts.pop() ?? ''
    lines.push(...parts)
    wake()
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text))
  // The reader may be gone before the writer knows.
  child.stdin.on('error', () => undefined)
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    const finish = (code: number | null, signal: NodeJS.Signals | null): void => {
      over = true
      wake()
      resolve({ code, signal })
    }
    child.on('close', finish)
    child.on('error', (error) => {
      errors += error.message
      finish(null, null)
    })
  })

  const line = (matches: (line: string) => boolean, timeout = 25_000): Promise<string> =>
    new Promise((resolve, reject) => {
      let next = 0
      const settle = (act: () => void): void => {
        clearTimeout(timer)
        waiting.delete(check)
        act()
      }
      const check = (): void => {
        for (; next < lines.length; next++) {
          const candidate = lines[next] ?? ''
          if (matches(candidate)) {
            settle(() => resolve(candidate))
            return
          }
        }
        if (over) settle(() => reject(new Error(`${argv.join(' ')} ended before the awaited line\n${output}\n${errors}`)))
      }
      const timer = setTimeout(() => settle(() => reject(new Error(`${argv.join(' ')}: the awaited line did not come\n${output}\n${errors}`))), timeout)
      waiting.add(check)
      check()
    })

  return {
    pid: child.pid ?? 0,
    stdin: child.stdin,
    output: () => output,
    errors: () => errors,
    line,
    event: async (matches, timeout) => parseObject(await line((text) => matches(parseObject(text)), timeout)),
    write: (text) => void child.stdin.write(`${text}\n`),
    ended,
    async stop(signal = 'SIGKILL') {
      signalGroup(child.pid, signal)
      await ended
    },
  }
}

export function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, signal)
  } catch {
    // gone already
  }
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}
