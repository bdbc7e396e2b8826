import type { Backend } from '#core/plan/plan.ts'

/** When it happens: at a step that the helper announces, in a state, or (`changing`) amid a row of changes of an open gate. */
export type Moment = 'looking at this machine' | 'starting the guard' | 'starting the relay' | 'adding routes' | 'applying rules' | 'open' | 'changing' | 'draining' | 'closing'
export type Victim = 'app' | 'helper' | 'guard' | 'relay' | 'witness' | 'holder' | 'watch'
export type Deed = 'SIGKILL' | 'SIGSTOP' | 'connection cut' | 'journal lost, then SIGKILL of the helper' | 'journal damaged, then SIGKILL of helper and guard' | 'disk full under the capture' | 'disk full under the journal' | 'disk full under the log' | 'table gone' | 'ip rules gone' | 'route gone' | 'a second gate'

export interface Fault {
  readonly backend: Backend
  readonly moment: Moment
  readonly deed: Deed
  readonly victim?: Victim
}

const moments: readonly Moment[] = ['looking at this machine', 'starting the guard', 'starting the relay', 'adding routes', 'applying rules', 'open', 'changing', 'draining', 'closing']
/** From which moment on there is such a process. */
const since: Readonly<Record<Victim, Moment>> = { app: 'looking at this machine', helper: 'looking at this machine', guard: 'starting the relay', relay: 'adding routes', witness: 'adding routes', holder: 'open', watch: 'open' }

export function nameFault({ backend, moment, deed, victim }: Fault): string {
  return `${backend}, ${moment}: ${deed}${victim === undefined ? '' : ` of the ${victim}`}`
}

/** Every process killed and frozen at every moment at which it is there, and what else can happen to a gate. */
export function listFaults(backend: Backend): Fault[] {
  const victims: readonly Victim[] = backend === 'nft' ? ['app', 'helper', 'guard', 'relay', 'witness', 'holder', 'watch'] : ['app', 'helper', 'guard', 'relay', 'witness', 'watch']
  const faults: Fault[] = []
  for (const victim of victims) {
    // While closing, watch and holder are being ended anyway.
    for (const moment of moments.slice(moments.indexOf(since[victim]))) {
      if (moment === 'closing' && (victim === 'holder' || victim === 'watch')) continue
      for (const deed of ['SIGKILL', 'SIGSTOP'] as const) faults.push({ backend, moment, deed, victim })
    }
  }
  for (const moment of moments) faults.push({ backend, moment, deed: 'connection cut' })
  for (const moment of ['open', 'changing', 'draining'] as const) {
    faults.push({ backend, moment, deed: 'journal lost, then SIGKILL of the helper' }, { backend, moment, deed: 'journal damaged, then SIGKILL of helper and guard' })
    // The kernel keeps an owned nft table from others; the tests of foreign changes show it.
    faults.push({ backend, moment, deed: 'ip rules gone' }, { backend, moment, deed: 'route gone' }, ...(backend === 'nft' ? [] : [{ backend, moment, deed: 'table gone' } as const]))
  }
  for (const deed of ['disk full under the capture', 'disk full under the journal', 'disk full under the log', 'a second gate'] as const) faults.push({ backend, moment: 'open', deed })
  faults.push({ backend, moment: 'looking at this machine', deed: 'a second gate' })
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
