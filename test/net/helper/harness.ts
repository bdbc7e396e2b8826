import { execFileSync, spawn } from 'node:child_process'
import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { build } from 'vite'
import { expect } from 'vitest'

import type { HelperEvent } from '#core/contract/helperProtocol.ts'
import { makePlan } from '#core/plan/makePlan.ts'
import type { PlanWish } from '#core/plan/makePlan.ts'
import type { Backend, InterceptionPlan } from '#core/plan/plan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { connectHelper } from '#elevate/helperConnection.ts'
import type { HelperConnection } from '#elevate/helperConnection.ts'
import { digestRules } from '#probe/digestRules.ts'
import { labAddresses } from '#test/lab/makeLab.ts'
import type { Lab, Place } from '#test/lab/makeLab.ts'

const root = join(import.meta.dirname, '..', '..', '..')
/** Nobody: a user like any other for whom the helper may work. */
export const person = { uid: 65534, gid: 65534 }

/** A folder as an installed Sluice has it (helper.mjs beside sluice-relay), made from the sources of now. */
export async function makeProgramFolder(): Promise<{ readonly folder: string; remove(): void }> {
  const relay = join(root, 'native', 'build', 'sluice-relay')
  if (!existsSync(relay)) throw new Error('the relay is not built: node resources/setup/build.mjs --only native')
  const folder = mkdtempSync(join(tmpdir(), `sluice-test-${String(process.pid)}-`))
  chmodSync(folder, 0o755)
  await build({ configFile: join(root, 'resources/setup/vite.node.mjs'), mode: 'helper', logLevel: 'error', build: { outDir: folder, sourcemap: false } })
  copyFileSync(relay, join(folder, 'sluice-relay'))
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) }
}

export interface TestHelper extends HelperConnection {
  readonly pid: number
  readonly events: readonly HelperEvent[]
  /** Resolves with the next event of that name, or one that came already. */
  event<Name extends HelperEvent['event']>(name: Name, matches?: (event: Extract<HelperEvent, { event: Name }>) => boolean): Promise<Extract<HelperEvent, { event: Name }>>
  readonly ended: Promise<number | undefined>
  /** Ends the test's hold on it, whatever state it is in. */
  kill(): void
}

/** The real helper, in the router, working for `nobody`. `within`: words that start it, say in a mount namespace where a tool of the machine is an older one; `options`: its own. */
export function startTestHelper(lab: Lab, programs: { readonly folder: string }, place: Place = 'router', env: Record<string, string> = { SUDO_UID: String(person.uid) }, within: readonly string[] = [], options: readonly string[] = []): TestHelper {
  const [command = '', ...words] = [...lab.enter(place), ...within]
  const child = spawn(command, [...words, process.execPath, join(programs.folder, 'helper.mjs'), ...options], { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...env }, detached: true })
  const connection = connectHelper(child)
  const events: HelperEvent[] = []
  const waiting = new Set<() => void>()
  connection.onEvent((event) => {
    events.push(event)
    for (const look of [...waiting]) look()
  })
  return {
    ...connection,
    pid: child.pid ?? 0,
    events,
    event: (name, matches = () => true) =>
      new Promise((resolve) => {
        const look = (): void => {
          const found = events.find((event): event is Extract<HelperEvent, { event: typeof name }> => event.event === name && matches(event as Extract<HelperEvent, { event: typeof name }>))
          if (found === undefined) return
          waiting.delete(look)
          resolve(found)
        }
        waiting.add(look)
        look()
      }),
    ended: new Promise((resolve) => connection.onEnd(({ code }) => resolve(code))),
    kill: () => void child.kill('SIGKILL'),
  }
}

export function planFor(wish: Partial<PlanWish> & { backend: Backend }, tools: MachineFacts['tools'] = []): { plan: InterceptionPlan; digest: string } {
  const plan = makePlan({ tcp: '8080,9000-9010', ...wish })
  // What of a machine's facts the rules depend on; of tools only whether they redirect, mounts not at all.
  return { plan, digest: digestRules(compileRules(plan, { tools, ipv6: true, lenientLo: true, interfaces: ['lo', 'cl0', 'sv0'] })) }
}

/** A session folder of the person's. */
export function makeSession(programs: { readonly folder: string }, name: string): string {
  const folder = join(programs.folder, `${name}-${String(Math.random()).slice(2)}.sluice`)
  mkdirSync(folder, { mode: 0o700 })
  chownSync(folder, person.uid, person.gid)
  return folder
}

export async function openGate(helper: TestHelper, programs: { readonly folder: string }, backend: Backend, wish: Partial<PlanWish> = {}, tools: MachineFacts['tools'] = []) {
  const folder = makeSession(programs, 'session')
  await helper.request('hello', { protocol: 1 })
  const result = await helper.request('open', openArguments(folder, backend, wish, tools))
  return { ...result, folder }
}
export function openArguments(folder: string, backend: Backend, wish: Partial<PlanWish> = {}, tools: MachineFacts['tools'] = []) {
  return { ...planFor({ ...wish, backend }, tools), capture: { folder, payload: true, maxBytesPerFlow: null, maxBytes: null }, threads: 1 }
}

/** Rules of iptables, as it or nft lists them, without the lease's end, which moves on every few seconds. */
export const withoutLease = (rules: string): string => rules.replace(/ -m time --datestop \S+| meta time "[^"]*"-"[^"]*"/g, '')

/** Everything the kernel holds of rules and routes in a place, as text; without counters and times, which go on by themselves. */
export async function snapshot(lab: Lab, place: Place = 'router'): Promise<string> {
  const commands = [
    ['nft', '--stateless', 'list', 'ruleset'],
    ...['-4', '-6'].flatMap((family) => [['ip', family, 'rule'], ['ip', family, 'route', 'show', 'table', 'all']]),
  ]
  const parts = []
  for (const argv of commands) parts.push(`# ${argv.join(' ')}\n${(await lab.exec(place, argv)).stdout}`)
  // Old iptables: asking makes its tables, so only where they are; an empty one stays registered in a namespace for good.
  const legacy = await lab.exec(place, ['sh', '-c', 'for f in ip ip6; do if grep -qs . /proc/net/${f}_tables_names; then ${f}tables-legacy-save; fi; done'])
  parts.push(legacy.stdout.split('\n').filter((line) => line.includes('SLUICE') || line.startsWith('-A')).join('\n'))
  return withoutLease(parts.join('\n'))
}

/** Names of the programs running in a place's network namespace. */
export function programsIn(lab: Lab, place: Place = 'router'): string[] {
  const pids = execFileSync('ip', ['netns', 'pids', lab.names[place]], { encoding: 'utf8' }).split('\n').filter((line) => line !== '')
  return pids.flatMap((pid) => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').filter((word) => word !== '')
      return words.length === 0 ? [] : [words.join(' ')]
    } catch {
      return []
    }
  })
}

/** Processes of the gate: pid by role, as /proc shows them in the router. Of a parent and its child that match (relay and witness) the parent, whose number need not be the lower one. */
export function findProcess(lab: Lab, matches: (commandLine: string) => boolean, place: Place = 'router'): number {
  const pids = execFileSync('ip', ['netns', 'pids', lab.names[place]], { encoding: 'utf8' }).split('\n').filter((line) => line !== '')
  const found = pids.filter((pid) => {
    try {
      return matches(readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim())
    } catch {
      return false
    }
  })
  const first = found.find((pid) => !found.includes(parentOf(pid)))
  if (first === undefined) throw new Error(`no such process; there are: ${programsIn(lab, place).join(' | ')}`)
  return Number(first)
}
function parentOf(pid: string): string {
  try {
    return /^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? ''
  } catch {
    return ''
  }
}

/** Rules, routes and processes as before, within seconds. */
export async function expectClean(lab: Lab, before: string, ownPrograms: readonly string[] = []): Promise<void> {
  await expect.poll(() => snapshot(lab), { timeout: 15_000, interval: 200 }).toBe(before)
  await expect.poll(() => programsIn(lab).filter((line) => !ownPrograms.some((own) => line.includes(own))), { timeout: 15_000, interval: 200 }).toEqual([])
  expect(runFilesOf(lab)).toEqual([])
}

/** What lies in the run folder for the router's namespace. */
export function runFilesOf(lab: Lab): string[] {
  const inode = namespaceInode(lab)
  return existsSync('/run/sluice') ? readdirSync('/run/sluice').filter((name) => name.startsWith(`${inode}.`)) : []
}
export function namespaceInode(lab: Lab, place: Place = 'router'): string {
  const link = execFileSync('nsenter', [`--net=${lab.paths[place]}`, 'readlink', '/proc/self/ns/net'], { encoding: 'utf8' })
  return /\[(\d+)\]/.exec(link)?.[1] ?? readlinkSync('/proc/self/ns/net')
}

export interface Answer {
  readonly ok: boolean
  readonly server?: string
  readonly seenAddress?: string
  readonly seenPort?: number
  readonly localPort?: number
  readonly error?: string
}
/** One exchange; `relayed` says whether the server saw another port than the client used, or another address (where that is the router's, its port may by chance be the client's). */
export async function ask(lab: Lab, from: Place, family: 'ipv4' | 'ipv6', port: number, timeout = 10_000): Promise<Answer & { readonly relayed: boolean }> {
  const peer = lab.peer(from, 'ask', labAddresses[family].server, String(port), '--timeout', String(timeout))
  await peer.ended
  const answer = JSON.parse(peer.output().trim()) as Answer
  const isOther = answer.seenPort !== answer.localPort || (from === 'client' && answer.seenAddress !== labAddresses[family].client)
  return { ...answer, relayed: answer.ok && isOther }
}

/** The network works and nothing stands between: within seconds. */
export async function expectDirect(lab: Lab, port = 8080, within = 15_000): Promise<void> {
  for (const family of ['ipv4', 'ipv6'] as const) {
    for (const from of ['client', 'router'] as const) {
      await expect.poll(() => ask(lab, from, family, port, 1000), { timeout: within, interval: 100 }).toMatchObject({ ok: true, relayed: false })
    }
  }
}
