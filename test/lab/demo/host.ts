import { execa } from 'execa'

import type { Lab, Place } from '../makeLab.ts'
import type { LabProcess } from '../labProcess.ts'

export interface HostResult {
  /** -1: it was ended by a signal or its time was up. */
  readonly code: number
  /** Standard output, as bytes. */
  readonly output: Buffer
  readonly errors: string
}
export interface RunOptions {
  /** Time limit, default 120. */
  readonly seconds?: number
  /** The whole environment when given. */
  readonly env?: Readonly<Record<string, string>>
  readonly input?: string
}

/** One machine of the laboratory as the demo uses it. */
export interface Host {
  /** Runs a program to its end; never rejects because of how it ended. */
  run(argv: readonly string[], options?: RunOptions): Promise<HostResult>
  /** Starts a program that stays; it is ended with the laboratory. */
  start(argv: readonly string[], env?: Readonly<Record<string, string>>): LabProcess
}

export function makeHost(lab: Lab, place: Place): Host {
  return {
    async run(argv, options = {}) {
      const [program = '', ...args] = [...lab.enter(place), ...argv]
      const result = await execa(program, args, {
        encoding: 'buffer',
        reject: false,
        maxBuffer: 256 << 20,
        timeout: (options.seconds ?? 120) * 1000,
        ...(options.env === undefined ? {} : { env: { ...options.env }, extendEnv: false }),
        ...(options.input === undefined ? { stdin: 'ignore' } : { input: options.input }),
      })
      return { code: result.exitCode ?? -1, output: Buffer.from(result.stdout), errors: Buffer.from(result.stderr).toString() }
    },
    start: (argv, env) => lab.spawn(place, argv, env === undefined ? {} : { env: { ...env } }),
  }
}
