import { Output } from './output.ts'
import { runCommand } from './runCommand.ts'

// `sluice ...`: the status is set and the process ends by itself, so that what was written reaches a pipe.
process.exitCode = await runCommand(process.argv.slice(2), new Output())
