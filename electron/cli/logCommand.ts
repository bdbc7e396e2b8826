import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

import { actionFileName, actionLogPath, parseActions } from '#core/contract/actionLog.ts'
import type { Action } from '#core/contract/actionLog.ts'
import { Failure } from '#core/contract/failure.ts'
import type { Command } from './command.ts'
import { parseOptions, takePositionals } from './parseOptions.ts'
import { printable } from './printable.ts'
import { sessionPath } from './sessions.ts'

export const logCommand: Command = {
  name: 'log',
  summary: 'shows what was done to this machine as root, and when',
  usage: `sluice log [SESSION] [--last N] [--text] [--json]

Every change that Sluice's helper made (rules, routes, ip rules, cgroups, the permission): time, network namespace, process, for whom, the command and its result. With a
session, what was done for it (kept in the session itself), else what stands in ${actionLogPath}.

  --last N         the last N entries only
  --text           with the rules' text that each command was given
  --json           one object a line: time, namespace, pid, person, result (ok, failed, note), text, input, said`,
  async run(args, output) {
    const { values, positionals } = parseOptions(args, { last: { type: 'string' }, text: { type: 'boolean' }, json: { type: 'boolean' } })
    if (positionals.length > 1) takePositionals(positionals, 'SESSION')
    if (values.last !== undefined && !/^[1-9]\d{0,8}$/.test(values.last)) throw new Failure('usage', `--last takes a number, not "${values.last}"`)
    const [session] = positionals
    const all = session === undefined ? [...(await read(`${actionLogPath}.1`)), ...(await read(actionLogPath))] : await read(join(sessionPath(session), actionFileName))
    const actions = values.last === undefined ? all : all.slice(-Number(values.last))
    for (const action of actions) {
      if (values.json === true) await output.json(action)
      else await output.write(show(action, values.text === true))
    }
    if (actions.length === 0 && values.json !== true) await output.line('Nothing was done.')
    return 0
  },
}

function show(action: Action, whole: boolean): string {
  const sign = { ok: '    ', failed: 'FAIL', note: ' -- ' }[action.result]
  const under = (mark: string, text: string | undefined): string => (text === undefined ? '' : text.split('\n').map((line) => `        ${mark} ${printable(line)}\n`).join(''))
  return `${action.time}  ${sign}  ${printable(action.text)}  (for ${printable(action.person)}, process ${String(action.pid)}, net ${action.namespace})\n${whole ? under('>', action.input) : ''}${under('!', action.said)}`
}

async function read(path: string): Promise<Action[]> {
  try {
    return parseActions(await readFile(path, 'utf8'))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return []
    throw new Failure('session-unreadable', `${path} cannot be read`, code)
  }
}
