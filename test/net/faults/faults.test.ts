import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { afterAll, beforeAll, expect, test } from 'vitest'

import type { FailureReport } from '#core/contract/failure.ts'
import type { PlanWish } from '#core/plan/makePlan.ts'
import type { Backend } from '#core/plan/plan.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { until } from '#test/lab/until.ts'
import { makeProgramFolder, makeSession, namespaceInode, openArguments, planFor, snapshot, startTestHelper } from '../helper/harness.ts'
import type { TestHelper } from '../helper/harness.ts'
import { killAtOnce } from '../helper/killAtOnce.ts'
import { olderTool } from '../helper/olderTools.ts'
import { makeFaultLab } from './faultLab.ts'
import type { FaultLab, Seen } from './faultLab.ts'
import { backendOf, columns, isTaken, listFaults, listKindFaults, nameFault, sampleFaults } from './faultTable.ts'
import type { Column, Fault, Victim } from './faultTable.ts'
import { expectBack, listRules, takeAway, takeAwayAndWait } from './takeAway.ts'

/**
 * The fault table: whatever is killed, frozen, lost or taken away, at whatever step: the network works, nothing of ours remains (or is back), and a person is told.
 * `npm run faults` runs all of it; otherwise a sample, always the same (FAULTS_SEED=number is another one, FAULTS_ONLY chooses by a part of the name).
 */
const whole = process.env['FAULTS'] === 'all'
const seed = Number(process.env['FAULTS_SEED'] ?? 20260726)
const only = process.env['FAULTS_ONLY'] ?? ''
const faults = columns.flatMap((column, index) => {
  const [all, kinds] = [listFaults(column), listKindFaults(column)]
  if (whole || only !== '') return [...all, ...kinds].filter((fault) => nameFault(fault).includes(only))
  return [...sampleFaults(all, 5, seed + index), ...sampleFaults(kinds, 1, seed + index)]
})
const named = (some: readonly Fault[]) => some.map((fault) => [nameFault(fault), fault] as const)
const measured = new Map<Column, number[]>()

let programs: Awaited<ReturnType<typeof makeProgramFolder>>
const idle: FaultLab[] = []
const app = fileURLToPath(new URL('./app.mjs', import.meta.url))

beforeAll(async () => {
  programs = await makeProgramFolder()
})
afterAll(async () => {
  await Promise.all(idle.map(({ lab }) => lab.remove()))
  programs.remove()
  for (const [column, times] of measured) {
    const [median, worst] = [times.sort((a, b) => a - b)[times.length >> 1] ?? 0, times.at(-1) ?? 0]
    console.log(`${column}: put back ${median.toFixed(0)} ms after it was taken away, ${worst.toFixed(0)} ms at worst (${String(times.length)} times)`)
  }
})

test.concurrent.each(named(faults.filter(({ deed }) => !isTaken(deed))))('%s', runFault, 120_000)
// One after the other, since these are measured.
test.each(named(faults.filter(({ deed }) => isTaken(deed))))('%s', runFault, 120_000)

async function runFault(_name: string, fault: Fault): Promise<void> {
  // Labs are used again and again, which is a proof by itself that nothing is left; one in which a case failed is not.
  const place = idle.pop() ?? (await makeFaultLab())
  const told: string[] = []
  try {
    await runCase(place, fault, told)
    idle.push(place)
  } catch (error) {
    const programsLeft = await place.programs().catch(() => [])
    await place.lab.remove()
    throw new Error(`${nameFault(fault)}: told ${JSON.stringify(told)}; running ${programsLeft.map(({ name, pid }) => `${name} ${String(pid)}`).join(', ')}`, { cause: error })
  }
}

/** What makes a gate the column's and the kind's: on which machine the helper runs, and what it is asked for. */
function gateOf({ column, gate }: Pick<Fault, 'column' | 'gate'>): { readonly within: string[]; readonly wish: Partial<PlanWish>; readonly tools: MachineFacts['tools'] } {
  const backend = backendOf(column)
  const refused = [
    ...(column === 'nft without owned tables' ? ['flags owner'] : []),
    ...(gate === 'redirect' ? [{ nft: 'tproxy ', iptables: 'TPROXY', 'iptables-legacy': ' socket --transparent' }[backend]] : []),
  ]
  return {
    within: refused.length === 0 ? [] : olderMachine(backend, refused.join('|')),
    wish: gate === 'udp' ? { udp: '8080' } : {},
    tools: gate === 'redirect' ? [{ backend, usable: true, redirectsBecause: 'Operation not supported' }] : [],
  }
}
const olderMachines = new Map<string, string[]>()
/** Each made once, in a folder of its own: cases run beside one another. */
function olderMachine(backend: Backend, refuses: string): string[] {
  const name = `${backend} ${refuses}`
  const folder = join(programs.folder, `older-${String(olderMachines.size)}`)
  const words = olderMachines.get(name) ?? (mkdirSync(folder), olderTool(folder, backend, refuses))
  olderMachines.set(name, words)
  return words
}

/** Where a step is only a moment, its event comes just before it. */
async function reach(place: FaultLab, helper: TestHelper, { moment, column, gate, deed }: Fault, folder: string, act: () => Promise<void>, told: string[]): Promise<void> {
  const backend = backendOf(column)
  const { wish, tools } = gateOf({ column, gate })
  /** Whether it went well. */
  const hear = (request: Promise<unknown>): Promise<boolean> =>
    request.then(() => true, (error: unknown) => {
      const { code, message } = error as FailureReport
      told.push(`${code}: ${message}`)
      return false
    })
  await helper.request('hello', { protocol: 1 })
  const opened = hear(helper.request('open', openArguments(folder, backend, wish, tools)))
  if (moment !== 'open' && moment !== 'changing' && moment !== 'draining' && moment !== 'closing') {
    await helper.event('step', ({ text }) => text === moment)
    await act()
    // A frozen process may be what it waits for: then whoever is to end that does so, or the case goes on and wakes it.
    await Promise.race([opened, new Promise((resolve) => setTimeout(resolve, 8000))])
    return
  }
  if (!(await opened)) return
  expect(await place.hold('client', 'ipv4')).toMatchObject({ ok: true, relayed: true })
  expect(await place.hold('router', 'ipv6')).toMatchObject({ ok: true, relayed: true })
  if (gate === 'udp') for (const from of ['client', 'router'] as const) await until(`UDP of ${from} is relayed`, () => place.ask(from, 'ipv4', 'udp'), ({ ok, relayed }) => ok && relayed === true)
  if (moment === 'changing') {
    // The port that is asked for stays; everything else comes and goes, so that there is a change under way whenever it happens.
    const wishes: Partial<PlanWish>[] = [{ tcp: '8080,9100' }, { tcp: '8080', scope: ['local'], users: [1] }, { tcp: '8080', udp: '53', exclude: ['203.0.113.64/26'] }, { tcp: '8080,9000-9010' }]
    // What relayed UDP needs stays from the first change on that takes any.
    if (isTaken(deed)) for (const wished of [{ udp: '53' }, {}]) await helper.request('change', planFor({ ...wished, backend }))
    const held = isTaken(deed) ? await listRules(place.lab) : []
    const changes = Array.from({ length: 12 }, (_, index) => helper.request('change', planFor({ ...wishes[index % wishes.length], backend })))
    for (const change of changes) void hear(change)
    await changes[0]?.catch(() => undefined)
    await act()
    // As above: one that is frozen keeps them waiting.
    await Promise.race([Promise.allSettled(changes), new Promise((resolve) => setTimeout(resolve, 8000))])
    if (!isTaken(deed)) return
    await until('it is put back', () => Promise.resolve(told.join('\n')), (all) => all.includes('it was put back'))
    await helper.request('change', planFor({ backend }))
    await expectBack(place.lab, held)
    return
  }
  if (moment === 'draining') await helper.request('drain', {})
  if (moment === 'closing') {
    void hear(helper.request('close', {}))
    await helper.event('step', ({ text }) => text === 'closing')
  }
  await act()
}

async function runCase(place: FaultLab, fault: Fault, told: string[]): Promise<void> {
  const { lab } = place
  const folder = makeSession(programs, 'fault')
  const backend = backendOf(fault.column)
  const inside = fault.gate === 'netns'
  const outside = inside ? await snapshot(lab, 'server') : ''
  const helper = startTestHelper(lab, programs, inside ? 'server' : 'router', undefined, [...diskWords(fault, folder), ...gateOf(fault).within, process.execPath, app], inside ? ['--netns', lab.names.router] : [])
  const frozen: number[] = []
  let second: TestHelper | undefined
  const state = { over: false }
  void helper.ended.then(() => (state.over = true))
  helper.onEvent((event) => {
    if (event.event === 'closed' && event.failure !== undefined) told.push(`${event.failure.code}: ${event.failure.message}`)
    if (event.event === 'warning') told.push(`${event.code}: ${event.message}`)
  })
  helper.onEnd(({ code }) => told.push(`the helper ended with ${String(code)}`))
  const signal = (victims: readonly Seen[], name: 'SIGKILL' | 'SIGSTOP'): void => {
    for (const { pid } of victims) {
      try {
        process.kill(pid, name)
        if (name === 'SIGSTOP') frozen.push(pid)
      } catch {
        // It ended while we looked for it, as it does while closing.
      }
    }
  }
  const act = async (): Promise<void> => {
    const { deed, victim } = fault
    if (victim !== undefined) {
      signal(await findVictims(place, victim, fault.moment === 'closing'), deed === 'SIGSTOP' ? 'SIGSTOP' : 'SIGKILL')
      return
    }
    const journal = `/run/sluice/${namespaceInode(lab)}.json`
    switch (deed) {
      case 'connection cut':
        void helper.end()
        return
      case 'journal lost, then SIGKILL of the helper':
        rmSync(journal)
        signal(await findVictims(place, 'helper', false), 'SIGKILL')
        return
      case 'journal damaged, then SIGKILL of helper and guard':
        writeFileSync(journal, '{"version":1,"hel')
        await killAtOnce([...(await findVictims(place, 'guard', false)), ...(await findVictims(place, 'helper', false)), ...(await findVictims(place, 'relay', false))].map(({ pid }) => pid))
        return
      case 'disk full under the capture':
        // More than fits: the held connection's echo is recorded both ways.
        await lab.peer('client', 'talk', '203.0.113.2', '8080').event(({ event }) => event === 'line')
        for (let count = 0; count < 40; count++) await place.ask('client', 'ipv4')
        return
      case 'table gone':
      case 'ip rules gone':
      case 'route gone':
        if (fault.moment === 'changing') await takeAway(lab, deed, backend)
        else measured.set(fault.column, [...(measured.get(fault.column) ?? []), await takeAwayAndWait(lab, helper, deed, backend)])
        return
      case 'a second gate': {
        const { within, wish, tools } = gateOf(fault)
        second = startTestHelper(lab, programs, 'router', undefined, within)
        await second.request('hello', { protocol: 1 })
        const outcome = await second.request('open', openArguments(makeSession(programs, 'second'), backend, wish, tools)).then(() => 'opened', (error: unknown) => (error as FailureReport).code)
        told.push(`the second gate: ${outcome}`)
        return
      }
      default:
        return
    }
  }

  try {
    await reach(place, helper, fault, folder, act, told)
    // On iptables nobody is left who could take anything back: that is for the next opening, or for sluice cleanup.
    if (fault.deed.endsWith('helper and guard')) await openAndClose(place, fault)
    await place.expectNetwork(mayStayOpen(fault))
    const words = tellingWords(fault)
    if (words !== undefined) await until(`a person is told ${String(words)}`, () => Promise.resolve(told.join('\n')), (all) => words.test(all), 15_000)
  } finally {
    for (const pid of frozen) {
      try {
        process.kill(pid, 'SIGCONT')
      } catch {
        // ended meanwhile, as it should
      }
    }
  }
  await second?.end()
  if (!state.over) await Promise.race([helper.end(), new Promise((resolve) => setTimeout(resolve, 20_000))])
  // Killed before it had a guard it leaves an empty lock file, which hinders nobody and goes with the next gate.
  if (fault.victim === 'helper' && fault.deed === 'SIGKILL') await openAndClose(place, fault)
  await place.expectClean()
  if (inside) await until('where it was started all is as before', () => snapshot(lab, 'server'), (now) => now === outside)
  await place.expectNetwork(false)
}

/** Another gate: takes back whatever a dead one left, and waits for a guard that is at work. */
async function openAndClose(place: FaultLab, fault: Fault): Promise<void> {
  const { within, wish, tools } = gateOf(fault)
  const next = startTestHelper(place.lab, programs, 'router', undefined, within)
  await next.request('hello', { protocol: 1 })
  await next.request('open', openArguments(makeSession(programs, 'next'), backendOf(fault.column), wish, tools))
  await next.end()
}

/** A gate that nothing is wrong with goes on; whether it relays is then not asked. */
function mayStayOpen({ victim, deed, moment }: Fault): boolean {
  if (victim === 'entrance' || victim === 'guard' || victim === 'witness' || victim === 'watch') return true
  if (victim === 'app') return deed === 'SIGSTOP'
  // Frozen before it had a guard: it has changed nothing, or opens when it goes on.
  return victim === undefined && deed !== 'connection cut' && !deed.startsWith('journal') && moment !== 'closing'
}

/** What must have been said. Undefined: the app's own death needs no telling; of entrance, watch and witness nobody misses anything; a closing that goes on has nothing to add. */
function tellingWords({ victim, deed, moment }: Fault): RegExp | undefined {
  if (deed === 'a second gate') return /already-open/
  if (deed === 'disk full under the capture') return /capture-stopped|cannot-write|disk-full/
  if (deed === 'disk full under the journal') return /^disk-full: there is no room in \/run\/sluice/m
  if (deed === 'disk full under the log') return /log-unwritable: .*ENOSPC/
  if (deed.endsWith('gone')) return /rules-restored: Somebody else took away .*; it was put back/
  if (deed.startsWith('journal') || deed === 'connection cut') return /the helper ended/
  if (victim === 'helper') return deed === 'SIGKILL' ? /helper-died|the helper ended/ : undefined
  if (moment === 'closing' || victim === 'app' || victim === 'entrance' || victim === 'watch' || victim === 'witness') return undefined
  if (victim === 'relay') return moment === 'open' || moment === 'changing' || moment === 'draining' ? /relay-died/ : /relay-died|relay-failed|cancelled/
  // One that is killed as it begins to watch fails the opening.
  if (victim === 'guard') return /guard-replaced|the guard/
  return moment === 'draining' ? undefined : /rules-failed/
}

/** Words that start the helper where a place on disk is full. */
function diskWords({ deed }: Fault, folder: string): string[] {
  const full = (path: string, mount: string): string[] => ['unshare', '--mount', '--propagation', 'private', '--', 'sh', '-c', `${mount}; exec "$@"`, 'full', path]
  const words = (script: string): string[] => full('', script).slice(0, -1)
  switch (deed) {
    case 'disk full under the capture': return words(`mount -t tmpfs -o size=8k,uid=65534,gid=65534,mode=700 none '${folder}'`)
    case 'disk full under the journal': return words('mkdir -p /run/sluice && mount -t tmpfs -o size=4k,nr_inodes=2 none /run/sluice && head -c 4096 /dev/zero > /run/sluice/full')
    case 'disk full under the log': return words('mkdir -p /var/log/sluice && mount -t tmpfs -o size=4k,nr_inodes=2 none /var/log/sluice && head -c 4096 /dev/zero > /var/log/sluice/full')
    default: return []
  }
}

async function findVictims(place: FaultLab, victim: Victim, closing: boolean): Promise<Seen[]> {
  const find = async (): Promise<Seen[]> => {
    const all = await place.programs()
    const relays = all.filter(({ commandLine }) => commandLine.endsWith('/sluice-relay'))
    const isChild = ({ parent }: Seen): boolean => relays.some(({ pid }) => pid === parent)
    switch (victim) {
      case 'app': return all.filter(({ commandLine }) => commandLine.includes('app.mjs'))
      case 'entrance': return all.filter(({ commandLine }) => commandLine.includes('helper.mjs --netns') && !commandLine.includes('app.mjs'))
      case 'helper': return all.filter(({ commandLine }) => /helper\.mjs(?: --entered)?$/.test(commandLine) && !commandLine.includes('app.mjs'))
      case 'guard': return all.filter(({ commandLine }) => commandLine.endsWith('--guard'))
      case 'relay': return relays.filter((each) => !isChild(each))
      case 'witness': return all.filter((each) => isChild(each))
      case 'holder': return all.filter(({ commandLine }) => /(?:^|\/)nft -i$/.test(commandLine))
      case 'watch': return all.filter(({ commandLine }) => /(?:^|\/)(?:ip -N|nft) monitor/.test(commandLine))
    }
  }
  if (closing) return find()
  return until(`there is a ${victim}`, find, (found) => found.length > 0, 5000)
}

// Written so that the folder of runs is there for the tests that damage a journal in it.
if (!existsSync('/run/sluice')) mkdirSync('/run/sluice', { recursive: true })
