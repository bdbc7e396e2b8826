import { actionLogPath } from '#core/contract/actionLog.ts'
import { Failure, toFailureReport } from '#core/contract/failure.ts'
import type { FailureReport } from '#core/contract/failure.ts'
import type { ChangeResult, HelperEvent, HelperRequest, OpenResult } from '#core/contract/helperProtocol.ts'
import { handOversBetween } from '#core/plan/handOver.ts'
import type { HandOver } from '#core/plan/handOver.ts'
import { parsePlan } from '#core/plan/parsePlan.ts'
import type { InterceptionPlan } from '#core/plan/plan.ts'
import { relayPortTries } from '#core/plan/plan.ts'
import { takesDevices } from '#core/plan/takesDevices.ts'
import { chooseBackend } from '#core/rules/chooseBackend.ts'
import { holdGroup } from '#core/rules/names.ts'
import { describeLosses, describeOpening } from '#core/rules/describeOpening.ts'
import { holdsSyns } from '#core/rules/ruleSet.ts'
import { bridgesCallRules, canTellBridges, lookAtBridges } from '#probe/bridges.ts'
import { checkConflicts } from '#probe/conflicts.ts'
import { readInputFirewalls } from '#probe/inputFirewalls.ts'
import type { InputFirewall } from '#probe/inputFirewalls.ts'
import { findPlaces } from '#probe/places.ts'
import { probeMachine } from '#probe/probeMachine.ts'
import { readMarkWriters } from '#probe/readMarkWriters.ts'
import { udpBefore } from '#probe/udpBefore.ts'

import { logAction, onAction, onLogLoss } from './actionLog.ts'
import { acquireLock } from './acquireLock.ts'
import { applyTo, compileChange, requireDigest, withCgroupsNow } from './appliedRules.ts'
import type { AppliedRules } from './appliedRules.ts'
import { CgroupNewsTeller } from './cgroupNews.ts'
import { CgroupWatch } from './cgroupWatch.ts'
import type { Person } from './findPerson.ts'
import { flowRoom } from './flowRoom.ts'
import { GuardLink } from './guardLink.ts'
import { LinkLocalRoutes } from './linkLocalRoutes.ts'
import { MarkWatch } from './markWatch.ts'
import { readIdentity } from './processIdentity.ts'
import type { ProcessIdentity } from './processIdentity.ts'
import { RelayLink, relayHandOver, requireFitting } from './relayLink.ts'
import type { RelayNews } from './relayLink.ts'
import { RuleWatch } from './ruleWatch.ts'
import type { RuleWatchOptions } from './ruleWatch.ts'
import { HalfChange, makeRuleKeeper, udpKnown } from './ruleKeeper.ts'
import type { RuleKeeper } from './ruleKeeper.ts'
import { networkNamespace, readJournal, removeJournal, runFolder, writeJournal } from './runFolder.ts'
import type { Journal } from './runFolder.ts'
import { applyRoutes, revertRoutes } from './runRoutes.ts'
import { removeLeftScopes } from './runScope.ts'
import { surveyKernel } from './surveyKernel.ts'
import { Surroundings } from './surroundings.ts'
import type { SurroundingsOptions } from './surroundings.ts'
import { takeBack } from './takeBack.ts'

declare const __SLUICE_VERSION__: string | undefined
const version = typeof __SLUICE_VERSION__ === 'undefined' ? '0.0.0' : __SLUICE_VERSION__

type OpenRequest = Extract<HelperRequest, { type: 'open' }>
type ChangeRequest = Extract<HelperRequest, { type: 'change' }>

export interface GateContext {
  readonly person: Person
  readonly emit: (event: HelperEvent) => void
  /** Path of the bundle this process runs, for the guard. */
  readonly program: string
}

const pingEvery = 1000
const drainPingEvery = 250
/** Pings in a row without an answer: about three seconds. */
const silenceLimit = 3
/** Guards that end before anything was heard of them; then something is wrong that another one does not mend. */
const guardTries = 3
/** Looks in a row that find other cgroups than the one before, each refused by the kernel since one of them has gone. */
const cgroupTries = 5

interface Undo {
  readonly what: string
  readonly run: () => Promise<void> | void
}

/**
 * One gate from its opening to the last thing taken back. Each step registers its undo before it acts (undos are idempotent), so that giving up, a failure
 * and an orderly close all go the same way back: rules, routes, relay, journal, guard, lock.
 */
export class OpenGate {
  readonly #context: GateContext
  readonly #giveUp = new AbortController()
  readonly #undo: Undo[] = []
  #phase: 'opening' | 'open' | 'draining' | 'closing' | 'closed' = 'opening'
  #relay: RelayLink | undefined
  #keeper: RuleKeeper | undefined
  #watch: RuleWatch | undefined
  #surroundings: Surroundings | undefined
  #cgroups: CgroupWatch | undefined
  #marks: MarkWatch | undefined
  #linkLocal: LinkLocalRoutes | undefined
  readonly #cgroupNews: CgroupNewsTeller
  /** The relay sends again what waited. */
  #holds = false
  #bridgesTold = false
  #applied: AppliedRules | undefined
  /** Changes, drainings and resumings one after the other, in the order asked. */
  #turns: Promise<unknown> = Promise.resolve()
  #guard: GuardLink | undefined
  /** Guards in a row that went without a sign of life. */
  #guardsInVain = 0
  #journal: Journal | undefined
  #toEnd: ProcessIdentity[] = []
  #opening: Promise<unknown> = Promise.resolve()
  #closing: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #pingNumber = 0
  #pongNumber = 0
  #silence = 0
  #idle = 0
  #recording: string | undefined
  #renewing = false
  /** Why no connection can wait for its server here. */
  #cannotHold: string | undefined
  readonly #unlog: () => void

  constructor(context: GateContext) {
    this.#context = context
    const unlisten = [
      onAction((text) => context.emit({ event: 'action', text })),
      onLogLoss((why) => context.emit({ event: 'warning', code: 'log-unwritable', message: `What is done as root is not written to ${actionLogPath} any more: ${why}. It is shown here all the same.` })),
    ]
    this.#unlog = () => unlisten.forEach((each) => each())
    this.#cgroupNews = new CgroupNewsTeller((code, message) => {
      logAction({ result: 'note', text: message })
      context.emit({ event: 'warning', code, message })
    })
  }

  get closed(): boolean {
    return this.#phase === 'closed'
  }

  /** Rejects with a Failure after everything was taken back. Aborted by `close`: `cancelled`. */
  open(request: OpenRequest): Promise<OpenResult> {
    const work = this.#open(request).catch(async (error: unknown) => {
      const { signal } = this.#giveUp
      const failure: unknown = signal.aborted ? signal.reason : withoutRoom(error)
      await this.#takeBack()
      throw failure
    })
    this.#opening = work.catch(() => undefined)
    return work
  }

  async #open(request: OpenRequest): Promise<OpenResult> {
    const begun = performance.now()
    const { signal } = this.#giveUp
    const { person, program } = this.#context
    if (!request.capture.folder.startsWith('/') || /[\0-\x1f]/.test(request.capture.folder)) {
      throw new Failure('cannot-write', 'the session folder must be given as an absolute path')
    }
    const plan = parsePlan(request.plan)
    requireFitting(plan.handOver, plan)
    const maxFlows = flowRoom(request.maxFlows, request.threads)

    this.#step('looking at this machine')
    const namespace = networkNamespace()
    const lock = await this.#doing('the lock', acquireLock(namespace), (got) => got.release())
    // While this machine is looked at it gets up; what it is to guard it is told before the first change.
    const startGuard = (): Promise<GuardLink> => GuardLink.start(program, lock, () => void this.#replaceGuard(namespace, startGuard))
    this.#guard = await this.#doing('the guard', startGuard(), () => this.#guard?.done())
    const left = readJournal(namespace)
    const [survey, facts, firewalls, markWriters] = await Promise.all([
      surveyKernel(plan.table),
      probeMachine({ privileged: true, choice: plan.backend }),
      takesDevices(plan) ? readInputFirewalls(plan.marks.forwarded) : [],
      readMarkWriters(),
      removeLeftScopes(),
    ])
    signal.throwIfAborted()
    // Nobody else holds the gate, so whatever bears our name was left by a crash.
    const isClean = left === undefined && !survey.left
    if (!isClean) await takeBack(left)
    removeJournal(namespace)
    const { base, routing } = isClean ? survey : await surveyKernel(plan.table)
    signal.throwIfAborted()
    await checkConflicts(plan, routing, markWriters)
    signal.throwIfAborted()
    logAction({ result: 'note', text: `opening the gate: ${describeOpening(plan, facts).join(' ')}` })
    const backend = chooseBackend(plan, facts)
    const ruleSet = requireDigest(plan, facts, request.digest)
    for (const message of describeLosses(plan, facts)) this.#context.emit({ event: 'warning', code: 'redirect', message })
    const dropping = mustPassFirewalls({ plan, ruleSet }) ? firewalls.filter((each) => !each.letsPass) : []
    this.#warnOfFirewalls(dropping, plan, holdsSyns(ruleSet))
    const self = readIdentity(process.pid)
    if (self === undefined) throw new Failure('internal', '/proc is not readable')

    this.#step('starting the guard')
    const journal: Journal = { version: 1, helper: self, person: { uid: person.uid, user: person.user }, backend, table: plan.table, ...base }
    this.#undo.push({ what: 'the journal', run: () => void removeJournal(namespace) })
    writeJournal(namespace, journal)
    this.#journal = journal
    this.#guard.watch(namespace, journal)

    this.#step('starting the relay')
    const bridgesCalled = bridgesCallRules()
    const tellsBridges = bridgesCalled && ruleSet.way !== 'redirect' ? canTellBridges(backend) : Promise.resolve(false)
    const tool = facts.tools.find((each) => each.backend === backend)
    // Also when nothing waits yet: it may be chosen while the gate is open, and the relay has the right to bind to the packet log only now.
    const canHold = ruleSet.way !== 'redirect' && tool?.log !== false
    // What comes in is translated to whatever address its interface has; a program's own connections to loopback.
    const redirect = ruleSet.way === 'redirect' ? { everywhere: takesDevices(plan) } : undefined
    const relay = await RelayLink.spawn(findPlaces().relay)
    this.#relay = relay
    this.#undo.push({ what: 'the relay', run: () => relay.quit() })
    this.#endWith(relay.identity)
    logAction({ result: 'note', text: `started the relay, process ${String(relay.identity.pid)}` })
    const ready = await relay.start(
      {
        uid: person.uid,
        gid: person.gid,
        groups: person.groups,
        port: plan.relayPort,
        portTries: relayPortTries,
        ipv6: facts.ipv6,
        threads: request.threads,
        uplinkMark: plan.marks.uplink,
        flowMarks: (plan.marks.local | plan.marks.forwarded | plan.marks.uplink) >>> 0,
        hold: canHold ? { group: holdGroup, releasedMark: (plan.marks.local | plan.marks.uplink) >>> 0 } : null,
        // Its answers tell the rules which flows are in a zone of their own.
        ...(canHold && plan.keepPort ? { keep: { mark: plan.marks.forwarded } } : {}),
        // Also when no port is chosen yet: one may be while the gate is open.
        udp: ruleSet.way !== 'redirect',
        ...(redirect === undefined ? {} : { redirect }),
        udpIdle: plan.udpIdle,
        refuse: plan.refuse,
        handOver: plan.handOver.flatMap((each) => relayHandOver(each, plan.marks)),
        capture: request.capture,
        attribute: true,
        maxFlows,
        version,
      },
      signal,
    )
    relay.onNews((news) => this.#hearRelay(news))
    relay.onDeath(() => this.#collapse(new Failure('relay-died', 'the relay ended unexpectedly', relay.stderr || undefined)))
    if (relay.dead) throw new Failure('relay-died', 'the relay ended unexpectedly', relay.stderr || undefined)

    const applied = applyTo({ plan, facts, backend, ipv6: ready.ipv6, bridgesCall: await tellsBridges, ...(redirect === undefined ? {} : redirect) })

    this.#step('adding routes')
    this.#undo.push({ what: 'routes', run: () => revertRoutes(applied.ruleSet) })
    if (applied.ipv6 && facts.ipv6 && ruleSet.way !== 'redirect') {
      const linkLocal = new LinkLocalRoutes({
        routing: ruleSet.routing,
        onProcess: (process) => this.#endWith(process),
        onRestored: (message) => this.#context.emit({ event: 'warning', code: 'rules-restored', message }),
      })
      this.#linkLocal = linkLocal
      this.#undo.push({ what: 'routes of interfaces', run: () => linkLocal.remove() })
    }
    await Promise.all([applyRoutes(applied.ruleSet, signal), applied.carried.local ? this.#linkLocal?.keep() : undefined])

    this.#step('applying rules')
    const owner = tool?.owner === true
    this.#cannotHold = ready.holds ? undefined : canHold ? 'another program has the packet log this needs' : 'the kernel has no packet log (nfnetlink_log)'
    if (holdsSyns(ruleSet)) this.#warnOfNoHold()
    if (plan.keepPort && plan.scope.includes('forwarded') && redirect === undefined && (!ready.holds || facts.lenientLo !== true)) {
      const why = ready.holds ? 'strict reverse-path rules on lo (rp_filter or src_valid_mark) let no held connection in' : 'connections cannot wait for their server here'
      this.#context.emit({ event: 'warning', code: 'no-keep-port', message: `Servers see ports of this computer’s instead of the devices’ own: ${why}.` })
    }
    const keeper = await this.#doing('rules', makeRuleKeeper(backend, applied.ruleSet, { relayPort: ready.port, owner, holds: ready.holds, base, keptPort: ready.keptPort, ...udpBefore({ ...plan, udp: ruleSet.sets.udp }) }), (got) => got.remove())
    this.#keeper = keeper
    if (keeper.holder !== undefined) this.#endWith(keeper.holder)
    keeper.onLoss(() => this.#collapse(new Failure('rules-failed', 'the process that holds the rules was ended')))
    await this.#orGivenUp(
      keeper.load(signal).catch((error: unknown) => {
        if (areCgroupsAsSeen(applied)) throw error
        throw new Failure('unknown-cgroup', 'a chosen cgroup was removed or made anew just now: try once more', error instanceof Error ? error.message : undefined)
      }),
    )
    signal.throwIfAborted()
    this.#applied = applied
    this.#watchRules(backend, applied.ruleSet, keeper)
    this.#watchSurroundings({ lenient: facts.lenientLo === true, bridgesCall: bridgesCalled }, ready.holds, dropping)
    this.#watchCgroups(applied)
    this.#watchMarks(plan.marks)
    this.#phase = 'open'
    logAction({ result: 'note', text: `the gate is open by ${backend}, the relay on port ${String(ready.port)}` })
    this.#watchEvery(pingEvery)
    return { backend, relayPort: ready.port, relayPid: ready.pid, ipv6: ready.ipv6, redirects: redirect !== undefined, took: Math.round(performance.now() - begun) }
  }

  /** From now on somebody else's changes are noticed and undone. */
  #watchRules(backend: RuleWatchOptions['backend'], routed: RuleWatchOptions['routed'], keeper: RuleKeeper): void {
    const watch = new RuleWatch({
      backend,
      routed,
      keeper,
      onProcess: (process) => this.#endWith(process),
      onRestored: (message) => {
        this.#linkLocal?.stir()
        this.#context.emit({ event: 'warning', code: 'rules-restored', message })
      },
      onGivenUp: (failure) => this.#collapse(failure),
    })
    this.#watch = watch
    watch.start()
  }

  /** From now on rules of others that use bits of ours are told. */
  #watchMarks(marks: InterceptionPlan['marks']): void {
    this.#marks = new MarkWatch({
      marks,
      onFound: (message) => {
        logAction({ result: 'note', text: message })
        this.#context.emit({ event: 'warning', code: 'marks-taken', message })
      },
    })
    this.#marks.start()
  }

  /** From now on what others do that breaks diverted flows is told, and what can be done about it is done. */
  #watchSurroundings(now: Pick<SurroundingsOptions, 'lenient' | 'bridgesCall'>, holds: boolean, firewalls: readonly InputFirewall[]): void {
    this.#holds = holds
    void this.#warnOfBridges()
    const surroundings = new Surroundings({
      ...now,
      firewalls,
      mark: () => {
        const now = this.#applied
        return now !== undefined && mustPassFirewalls(now) ? now.plan.marks.forwarded : undefined
      },
      onLenience: (now) => void this.#inTurn(() => this.#followLenience(now, holds)).catch((error: unknown) => this.#collapse(error)),
      onBridges: (call) => void this.#inTurn(() => this.#followBridges(call)).catch((error: unknown) => this.#collapse(error)),
      onFirewalls: (found) => this.#applied !== undefined && this.#warnOfFirewalls(found, this.#applied.plan, holds && waitsForwarded(this.#applied)),
    })
    this.#surroundings = surroundings
    surroundings.start()
  }

  /** What comes in by a bridge that shows the rules what it carries would be lost where it was taken. */
  async #followBridges(call: boolean): Promise<void> {
    const before = this.#applied
    if (before === undefined || this.#isEnding() || before.ruleSet.way === 'redirect') return
    const bridgesCall = call && (await canTellBridges(before.backend))
    const [keeper, applied] = [this.#keeper, this.#applied]
    if (keeper === undefined || applied === undefined || this.#isEnding()) return
    const next = applyTo({ ...applied, bridgesCall }, applied.carried)
    if (this.#isIn('open')) await keeper.change(next.ruleSet, udpKnown, this.#giveUp.signal)
    this.#applied = next
    if (call) return this.#warnOfBridges()
    if (!this.#bridgesTold) return
    this.#bridgesTold = false
    this.#context.emit({ event: 'warning', code: 'bridges-gone', message: 'Bridges no longer show the rules of IP what they carry: what comes in by one is taken like any other.' })
  }

  /** From now on a chosen unit or container that ends, or starts again with a cgroup of its own, is noticed. */
  #watchCgroups(applied: AppliedRules): void {
    this.#cgroupNews.begin(applied.ruleSet)
    const { cgroupPrefix } = applied.facts
    if (cgroupPrefix === undefined) return
    this.#cgroups = new CgroupWatch({ prefix: cgroupPrefix, onChange: () => void this.#followCgroups() })
    this.#cgroups.follow(applied.ruleSet.sets.cgroups.map(({ path }) => path))
    // What came or went between loading and watching.
    void this.#followCgroups()
  }

  /** The rules for the cgroups that are there now; true: other ones than before. Never rejects. */
  #followCgroups(): Promise<boolean> {
    return this.#inTurn(() => this.#adoptCgroups()).catch((error: unknown) => {
      this.#collapse(error)
      return false
    })
  }

  async #adoptCgroups(): Promise<boolean> {
    for (let [tries, changed] = [1, false]; ; tries += 1) {
      const [keeper, applied] = [this.#keeper, this.#applied]
      if (keeper === undefined || applied === undefined || this.#isEnding() || areCgroupsAsSeen(applied)) return changed
      const next = applyTo(applied, applied.carried)
      try {
        // While draining nobody new is taken; resuming begins with these.
        if (this.#isIn('open')) await keeper.change(next.ruleSet, udpKnown, this.#giveUp.signal)
      } catch (error) {
        // One of them may have gone meanwhile; where units come and go all the time that may happen more than once.
        if (tries < cgroupTries && !(error instanceof HalfChange) && !areCgroupsAsSeen(next)) continue
        throw error
      }
      this.#applied = next
      this.#cgroupNews.tell(next.ruleSet)
      changed = true
    }
  }

  /** Where lo no longer lets in what the relay sends again, a device's connection that waits would wait for ever. */
  async #followLenience(lenient: boolean, holds: boolean): Promise<void> {
    const [keeper, applied] = [this.#keeper, this.#applied]
    if (keeper === undefined || applied === undefined || this.#isEnding()) return
    const next = applyTo({ ...applied, strictLo: !lenient }, applied.carried)
    const matters = holds && waitsForwarded(next) !== waitsForwarded(applied)
    // While draining nobody new is taken; resuming begins with these.
    if (matters && this.#isIn('open')) await keeper.change(next.ruleSet, udpKnown, this.#giveUp.signal)
    this.#applied = next
    if (!matters) return
    const keeps = next.plan.keepPort
    const message = lenient
      ? `Reverse-path rules on lo are lenient again: devices’ connections wait for their server once more${keeps ? ', and keep their ports' : ''}.`
      : `Somebody else made reverse-path rules on lo strict (rp_filter or src_valid_mark, as VPN tools do): devices’ connections go on but no longer wait for their server, so closed ports look open for a moment before they are reset${keeps ? ', and servers see ports of this computer’s' : ''}.`
    logAction({ result: 'note', text: message })
    this.#context.emit({ event: 'warning', code: lenient ? 'lenient-lo' : 'strict-lo', message })
    // A SYN that waited came in by lo, which firewalls let pass.
    if (!lenient) this.#surroundings?.tellFirewallsAnew()
  }

  /** Rejects with `not-open` unless open. What the kernel refused is not changed at all and the gate stays open; it closes only where a part of it cannot be taken back. */
  change(request: ChangeRequest): Promise<ChangeResult> {
    return this.#inTurn(async () => {
      const begun = performance.now()
      this.#requireOpen()
      const [keeper, applied] = [this.#keeper, this.#applied]
      if (keeper === undefined || applied === undefined) throw new Failure('not-open', 'the gate is not open')
      const next = await compileChange(applied, parsePlan(request.plan), request.digest)
      const between = handOversBetween(applied.plan.handOver, next.plan.handOver)
      for (const each of [between, next.plan.handOver]) requireFitting(each, next.plan)
      // Nothing is put in once everything is being taken back.
      this.#requireOpen()
      // First, so that a port that is to be refused is never carried on instead, nor one that is to be sent to a proxy to its server.
      await this.#tellRelay(next.plan, between)
      // Told or not: the relay may have died, or the gate been told to close.
      this.#requireOpen()
      if (next.carried.local) await this.#linkLocal?.keep()
      try {
        await keeper.change(next.ruleSet, next.udpBefore, this.#giveUp.signal)
      } catch (error) {
        if (error instanceof HalfChange) this.#collapse(error)
        else await this.#tellRelay(applied.plan, applied.plan.handOver)
        throw error
      }
      this.#applied = next
      this.#cgroupNews.tell(next.ruleSet)
      this.#cgroupNews.begin(next.ruleSet)
      this.#cgroups?.follow(next.ruleSet.sets.cgroups.map(({ path }) => path))
      void this.#warnOfBridges()
      if (next.plan.handOver.some(({ to }) => to.kind === 'tproxy')) await this.#tellRelay(next.plan, next.plan.handOver)
      if (holdsSyns(next.ruleSet) && !holdsSyns(applied.ruleSet)) this.#warnOfNoHold()
      // A SYN that waits comes in by lo, which firewalls let pass; one that does no longer does not.
      if (mustPassFirewalls(next) && (!mustPassFirewalls(applied) || (waitsForwarded(applied) && !waitsForwarded(next)))) this.#surroundings?.tellFirewallsAnew()
      logAction({ result: 'note', text: `changed while open: ${describeOpening(next.plan, next.facts).join(' ')}` })
      return { took: Math.round(performance.now() - begun) }
    })
  }

  /**
   * Resolves when every relaying thread has passed it: a flow that comes from then on goes as told. Also when that will never be, the relay being dead or the gate closing. Who
   * merely hangs is found out by the pings.
   */
  async #tellRelay(plan: InterceptionPlan, handOvers: readonly HandOver[]): Promise<void> {
    this.#relay?.chooseUdp(plan)
    this.#relay?.chooseHandOver(handOvers.flatMap((each) => relayHandOver(each, plan.marks)))
    await this.#untilHeard(this.#giveUp.signal)
  }

  /** Back from draining. Rejects with `not-open` when it is too late; when open, nothing is to be done. */
  resume(): Promise<void> {
    return this.#inTurn(async () => {
      const [keeper, applied] = [this.#keeper, this.#applied]
      if (this.#phase === 'open') return
      if (this.#phase !== 'draining' || keeper === undefined || applied === undefined) throw new Failure('not-open', 'the gate is not open')
      // First, so that the end of the last flow does not close what is being opened again.
      this.#phase = 'open'
      try {
        await keeper.change(applied.ruleSet, udpKnown, this.#giveUp.signal)
      } catch (error) {
        this.#collapse(error)
        throw error
      }
      if (this.#isIn('open')) this.#watchEvery(pingEvery)
    })
  }

  /** Fails with `not-open` unless open (draining again is no failure). */
  drain(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#phase === 'draining') return
      if (this.#phase !== 'open' || this.#keeper === undefined) throw new Failure('not-open', 'the gate is not open')
      try {
        // Old iptables can empty no chain of a table that names a cgroup which has gone.
        await this.#adoptCgroups()
      } catch (error) {
        this.#collapse(error)
        throw error
      }
      this.#phase = 'draining'
      this.#step('letting the open flows run to their end')
      try {
        await this.#keeper.drain()
      } catch (error) {
        this.#collapse(error)
        throw error
      }
      // It may have been told to close meanwhile.
      if (this.#isIn('draining')) this.#watchEvery(drainPingEvery)
    })
  }

  #isIn(phase: 'open' | 'draining'): boolean {
    return this.#phase === phase
  }

  #requireOpen(): void {
    if (!this.#isIn('open')) throw new Failure('not-open', 'the gate is not open')
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turns.then(work)
    this.#turns = turn.catch(() => undefined)
    return turn
  }

  /** Whatever goes on is given up and everything taken back. Resolves when done; then event `closed` was emitted, unless it had not been open. */
  async close(): Promise<void> {
    this.#giveUp.abort(new Failure('cancelled', 'opening was given up'))
    await this.#opening
    if (this.#phase === 'closed') return
    await this.#shut(undefined)
  }

  /** A SYN that was held comes to INPUT by lo, which firewalls let pass; one that somebody translates is not held, and no datagram is. */
  #warnOfFirewalls(firewalls: readonly InputFirewall[], { scope }: Pick<InterceptionPlan, 'scope'>, held: boolean): void {
    if (firewalls.length === 0) return
    const forwarded = held ? 'forwarded UDP, and forwarded flows that somebody translates (NAT),' : 'forwarded flows'
    const what = !scope.includes('forwarded') ? 'flows to services of this computer' : forwarded
    const where = firewalls.map(({ chain }) => chain).join(', ')
    const mends = firewalls.map(({ mend }) => `\`${mend}\``).join(' and ')
    this.#context.emit({ event: 'warning', code: 'firewall', message: `A firewall drops what comes in (${where}): ${what} will not reach the relay, those of programs here will. To mend it: ${mends}` })
  }

  #warnOfNoHold(): void {
    if (this.#cannotHold !== undefined) this.#context.emit({ event: 'warning', code: 'no-hold', message: `Closed ports look open for a moment before they are reset: ${this.#cannotHold}.` })
  }

  /** Once, when there is something to be told. Never rejects. */
  async #warnOfBridges(): Promise<void> {
    const applied = this.#applied
    if (this.#bridgesTold || applied === undefined || !takesDevices(applied.plan) || applied.ruleSet.way === 'redirect' || !bridgesCallRules()) return
    if (applied.plan.udp.length === 0 && this.#holds && waitsForwarded(applied)) return
    this.#bridgesTold = true
    const { fact, mend } = await lookAtBridges(applied.bridgesCall === true)
    if (mend !== undefined) this.#context.emit({ event: 'warning', code: 'bridges', message: `Bridges here: ${fact}. To change that: ${mend}` })
    else this.#bridgesTold = false
  }

  #step(text: string): void {
    this.#context.emit({ event: 'step', text })
  }

  /** Waits for something that makes an undo necessary; the undo is there before anybody can look at the signal. */
  async #doing<T>(what: string, work: Promise<T>, undo: (got: T) => Promise<void> | void): Promise<T> {
    const got = await work
    this.#undo.push({ what, run: () => undo(got) })
    this.#giveUp.signal.throwIfAborted()
    return got
  }

  /** Ends the waiting at once when given up. The work goes on behind; its undo queues behind it. */
  #orGivenUp<T>(work: Promise<T>): Promise<T> {
    const { signal } = this.#giveUp
    work.catch(() => undefined)
    return new Promise<T>((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
      work.then(resolve, reject)
    })
  }

  #endWith(process: ProcessIdentity): void {
    this.#toEnd.push(process)
    this.#guard?.endWith(process)
  }

  #isEnding(): boolean {
    return this.#phase === 'closing' || this.#phase === 'closed'
  }

  async #replaceGuard(namespace: string, start: () => Promise<GuardLink>): Promise<void> {
    if (this.#isEnding()) return
    try {
      this.#guardsInVain = this.#guard?.answered === true ? 0 : this.#guardsInVain + 1
      if (this.#guardsInVain > guardTries) throw new Failure('internal', 'the guard cannot be started')
      const guard = await start()
      this.#guard = guard
      if (this.#journal !== undefined) guard.watch(namespace, this.#journal)
      for (const each of this.#toEnd) guard.endWith(each)
      // The gate may have closed while the new one started.
      if (this.#isEnding()) await guard.done()
      else this.#context.emit({ event: 'warning', code: 'guard-replaced', message: 'Sluice\u2019s guard process was ended or frozen by somebody; another one took its place.' })
    } catch (error) {
      if (this.#phase === 'opening') this.#collapse(error)
      else this.#context.emit({ event: 'warning', code: 'no-guard', message: 'The guard was ended and cannot be started again: a crash would leave rules behind until the next cleanup.' })
    }
  }

  #watchEvery(milliseconds: number): void {
    clearInterval(this.#timer)
    this.#idle = 0
    const limit = Math.ceil((silenceLimit * pingEvery) / milliseconds)
    // Counted in pings, not by the clock: after a suspend the clock would accuse a relay that was frozen together with us.
    this.#timer = setInterval(() => {
      this.#silence = this.#pongNumber === this.#pingNumber ? 0 : this.#silence + 1
      if (this.#silence >= limit) {
        this.#relay?.kill()
        this.#collapse(new Failure('relay-died', 'the relay stopped answering'))
        return
      }
      // A relay that owes an answer is not asked again: its answer to the first says as much.
      if (this.#silence === 0) this.#relay?.ping(++this.#pingNumber)
    }, milliseconds)
  }

  #hearRelay(news: RelayNews): void {
    const { emit } = this.#context
    if (news.type === 'flows') emit({ event: 'flows', active: news.active, total: news.total, bytes: news.bytes })
    else if (news.type === 'warning') emit({ event: 'warning', code: news.code, message: news.message })
    else {
      if (news.id !== this.#pingNumber) return
      this.#pongNumber = news.id
      if (news.recording !== this.#recording) {
        this.#recording = news.recording
        emit({ event: 'recording', state: news.recording })
      }
      if (this.#phase === 'open') this.#renew()
      if (this.#phase === 'draining') {
        // Twice in a row: a handshake under way when the rules were drained becomes a flow only with its last packet.
        this.#idle = news.active === 0 ? this.#idle + 1 : 0
        if (this.#idle >= 2) void this.#shut(undefined)
      }
    }
  }

  #renew(): void {
    if (this.#renewing) return
    this.#renewing = true
    this.#renewOrLook()
      .catch((error: unknown) => this.#phase === 'open' && this.#collapse(error))
      .finally(() => (this.#renewing = false))
  }

  async #renewOrLook(): Promise<void> {
    for (let tries = 1; ; tries += 1) {
      const [keeper, watch] = [this.#keeper, this.#watch]
      try {
        await keeper?.renew()
        return
      } catch (error) {
        // Old iptables loads a table as a whole, and refuses the whole for a cgroup that has gone.
        if (tries < cgroupTries && (await this.#followCgroups())) continue
        if (keeper?.holder !== undefined || watch === undefined) throw error
        // Perhaps somebody took the table away: the watch puts it back with a new lease, or gives up by itself. Or has put it back already, so that nothing is seen to be
        // amiss: each further failure is then another taking away, and the third of those ends the gate with its own words.
        if ((await watch.look()) || this.#phase !== 'open') return
        if (tries === 5) throw error
      }
    }
  }

  /** Something broke while open: everything back at once, and whoever listens is told why. */
  #collapse(error: unknown): void {
    if (this.#phase !== 'open' && this.#phase !== 'draining') {
      if (this.#phase === 'opening') this.#giveUp.abort(error)
      return
    }
    void this.#shut(toFailureReport(error))
  }

  #shut(failure: FailureReport | undefined): Promise<void> {
    this.#closing ??= (async () => {
      clearInterval(this.#timer)
      this.#phase = 'closing'
      this.#step('closing')
      if (failure !== undefined) logAction({ result: 'note', text: `closing the gate: ${failure.message}` })
      // A change under way would put in again what is being taken back.
      this.#giveUp.abort(new Failure('cancelled', 'the gate is closing'))
      await this.#turns
      const troubles = await this.#takeBack()
      const told = failure ?? troubles[0]
      this.#context.emit({ event: 'closed', ...(told === undefined ? {} : { failure: told }) })
    })()
    return this.#closing
  }

  /** Relayed flows are reset first: with the rules gone their packets would wander to the real servers. Every undo is tried, in reverse order. */
  async #takeBack(): Promise<FailureReport[]> {
    const troubles: FailureReport[] = []
    await this.#watch?.stop()
    await this.#surroundings?.stop()
    await this.#marks?.stop()
    this.#cgroups?.stop()
    await this.#resetFlows()
    for (const undo of this.#undo.splice(0).reverse()) {
      try {
        await undo.run()
      } catch (error) {
        troubles.push(toFailureReport(error))
      }
    }
    this.#phase = 'closed'
    logAction({ result: troubles.length === 0 ? 'note' : 'failed', text: 'the gate is closed and everything taken back', ...(troubles.length === 0 ? {} : { said: troubles.map(({ message, detail }) => `${message}: ${detail ?? ''}`).join('\n') }) })
    this.#unlog()
    return troubles
  }

  /** Asks for the reset and waits until every relaying thread has passed it, at most a second. */
  async #resetFlows(): Promise<void> {
    const relay = this.#relay
    if (relay === undefined || relay.dead) return
    relay.reset()
    await this.#untilHeard(AbortSignal.timeout(1000))
  }

  /** Until every relaying thread has passed what the relay was told so far, the relay is dead or the signal is given. */
  async #untilHeard(signal: AbortSignal): Promise<void> {
    const relay = this.#relay
    if (relay === undefined || relay.dead || signal.aborted) return
    const id = ++this.#pingNumber
    await new Promise<void>((resolve) => {
      const end = (): void => {
        signal.removeEventListener('abort', end)
        for (const each of deaf) each()
        resolve()
      }
      signal.addEventListener('abort', end)
      const deaf = [relay.onNews((news) => news.type === 'pong' && news.id === id && end()), relay.onDeath(end)]
      relay.ping(id)
    })
  }
}

/** Whether devices' connections wait for their server. */
function waitsForwarded({ ruleSet }: Pick<AppliedRules, 'ruleSet'>): boolean {
  return ruleSet.chains.some(({ name, steps }) => name === 'take' && steps.some(({ then }) => then.does === 'hold'))
}

function areCgroupsAsSeen({ ruleSet, facts }: Pick<AppliedRules, 'ruleSet' | 'facts'>): boolean {
  return JSON.stringify(withCgroupsNow(ruleSet, facts).cgroupIds) === JSON.stringify(ruleSet.cgroupIds)
}

/** Where lock or journal cannot be written nothing may be changed: a person is told why in their words. */
function withoutRoom(error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'ENOSPC' || code === 'EDQUOT') return new Failure('disk-full', `there is no room in ${runFolder}`, (error as Error).message)
  if (code === 'EROFS') return new Failure('cannot-write', `${runFolder} cannot be written`, (error as Error).message)
  return error
}

/** Of packets that come in otherwise than INPUT expects: forwarded ones with their foreign destination, and where destinations are translated what is for services here, with the relay's port. */
function mustPassFirewalls({ plan: { scope }, ruleSet }: Pick<AppliedRules, 'plan' | 'ruleSet'>): boolean {
  return scope.includes('forwarded') || (ruleSet.way === 'redirect' && scope.includes('incoming'))
}
