import { Failure } from '#core/contract/failure.ts'
import { nearest } from '#core/filter/nearest.ts'
import { captureCommand } from './captureCommand.ts'
import { changeCommand } from './changeCommand.ts'
import { cleanupCommand } from './cleanupCommand.ts'
import type { Command } from './command.ts'
import { doctorCommand } from './doctorCommand.ts'
import { exportCommand } from './exportCommand.ts'
import { failureLine, statusOf } from './failures.ts'
import { flowsCommand } from './flowsCommand.ts'
import type { Output } from './output.ts'
import { logCommand } from './logCommand.ts'
import { permissionCommand } from './permissionCommand.ts'
import { planCommand } from './planCommand.ts'
import { programCommand } from './programCommand.ts'
import { showCommand } from './showCommand.ts'
import { version } from './version.ts'

export const commands: readonly Command[] = [doctorCommand, planCommand, captureCommand, changeCommand, programCommand, flowsCommand, showCommand, exportCommand, cleanupCommand, logCommand, permissionCommand]

function find(name: string): Command {
  const found = commands.find((command) => command.name === name)
  if (found !== undefined) return found
  const names = [...commands.map((command) => command.name), 'help']
  const close = nearest(name, names)
  throw new Failure('usage', `there is no command "${name}"${close === undefined ? '' : ` (did you mean ${close}?)`}; there are ${names.join(', ')}`)
}

export function helpText(): string {
  const width = Math.max(...commands.map((command) => command.name.length))
  return [
    'Sluice shows what any port on this machine is saying.',
    '',
    'sluice COMMAND [OPTIONS]',
    '',
    ...commands.map((command) => `  ${command.name.padEnd(width)}  ${command.summary}`),
    '',
    'sluice help COMMAND says more; sluice --version which one this is.',
    'Status: 0, 1 when it failed (one line on standard error says why), 2 when the command was wrong.',
    '',
  ].join('\n')
}

/** Runs a command line and resolves with the exit status; never rejects. */
export async function runCommand(args: readonly string[], output: Output): Promise<number> {
  try {
    return await dispatch(args, output)
  } catch (error) {
    output.note(failureLine(error))
    return statusOf(error)
  }
}

async function dispatch(args: readonly string[], output: Output): Promise<number> {
  const [name, ...rest] = args
  if (name === undefined) {
    output.noteRaw(helpText())
    return 2
  }
  if (name === '--version' || name === '-V' || name === 'version') {
    await output.line(`sluice ${version}`)
    return 0
  }
  if (name === 'help' || name === '--help' || name === '-h') {
    if (rest.length > 1) throw new Failure('usage', 'help takes one command')
    await output.write(rest[0] === undefined ? helpText() : `${find(rest[0]).usage}\n`)
    return 0
  }
  if (name.startsWith('-')) throw new Failure('usage', `unknown option ${name}; a command comes first (sluice help)`)
  const command = find(name)
  const end = rest.indexOf('--')
  if ((end === -1 ? rest : rest.slice(0, end)).some((arg) => arg === '--help' || arg === '-h')) {
    await output.write(`${command.usage}\n`)
    return 0
  }
  return command.run(rest, output)
}
