import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { constants } from 'node:os'
import { basename, resolve } from 'node:path'
import type { Duplex } from 'node:stream'

import { Failure, fromFailureReport } from '#core/contract/failure.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { startHelper } from '#elevate/startHelper.ts'
import { startControlServer } from '#gate/controlServer.ts'
import { Gate } from '#gate/gate.ts'
import { createSessionFolder } from '#gate/sessionFolder.ts'
import { digestRules } from '#probe/digestRules.ts'
import { refreshFacts } from '#probe/refreshFacts.ts'
import type { Command } from './command.ts'
import { counted } from './format.ts'
import { newWarnings } from './newWarnings.ts'
import { parseOptions, takePositionals } from './parseOptions.ts'
import { planOf, planShapes } from './planOptions.ts'
import { recordOf, recordShapes, recordUsage } from './recordOptions.ts'
import { removeFolder } from './removeFolder.ts'
import { version } from './version.ts'

const shapes = { ...planShapes, ...recordShapes, output: { type: 'string', short: 'o' } } as const

/** Says that it is who it is to be, waits for a line, then becomes the program: so it is in its cgroup, and the gate open, before its first instruction. */
const waiting = 'echo ready >&3; read -r go <&3 || exit 125; exec 3<&-; exec "$@"'

export const programCommand: Command = {
  name: 'run',
  summary: 'runs a program with the gate open for it alone',
  usage: `sluice run --tcp PORTS [--udp PORTS] -o NAME.sluice [--no-payload]
           [--max-bytes N [--no-ring]] [--segment-bytes N] [--max-flow-bytes N] [the choices of sluice plan] -- COMMAND [ARGUMENTS]

Puts the program, and whatever it starts, into a cgroup of its own, opens the gate for that cgroup alone, and runs it as you: its input, output and exit
status are its own. When it has ended, the flows it left run to their end and the gate closes. What Sluice has to say, its
warnings included, goes to standard error.
While it runs, sluice change adds ports and takes them away.

  -o NAME          the session folder to make; never an existing one (NAME.sluice)
${recordUsage}`,
  async run(args, output) {
    const end = args.indexOf('--')
    const words = end === -1 ? [] : args.slice(end + 1)
    if (words[0] === undefined) throw new Failure('usage', 'which program? write it behind --, for example: sluice run --tcp 443 -o first.sluice -- curl https://example.org')
    const { values, positionals } = parseOptions(args.slice(0, end), shapes)
    takePositionals(positionals)
    if (values.output === undefined || values.output === '') throw new Failure('usage', 'where to? name the session with -o NAME.sluice')
    if (values.cgroup !== undefined || values.unit !== undefined || values.container !== undefined) throw new Failure('usage', 'the program gets a cgroup of its own: leave out --cgroup, --unit and --container')
    if (values.scope?.some((words) => words.split(',').some((word) => word.trim() !== 'local')) === true) throw new Failure('usage', 'a program runs on this computer, so its scope is local: leave out --scope; what others send through here is for sluice capture')
    const record = recordOf(values)
    const wish = await planOf({ ...values, scope: ['local'] })
    const typed = resolve(values.output)
    const folder = typed.endsWith('.sluice') ? typed : `${typed}.sluice`
    const helper = await startHelper()
    const child = startWaiting(words)
    const ended = new Promise<number>((done) => {
      child.once('error', () => done(127))
      child.once('exit', (code, signal) => done(code ?? 128 + (signal === null ? 0 : constants.signals[signal])))
    })
    // Ctrl+C reaches the program by itself, and it is for the program to say what that means.
    const ignore = (): void => undefined
    const pass = (signal: NodeJS.Signals): void => void child.kill(signal)
    for (const signal of ['SIGINT', 'SIGQUIT'] as const) process.on(signal, ignore)
    for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, pass)
    try {
      const control = child.stdio[3] as Duplex | null
      const ready = new Promise<boolean>((done) => control?.once('data', () => done(true)))
      if (child.pid === undefined || !(await Promise.race([ready, ended.then(() => false)]))) throw new Failure('internal', 'the program cannot be started')
      const { cgroup } = await helper.request('scope', { pid: child.pid })
      const plan = { ...wish, cgroups: [cgroup] }
      const facts = await helper.request('facts', {})
      const digest = async (of: InterceptionPlan): Promise<string> => digestRules(compileRules(of, of === plan ? facts : await refreshFacts(facts)))
      const gate = new Gate({ startHelper: () => Promise.resolve(helper), digest })
      await createSessionFolder(folder, { plan, payload: record.payload, version })
      gate.onState(newWarnings((warning) => output.note(`sluice: ${warning}`)))
      const closed = new Promise<void>((done, failed) => gate.onState((state) => {
        if (state.phase === 'closed') (state.failure === undefined ? done : () => failed(fromFailureReport(state.failure as NonNullable<typeof state.failure>)))()
      }))
      closed.catch(() => undefined)
      try {
        await gate.open(plan, { folder, ...record, threads: 1 })
      } catch (error) {
        await removeFolder(folder)
        throw error
      }
      // Before the program's first instruction: it may be what changes the gate.
      const steering = await startControlServer({ gate, session: folder, version, onChange: () => undefined })
      control?.end('go\n')
      const status = await ended
      await gate.drain()
      await closed.finally(() => steering?.close())
      output.note(`sluice: ${counted(gate.state().total, 'flow')} in ${basename(folder)}`)
      return status
    } finally {
      for (const signal of ['SIGINT', 'SIGQUIT'] as const) process.off(signal, ignore)
      for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.off(signal, pass)
      // A program that still waits reads the end and leaves.
      ;(child.stdio[3] as Duplex | null)?.end()
      await helper.end()
    }
  },
}

/** As the person, also under sudo: nothing that is run has rights they have not. */
function startWaiting(words: readonly string[]): ChildProcess {
  const [uid, gid] = [process.env['SUDO_UID'], process.env['SUDO_GID']]
  const asPerson = process.geteuid?.() === 0 && uid !== undefined && gid !== undefined && /^\d{1,10}$/.test(uid) && /^\d{1,10}$/.test(gid)
    ? ['/usr/bin/setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--init-groups', '--']
    : []
  const [program = '', ...rest] = [...asPerson, '/bin/sh', '-c', waiting, 'sluice-run', ...words]
  const child = spawn(program, rest, { stdio: ['inherit', 'inherit', 'inherit', 'pipe'] })
  child.stdio[3]?.on('error', () => undefined)
  return child
}
