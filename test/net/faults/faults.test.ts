import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { PlanWish } from '#core/plan/makePlan.ts'
import type { Backend } from '#core/plan/plan.ts'
import type { FailureReport } from '#core/contract/failure.ts'
import { makeProgramFolder, makeSession, namespaceInode, openArguments, planFor, startTestHelper } from '../helper/harness.ts'
import type { TestHelper } from '../helper/harness.ts'
import { makeFaultLab, until } from './faultLab.ts'
import type { FaultLab, Seen } from './faultLab.ts'
import { listFaults, nameFault, sampleFaults } from './faultTable.ts'
import type { Fault, Victim } from './faultTable.ts'

/**
 * The fault table: whatever is killed, frozen, lost or taken away, at whatever step: the network works, nothing of ours remains (or is back), and a person is told.
 * `npm run faults` runs all of it; otherwise a sample (FAULTS_SEED chooses another one, FAULTS_ONLY a part of a name).
 */
const whole = process.env['FAULTS'] === 'all'
const seed = Number(process.env['FAULTS_SEED'] ?? 20260726)
const only = process.env['FAULTS_ONLY'] ?? ''
const backends: readonly Backend[] = ['nft', 'iptables', 'iptables-legacy']
const table = backends.map((backend) => {
  const all = listFaults(backend).filter((fault) => nameFault(fault).includes(only))
  return [backend, whole || only !== '' ? all : sampleFaults(all, 8, seed)] as const
}).filter(([, faults]) => faults.length > 0)

let programs: Awaited<ReturnType<typeof makeProgramFolder>>
const idle: FaultLab[] = []
const app = fileURLToPath(new URL('./app.mjs', import.meta.url))

beforeAll(async () => {
  programs = await makeProgramFolder()
})
afterAll(async () => {
  await Promise.all(idle.map(({ lab }) => lab.remove()))
  programs.remove()
})

describe.each(table)('%s', (_backend, faults) => {
  test.concurrent.each(faults.map((fault) => [nameFault(fault), fault] as const))('%s', async (_name, fault) => {
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
  }, 120_000)
})

/** Where a step is only a moment, its event comes just before it. */
async function reach(place: FaultLab, helper: TestHelper, { moment, backend }: Fault, folder: string, act: () => Promise<void>, told: string[]): Promise<void> {
  const hear = (request: Promise<unknown>): Promise<unknown> =>
    request.catch((error: unknown) => {
      const { code, message } = error as FailureReport
      told.push(`${code}: ${message}`)
    })
  await helper.request('hello', { protocol: 1 })
  const opened = hear(helper.request('open', openArguments(folder, backend)))
  if (moment !== 'open' && moment !== 'changing' && moment !== 'draining' && moment !== 'closing') {
    await helper.event('step', ({ text }) => text === moment)
    await act()
    // A frozen process may be what it waits for: then whoever is to end that does so, or the case goes on and wakes it.
    await Promise.race([opened, new Promise((resolve) => setTimeout(resolve, 8000))])
    return
  }
  await opened
  if (told.length > 0) return
  expect(await place.hold('client', 'ipv4')).toMatchObject({ ok: true, relayed: true })
  expect(await place.hold('router', 'ipv6')).toMatchObject({ ok: true, relayed: true })
  if (moment === 'changing') {
    // The port that is asked for stays; everything else comes and goes, so that there is a change under way whenever it happens.
    const wishes: Partial<PlanWish>[] = [{ tcp: '8080,9100' }, { tcp: '8080', scope: ['local'], users: [1] }, { tcp: '8080', udp: '53', exclude: ['203.0.113.64/26'] }, { tcp: '8080,9000-9010' }]
    const changes = Array.from({ length: 12 }, (_, index) => helper.request('change', planFor({ ...wishes[index % wishes.length], backend })))
    for (const change of changes) void hear(change)
    await changes[0]?.catch(() => undefined)
    await act()
    // As above: one that is frozen keeps them waiting.
    await Promise.race([Promise.allSettled(changes), new Promise((resolve) => setTimeout(resolve, 8000))])
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
  const helper = startTestHelper(lab, programs, 'router', undefined, [...diskWords(fault, folder), process.execPath, app])
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
        signal([...(await findVictims(place, 'guard', false)), ...(await findVictims(place, 'helper', false)), ...(await findVictims(place, 'relay', false))], 'SIGKILL')
        return
      case 'disk full under the capture':
        // More than fits: the held connection's echo is recorded both ways.
        await lab.peer('client', 'talk', '203.0.113.2', '8080').event(({ event }) => event === 'line')
        for (let count = 0; count < 40; count++) await place.ask('client', 'ipv4')
        return
      case 'table gone':
        await lab.exec('router', ['sh', '-c', fault.backend === 'iptables' ? 'iptables-nft -t mangle -F; ip6tables-nft -t mangle -F' : 'iptables-legacy -t mangle -F; ip6tables-legacy -t mangle -F'])
        return
      case 'ip rules gone':
        await lab.exec('router', ['sh', '-c', 'for f in -4 -6; do while ip $f rule del protocol 77 2>/dev/null; do :; done; done'])
        return
      case 'route gone':
        await lab.exec('router', ['ip', 'route', 'flush', 'table', '7701'])
        return
      case 'a second gate': {
        second = startTestHelper(lab, programs)
        await second.request('hello', { protocol: 1 })
        const outcome = await second.request('open', openArguments(makeSession(programs, 'second'), fault.backend)).then(() => 'opened', (error: unknown) => (error as FailureReport).code)
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
    if (fault.deed.endsWith('helper and guard')) await openAndClose(place, fault.backend)
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
  if (fault.victim === 'helper' && fault.deed === 'SIGKILL') await openAndClose(place, fault.backend)
  await place.expectClean()
  await place.expectNetwork(false)
}

/** Another gate: takes back whatever a dead one left, and waits for a guard that is at work. */
async function openAndClose(place: FaultLab, backend: Backend): Promise<void> {
  const next = startTestHelper(place.lab, programs)
  await next.request('hello', { protocol: 1 })
  await next.request('open', openArguments(makeSession(programs, 'next'), backend))
  await next.end()
}

/** A gate that nothing is wrong with goes on; whether it relays is then not asked. */
function mayStayOpen({ victim, deed, moment }: Fault): boolean {
  if (victim === 'guard' || victim === 'witness' || victim === 'watch') return true
  if (victim === 'app') return deed === 'SIGSTOP'
  // Frozen before it had a guard: it has changed nothing, or opens when it goes on.
  return victim === undefined && deed !== 'connection cut' && !deed.startsWith('journal') && moment !== 'closing'
}

/** What must have been said. Undefined: the app's own death needs no telling; of watch and witness nobody misses anything; a closing that goes on has nothing to add. */
function tellingWords({ victim, deed, moment }: Fault): RegExp | undefined {
  if (deed === 'a second gate') return /already-open/
  if (deed === 'disk full under the capture') return /capture-stopped|cannot-write|disk-full/
  if (deed === 'disk full under the journal') return /^disk-full: there is no room in \/run\/sluice/m
  if (deed === 'disk full under the log') return /log-unwritable: .*ENOSPC/
  if (deed.endsWith('gone')) return /rules-restored: Somebody else took away .*; it was put back/
  if (deed.startsWith('journal') || deed === 'connection cut') return /the helper ended/
  if (victim === 'helper') return deed === 'SIGKILL' ? /helper-died|the helper ended/ : undefined
  if (moment === 'closing' || victim === 'app' || victim === 'watch' || victim === 'witness') return undefined
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
      case 'helper': return all.filter(({ commandLine }) => commandLine.endsWith('helper.mjs') && !commandLine.includes('app.mjs'))
      case 'guard': return all.filter(({ commandLine }) => commandLine.endsWith('--guard'))
      case 'relay': return relays.filter((each) => !isChild(each))
      case 'witness': return all.filter((each) => isChild(each))
      case 'holder': return all.filter(({ commandLine }) => commandLine.endsWith('/nft -i'))
      case 'watch': return all.filter(({ commandLine }) => /\/(?:ip -N|nft) monitor/.test(commandLine))
    }
  }
  if (closing) return find()
  return until(`there is a ${victim}`, find, (found) => found.length > 0, 5000)
}

// Written so that the folder of runs is there for the tests that damage a journal in it.
if (!existsSync('/run/sluice')) mkdirSync('/run/sluice', { recursive: true })
