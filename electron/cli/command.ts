import type { Output } from './output.ts'

export interface Command {
  readonly name: string
  /** One line of `sluice help`. */
  readonly summary: string
  /** What `sluice help NAME` prints. */
  readonly usage: string
  /** Resolves with the exit status. Failures are thrown. */
  readonly run: (args: readonly string[], output: Output) => Promise<number>
}
