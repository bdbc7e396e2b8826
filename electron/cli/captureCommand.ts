import { availableParallelism } from 'node:os'
import { basename, resolve } from 'node:path'

import type { GateState } from '#core/contract/bridge.ts'
import { Failure, fromFailureReport } from '#core/contract/failure.ts'
import type { OpenResult } from '#core/contract/helperProtocol.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { chooseBackend } from '#core/rules/chooseBackend.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { startHelper } from '#elevate/startHelper.ts'
import type { HelperConnection } from '#elevate/helperConnection.ts'
import { startControlServer } from '#gate/controlServer.ts'
import type { ControlServer } from '#gate/controlServer.ts'
import { Gate } from '#gate/gate.ts'
import { createSessionFolder } from '#gate/sessionFolder.ts'
import { ContainerWatch } from '#probe/containerWatch.ts'
import type { ChosenContainer } from '#probe/containerWatch.ts'
import { digestRules } from '#probe/digestRules.ts'
import { probeMachine } from '#probe/probeMachine.ts'
import { refreshFacts } from '#probe/refreshFacts.ts'
import { startInspector } from '#session/inspectorClient.ts'
import type { InspectorClient } from '#session/inspectorClient.ts'
import { jsonView, lineView, liveView } from './captureView.ts'
import type { CaptureView } from './captureView.ts'
import type { Command } from './command.ts'
import { FlowFollow } from './followFlows.ts'
import { counted } from './format.ts'
import type { Output } from './output.ts'
import { durationOf } from './durationOf.ts'
import { parseOptions, takePositionals } from './parseOptions.ts'
import { planOf, planShapes } from './planOptions.ts'
import { newWarnings } from './newWarnings.ts'
import { recordOf, recordShapes, recordUsage } from './recordOptions.ts'
import type { RecordWish } from './recordOptions.ts'
import { removeFolder } from './removeFolder.ts'
import { version } from './version.ts'

const shapes = {
  ...planShapes,
  ...recordShapes,
  output: { type: 'string', short: 'o' },
  for: { type: 'string' },
  json: { type: 'boolean' },
  netns: { type: 'string' },
} as const

export const captureCommand: Command = {
  name: 'capture',
  summary: 'opens the gate and records what flows through it',
  usage: `sluice capture [--tcp PORTS] [--udp PORTS] [--refuse PORTS] -o NAME.sluice [--for 30s] [--json] [--no-payload]
               [--max-bytes N [--no-ring]] [--segment-bytes N] [--max-flow-bytes N] [--threads N] [--max-flows N]
               [--netns NAME|PID] and the choices of sluice plan: --udp-idle --send --scope --iface --source --exclude-source --server --exclude
               --user --group --cgroup --unit --container --no-hold --keep-port --backend --port

Prints one line beginning with READY when the gate is open, then the flows: a live table on a terminal, else a line for each that is over.
Interrupt it (Ctrl+C) and it drains: no new flow is taken, those that run end by themselves, then the gate closes. Interrupt it again and it closes at
once. Needs administrator rights: asks through polkit, or run it with sudo. While it runs, sluice change adds ports and takes them away.

  -o NAME          the session folder to make; never an existing one (NAME.sluice)
  --for DURATION   drains and closes by itself: 200ms, 30s, 5m, 2h, 1d
${recordUsage}
  --netns N        works in another network namespace: a name ip netns lists, or a process in it (a container's)
  --json           one event a line: step, ready, gate, changed, opened, ended, warning, closed`,
  async run(args, output) {
    const { values, positionals } = parseOptions(args, shapes)
    takePositionals(positionals)
    if (values.output === undefined || values.output === '') throw new Failure('usage', 'where to? name the session with -o NAME.sluice')
    const duration = values.for === undefined ? undefined : durationOf(values.for)
    const record = recordOf(values, usualThreads())
    const containers: ChosenContainer[] = []
    const plan = await planOf(values, containers)
    const inside = values.netns === undefined ? undefined : await startHelper({ netns: values.netns })
    const facts = await factsOf(inside)
    // Compiled here before anybody is asked for a password; the helper compiles again and compares.
    chooseBackend(plan, facts)
    const digest = digestRules(compileRules(plan, facts))
    const typed = resolve(values.output)
    const folder = typed.endsWith('.sluice') ? typed : `${typed}.sluice`
    const live = values.json !== true && output.isTerminal ? liveView(output) : undefined
    const view = live ?? (values.json === true ? jsonView(output) : lineView(output))
    try {
      return await new Capture({ plan, containers, facts, digest, folder, ...record, ...(inside === undefined ? {} : { inside }), ...(duration === undefined ? {} : { duration }) }, view, output).run()
    } finally {
      live?.stop()
      await inside?.end()
    }
  },
}

/** More than a few is seldom of use and takes from the programs that are watched. */
function usualThreads(): number {
  return Math.max(1, Math.min(4, Math.floor(availableParallelism() / 2)))
}

/** `inside`: another namespace's helper, which alone can look at it. */
async function factsOf(inside: HelperConnection | undefined): Promise<MachineFacts> {
  return inside === undefined ? probeMachine({ privileged: process.geteuid?.() === 0 }) : inside.request('facts', {})
}

interface CaptureWish extends RecordWish {
  readonly plan: InterceptionPlan
  readonly containers: readonly ChosenContainer[]
  readonly facts: MachineFacts
  readonly digest: string
  readonly folder: string
  readonly duration?: number
  /** Started already, in the network namespace to work in. */
  readonly inside?: HelperConnection
}
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** One recording from opening to closing. The gate never waits for the inspector: whatever becomes of that, traffic flows and is recorded. */
class Capture {
  private readonly wish: CaptureWish
  private readonly view: CaptureView
  private readonly output: Output
  private readonly gate: Gate
  private relayPort = 0
  private took = 0
  private redirects = false
  private inspector: InspectorClient | undefined
  private follow: FlowFollow | undefined
  private inspectorTold = false
  private drainingTold = false
  private control: ControlServer | undefined
  private readonly warn: (state: GateState) => void

  constructor(wish: CaptureWish, view: CaptureView, output: Output) {
    this.wish = wish
    this.view = view
    this.output = output
    this.warn = newWarnings((warning) => view.warning(warning))
    this.gate = new Gate({ startHelper: (options) => this.startHelper(options), digest: (plan) => this.digestOf(plan) })
  }

  async run(): Promise<number> {
    const { plan, folder, payload, containers, facts: _facts, digest: _digest, duration, inside: _inside, ...limits } = this.wish
    await createSessionFolder(folder, { plan, payload, version })
    const closed = new Promise<GateState>((done) => this.gate.onState((state) => {
      this.hear(state)
      if (state.phase === 'closed') done(state)
    }))
    const interrupt = (): void => this.interrupt()
    const watch = new ContainerWatch({ containers, onMoved: (name, from, to) => this.gate.moveCgroups(name, from, to) })
    for (const signal of signals) process.on(signal, interrupt)
    this.output.gone.addEventListener('abort', () => this.leave(), { once: true })
    try {
      try {
        await this.gate.open(plan, { folder, payload, ...limits })
      } catch (error) {
        await removeFolder(folder)
        throw error
      }
      watch.start()
      // Before READY: whoever waits for it may change the gate at once.
      this.control = await startControlServer({ gate: this.gate, session: folder, version, onChange: (difference) => void this.view.changed(difference, this.gate.state()), onContainers: (more) => watch.add(more) })
      await this.view.ready({ plan, backend: this.gate.state().backend ?? 'unknown', relayPort: this.relayPort, redirects: this.redirects, session: folder, took: this.took })
      if (duration !== undefined && this.gate.state().phase === 'open') this.gate.closeAfter(duration)
      if (this.output.gone.aborted) this.leave()
      void this.startInspector()
      const state = await closed
      watch.stop()
      this.control?.close()
      await this.finishInspector()
      await this.view.closed(state, basename(folder))
      if (state.failure !== undefined) throw fromFailureReport(state.failure)
      return 0
    } finally {
      watch.stop()
      this.control?.close()
      for (const signal of signals) process.off(signal, interrupt)
      await this.inspector?.stop()
      await this.gate.dispose()
    }
  }

  /** The relay's port is in the helper's answer alone. */
  private async startHelper(options: { readonly signal: AbortSignal }): Promise<HelperConnection> {
    const helper = this.wish.inside ?? (await startHelper(options))
    const request: HelperConnection['request'] = async (type, args) => {
      const result = await helper.request(type, args)
      if (type === 'open') ({ relayPort: this.relayPort, took: this.took, redirects: this.redirects } = result as OpenResult)
      return result
    }
    return { ...helper, request }
  }

  /** The plan's that was shown; of another one, later, by what has come and gone since. */
  private async digestOf(plan: InterceptionPlan): Promise<string> {
    const { plan: first, digest, facts, inside } = this.wish
    if (plan === first) return digest
    const { interfaces, cgroups } = await (inside === undefined ? refreshFacts(facts) : inside.request('facts', {}))
    return digestRules(compileRules(plan, { ...facts, interfaces, ...(cgroups === undefined ? {} : { cgroups }) }))
  }

  /** Drains; asked again, whatever the first reason was, closes at once. */
  private interrupt(): void {
    if (this.gate.state().phase === 'open') void this.gate.drain()
    else void this.gate.close()
  }

  /** Nobody listens any more. */
  private leave(): void {
    const { phase } = this.gate.state()
    if (phase === 'open') void this.gate.drain()
    // Nobody will ever read READY.
    else if (phase === 'opening') void this.gate.close()
  }

  private hear(state: GateState): void {
    if (state.phase === 'opening' && state.step !== undefined) this.view.step(state.step)
    this.warn(state)
    // Once a draining. Counts are a fifth of a second old: a flow that had just begun is heard of only after the phase.
    if (state.phase !== 'draining') this.drainingTold = false
    else if (state.active > 0 && !this.drainingTold) {
      this.drainingTold = true
      this.view.note(`draining: ${counted(state.active, 'flow')} still ${state.active === 1 ? 'runs' : 'run'}; interrupt again to close at once`)
    }
    this.view.gate(state)
  }

  private async startInspector(): Promise<void> {
    try {
      const inspector = startInspector()
      this.inspector = inspector
      const follow = new FlowFollow(inspector, this.view)
      this.follow = follow
      inspector.onEvent((event) => {
        if (event.event === 'changed') follow.changed(event.flows, event.more).catch((error: unknown) => this.inspectorFailed(error))
      })
      inspector.onExit(() => this.inspectorFailed(new Failure('inspector-died', 'the inspector ended')))
      await inspector.request('open', { folder: this.wish.folder, live: true })
      await follow.changed([], true)
    } catch (error) {
      this.inspectorFailed(error)
    }
  }

  private async finishInspector(): Promise<void> {
    if (this.inspector === undefined || this.inspectorTold) return
    try {
      await this.inspector.request('finish', {})
      await this.follow?.finish()
    } catch (error) {
      this.inspectorFailed(error)
    }
    this.inspectorTold = true
    await this.inspector.stop()
  }

  /** Said once: traffic and recording do not depend on it. */
  private inspectorFailed(error: unknown): void {
    if (this.inspectorTold) return
    this.inspectorTold = true
    const message = error instanceof Error ? error.message : String(error)
    this.view.note(`flows cannot be listed now (${message}); recording goes on, sluice flows lists them later`)
  }
}
