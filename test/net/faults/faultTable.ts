import type { Backend } from '#core/plan/plan.ts'

/** What holds the rules. Kernels before 5.12 know no owned tables: there the guard alone takes an nft table back. */
export const columns = ['nft', 'nft without owned tables', 'iptables', 'iptables-legacy'] as const
export type Column = (typeof columns)[number]
/** `udp`: UDP is taken as well. `redirect`: the kernel has no TPROXY. `netns`: opened from another network namespace. */
export type GateKind = 'plain' | 'udp' | 'redirect' | 'netns'
/** When it happens: at a step that the helper announces, in a state, or (`changing`) amid a row of changes of an open gate. */
export type Moment = 'looking at this machine' | 'starting the guard' | 'starting the relay' | 'adding routes' | 'applying rules' | 'open' | 'changing' | 'draining' | 'closing'
/** `entrance`: the helper that stays outside while another one works in the namespace. */
export type Victim = 'app' | 'entrance' | 'helper' | 'guard' | 'relay' | 'witness' | 'holder' | 'watch'
export type Deed = 'SIGKILL' | 'SIGSTOP' | 'connection cut' | 'journal lost, then SIGKILL of the helper' | 'journal damaged, then SIGKILL of helper and guard' | 'disk full under the capture' | 'disk full under the journal' | 'disk full under the log' | Taken | 'a second gate'
export type Taken = 'table gone' | 'ip rules gone' | 'route gone'

export interface Fault {
  readonly column: Column
  readonly gate: GateKind
  readonly moment: Moment
  readonly deed: Deed
  readonly victim?: Victim
}

const moments: readonly Moment[] = ['looking at this machine', 'starting the guard', 'starting the relay', 'adding routes', 'applying rules', 'open', 'changing', 'draining', 'closing']
/** From which moment on there is such a process. */
const since: Readonly<Record<Victim, Moment>> = { app: 'looking at this machine', entrance: 'looking at this machine', helper: 'looking at this machine', guard: 'starting the relay', relay: 'adding routes', witness: 'adding routes', holder: 'open', watch: 'open' }

export function nameFault({ column, gate, moment, deed, victim }: Fault): string {
  return `${column}${gate === 'plain' ? '' : ` (${gate})`}, ${moment}: ${deed}${victim === undefined ? '' : ` of the ${victim}`}`
}
export function backendOf(column: Column): Backend {
  return column === 'nft without owned tables' ? 'nft' : column
}
export function isTaken(deed: Deed): deed is Taken {
  return deed.endsWith(' gone')
}

function victimsOf(column: Column): Victim[] {
  return ['app', 'helper', 'guard', 'relay', 'witness', ...(column === 'nft' ? (['holder'] as const) : []), 'watch']
}

/** Every process killed and frozen at every moment at which it is there, and what else can happen to a gate. */
export function listFaults(column: Column): Fault[] {
  const faults: Fault[] = []
  const add = (moment: Moment, deed: Deed, victim?: Victim): void => void faults.push({ column, gate: 'plain', moment, deed, ...(victim === undefined ? {} : { victim }) })
  for (const victim of victimsOf(column)) {
    // While closing, watch and holder are being ended anyway.
    for (const moment of moments.slice(moments.indexOf(since[victim]))) {
      if (moment === 'closing' && (victim === 'holder' || victim === 'watch')) continue
      for (const deed of ['SIGKILL', 'SIGSTOP'] as const) add(moment, deed, victim)
    }
  }
  for (const moment of moments) add(moment, 'connection cut')
  for (const moment of ['open', 'changing', 'draining'] as const) {
    add(moment, 'journal lost, then SIGKILL of the helper')
    add(moment, 'journal damaged, then SIGKILL of helper and guard')
    add(moment, 'ip rules gone')
    add(moment, 'route gone')
    // The kernel keeps an owned nft table from others; the tests of foreign changes show it.
    if (column !== 'nft') add(moment, 'table gone')
  }
  for (const deed of ['disk full under the capture', 'disk full under the journal', 'disk full under the log', 'a second gate'] as const) add('open', deed)
  add('looking at this machine', 'a second gate')
  return faults
}

/** Gates of other kinds: their processes killed and frozen where these gates differ, which is once there are rules. */
export function listKindFaults(column: Column): Fault[] {
  const faults: Fault[] = []
  for (const gate of ['udp', 'redirect', 'netns'] as const) {
    for (const victim of [...victimsOf(column), ...(gate === 'netns' ? (['entrance'] as const) : [])]) {
      for (const deed of ['SIGKILL', 'SIGSTOP'] as const) faults.push({ column, gate, moment: 'open', deed, victim })
    }
    for (const victim of ['helper', 'relay'] as const) for (const moment of ['applying rules', 'draining'] as const) faults.push({ column, gate, moment, deed: 'SIGKILL', victim })
    faults.push({ column, gate, moment: 'open', deed: 'connection cut' })
  }
  return faults
}

/** `count` of them, the same for the same seed (mulberry32). */
export function sampleFaults(faults: readonly Fault[], count: number, seed: number): Fault[] {
  const rest = [...faults]
  const chosen: Fault[] = []
  let state = seed
  const random = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
  while (chosen.length < count && rest.length > 0) chosen.push(...rest.splice(Math.floor(random() * rest.length), 1))
  return chosen
}
