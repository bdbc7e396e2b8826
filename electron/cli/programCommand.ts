import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { constants } from 'node:os'
import { basename, resolve } from 'node:path'
import type { Duplex } from 'node:stream'

import { Failure, fromFailureReport } from '#core/contract/failure.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { startHelper } from '#elevate/startHelper.ts'
import { startControlServer } from '#gate/controlServer.ts'
import { Gate } from '#gate/gate.ts'
import { createSessionFolder } from '#gate/sessionFolder.ts'
import { digestRules } from '#probe/digestRules.ts'
import { refreshFacts } from '#probe/refreshFacts.ts'
import { findTool } from '#probe/tools.ts'
import type { Command } from './command.ts'
import { durationOf } from './durationOf.ts'
import { counted } from './format.ts'
import { newWarnings } from './newWarnings.ts'
import { parseOptions, takePositionals } from './parseOptions.ts'
import { planOf, planShapes } from './planOptions.ts'
import { recordOf, recordShapes, recordUsage } from './recordOptions.ts'
import { removeFolder } from './removeFolder.ts'
import { version } from './version.ts'

const shapes = { ...planShapes, ...recordShapes, output: { type: 'string', short: 'o' }, for: { type: 'string' }, netns: { type: 'string' } } as const

/** Says that it is who it is to be, waits for a line, then becomes the program: so it is in its cgroup, and the gate open, before its first instruction. */
const waiting = 'echo ready >&3; read -r go <&3 || exit 125; exec 3<&-; exec "$@"'

export const programCommand: Command = {
  name: 'run',
  summary: 'runs a program with the gate open for it alone',
  usage: `sluice run --tcp PORTS [--udp PORTS] -o NAME.sluice [--for 30s] [--no-payload]
           [--max-bytes N [--no-ring]] [--segment-bytes N] [--max-flow-bytes N] [--threads N] [--max-flows N]
           [--netns NAME|PID] [the choices of sluice plan] -- COMMAND [ARGUMENTS]

Puts the program, and whatever it starts, into a cgroup of its own, opens the gate for that cgroup alone, and runs it as you: its input, output and exit
status are its own. When it has ended, the flows it left run to their end and the gate closes. What Sluice has to say, its
warnings included, goes to standard error.
While it runs, sluice change adds ports and takes them away.

  -o NAME          the session folder to make; never an existing one (NAME.sluice)
  --for DURATION   takes no new flow of the program's after that (200ms, 30s, 5m, 2h, 1d), and the gate closes when the others have ended; the program goes on
${recordUsage}
  --netns N        runs it in another network namespace, with the gate there: a name ip netns lists (as ip netns exec does it), or a process in it
                   (a container's). As root, so with sudo; the program runs as you all the same`,
  async run(args, output) {
    const end = args.indexOf('--')
    const words = end === -1 ? [] : args.slice(end + 1)
    if (words[0] === undefined) throw new Failure('usage', 'which program? write it behind --, for example: sluice run --tcp 443 -o first.sluice -- curl https://example.org')
    const { values, positionals } = parseOptions(args.slice(0, end), shapes)
    takePositionals(positionals)
    if (values.output === undefined || values.output === '') throw new Failure('usage', 'where to? name the session with -o NAME.sluice')
    if (values.cgroup !== undefined || values.unit !== undefined || values.container !== undefined) throw new Failure('usage', 'the program gets a cgroup of its own: leave out --cgroup, --unit and --container')
    if (values.scope?.some((words) => words.split(',').some((word) => word.trim() !== 'local')) === true) throw new Failure('usage', 'a program runs on this computer, so its scope is local: leave out --scope; what others send through here is for sluice capture')
    const aside = (['iface', 'keep-port'] as const).filter((name) => values[name] !== undefined)[0]
    if (aside !== undefined) throw new Failure('usage', `--${aside} is about what others send through this computer, and a program runs on it: leave it out`)
    // One program has few flows.
    const record = recordOf(values, 1)
    const duration = values.for === undefined ? undefined : durationOf(values.for)
    const inside = values.netns === undefined ? [] : wayInto(values.netns)
    const wish = await planOf({ ...values, scope: ['local'] })
    const typed = resolve(values.output)
    const folder = typed.endsWith('.sluice') ? typed : `${typed}.sluice`
    const helper = await startHelper(values.netns === undefined ? {} : { netns: values.netns })
    const child = startWaiting(words, inside)
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
      // What comes and goes in another namespace its helper alone can see.
      const factsNow = async (): Promise<MachineFacts> => {
        if (values.netns === undefined) return refreshFacts(facts)
        const { interfaces, cgroups } = await helper.request('facts', {})
        return { ...facts, interfaces, ...(cgroups === undefined ? {} : { cgroups }) }
      }
      const digest = async (of: InterceptionPlan): Promise<string> => digestRules(compileRules(of, of === plan ? facts : await factsNow()))
      const gate = new Gate({ startHelper: () => Promise.resolve(helper), digest })
      await createSessionFolder(folder, { plan, payload: record.payload, version })
      gate.onState(newWarnings((warning) => output.note(`sluice: ${warning}`)))
      const closed = new Promise<void>((done, failed) => gate.onState((state) => {
        if (state.phase === 'closed') (state.failure === undefined ? done : () => failed(fromFailureReport(state.failure as NonNullable<typeof state.failure>)))()
      }))
      closed.catch(() => undefined)
      try {
        await gate.open(plan, { folder, ...record })
      } catch (error) {
        await removeFolder(folder)
        throw error
      }
      // Before the program's first instruction: it may be what changes the gate.
      const steering = await startControlServer({ gate, session: folder, version, onChange: () => undefined })
      void closed.finally(() => steering?.close()).catch(() => undefined)
      if (duration !== undefined && gate.state().phase === 'open') gate.closeAfter(duration)
      control?.end('go\n')
      const status = await ended
      await gate.drain()
      await closed
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

/** What starts a program in another network namespace. Fails with `no-privilege`, or `usage`. */
function wayInto(netns: string): string[] {
  if (process.geteuid?.() !== 0) throw new Failure('no-privilege', 'only root can start a program in another network namespace; it runs as you all the same')
  if (/^[1-9]\d{0,9}$/.test(netns)) return ['/usr/bin/nsenter', `--net=/proc/${netns}/ns/net`, '--']
  if (/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$/.test(netns)) return [findTool('ip') ?? 'ip', 'netns', 'exec', netns]
  throw new Failure('usage', `${JSON.stringify(netns.slice(0, 80))} is neither the name of a network namespace nor a process id`)
}

/** As the person, also under sudo: nothing that is run has rights they have not. @param inside what leads into another network namespace first */
function startWaiting(words: readonly string[], inside: readonly string[]): ChildProcess {
  const [uid, gid] = [process.env['SUDO_UID'], process.env['SUDO_GID']]
  const asPerson = process.geteuid?.() === 0 && uid !== undefined && gid !== undefined && /^\d{1,10}$/.test(uid) && /^\d{1,10}$/.test(gid)
    ? ['/usr/bin/setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--init-groups', '--']
    : []
  const [program = '', ...rest] = [...inside, ...asPerson, '/bin/sh', '-c', waiting, 'sluice-run', ...words]
  const child = spawn(program, rest, { stdio: ['inherit', 'inherit', 'inherit', 'pipe'] })
  child.stdio[3]?.on('error', () => undefined)
  return child
}
