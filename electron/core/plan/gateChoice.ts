import { toFailureReport, Failure } from '../contract/failure.ts'
import type { ChoiceField, GateChoice } from '../contract/bridge.ts'
import { parsePortWords } from './parsePortWords.ts'
import { flowChoice } from './flowChoice.ts'
import { parseHandOver } from './handOver.ts'
import { formatPorts } from './formatPorts.ts'
import { keepLimits, usualSessionBudget } from './keepLimits.ts'
import { makePlan, type PlanWish } from './makePlan.ts'
import { parseCidr } from './parseCidr.ts'
import { parseMarks, parsePriority, parseTable } from './parseMarks.ts'
import { parseCgroup, parseInterface } from './parseNames.ts'
import { parsePorts } from './parsePorts.ts'
import { scopes } from './plan.ts'
import type { InterceptionPlan, UdpIdle } from './plan.ts'

/** What a person meets at first: the web, everybody's. */
export const defaultChoice: GateChoice = {
  ports: '80, 443',
  refuse: '',
  udpIdle: { dns: '', quic: '', other: '' },
  send: [],
  scope: { local: true, forwarded: true, incoming: false },
  interfaces: '',
  users: '',
  groups: '',
  programs: '',
  sources: '',
  excludeSources: '',
  servers: '',
  exclude: '',
  netns: '',
  backend: 'auto',
  hold: true,
  keepPort: false,
  marks: '',
  table: '',
  priority: '',
  payload: true,
  keep: { session: usualSessionBudget, flow: '' },
  maxFlows: '',
}

/** Words of a field: separated by commas or white space. */
export function wordsOf(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== '')
}

/** A word of `programs`: a cgroup's path has a slash in it, a container is said to be one, everything else is a unit of systemd. */
export function programWord(word: string): { readonly kind: 'cgroup' | 'unit' | 'container'; readonly name: string } {
  if (word.includes('/')) return { kind: 'cgroup', name: word }
  return word.startsWith('container:') ? { kind: 'container', name: word.slice('container:'.length) } : { kind: 'unit', name: word }
}

/** Ids and paths behind the names of a choice, which only a look at the machine can tell. */
export interface ChosenNames {
  readonly users: readonly number[]
  readonly groups: readonly number[]
  readonly cgroups: readonly string[]
}

/** The plan a choice means. @throws Failure as `makePlan` does. */
export function planOfChoice(choice: GateChoice, names: ChosenNames): InterceptionPlan {
  const scope = scopes.filter((each) => choice.scope[each])
  if (scope.length === 0) throw new Failure('nothing-to-intercept', noScope)
  const { tcp, udp } = choice.ports.trim() === '' ? { tcp: [], udp: [] } : parsePortWords(choice.ports)
  const wish: PlanWish = {
    tcp: formatPorts(tcp),
    udp: formatPorts(udp),
    refuse: choice.refuse,
    udpIdle: idleOf(choice.udpIdle),
    hold: choice.hold,
    keepPort: choice.hold && choice.keepPort,
    send: choice.send.map(handOverText),
    scope,
    interfaces: wordsOf(choice.interfaces),
    sources: wordsOf(choice.sources),
    excludeSources: wordsOf(choice.excludeSources),
    servers: wordsOf(choice.servers),
    exclude: wordsOf(choice.exclude),
    backend: choice.backend,
    ...names,
    ...(choice.marks.trim() === '' ? {} : { marks: parseMarks(choice.marks) }),
    ...(choice.table.trim() === '' ? {} : { table: parseTable(choice.table.trim()) }),
    ...(choice.priority.trim() === '' ? {} : { priority: parsePriority(choice.priority) }),
  }
  return makePlan(wish)
}

const noScope = 'Choose whose traffic: this computer’s programs, routed devices, clients of its services'

/** One way to a proxy as `--send` takes it. */
export function handOverText({ ports, kind, to }: GateChoice['send'][number]): string {
  return `${ports.trim()}=${kind}:${to.trim()}`
}

function idleOf(chosen: GateChoice['udpIdle']): Partial<UdpIdle> {
  const idle: { -readonly [Kind in keyof UdpIdle]?: number } = {}
  for (const kind of ['dns', 'quic', 'other'] as const) {
    const text = chosen[kind].trim()
    if (text === '') continue
    if (!/^\d{1,5}$/.test(text) || Number(text) < 1 || Number(text) > 86_400) throw new Failure('bad-plan', `A flow of UDP is kept for 1 to 86400 seconds of silence, not ${JSON.stringify(text)}`)
    idle[kind] = Number(text)
  }
  return idle
}

export type ChoiceProblems = { readonly [Field in ChoiceField]?: string }

/** What is wrong with each field, as far as it can be said without looking at the machine. */
export function checkChoice(choice: GateChoice): ChoiceProblems {
  const problems: { [Field in ChoiceField]?: string } = {}
  const check = (field: ChoiceField, work: () => unknown): void => {
    try {
      work()
    } catch (error) {
      problems[field] ??= toFailureReport(error).message
    }
  }
  const sends = choice.send.length > 0
  // Ports that are refused, or go to a proxy, need not be named twice.
  if (choice.ports.trim() !== '' || (choice.refuse.trim() === '' && !sends)) check('ports', () => parsePortWords(choice.ports))
  if (choice.refuse.trim() !== '') check('refuse', () => parsePorts(choice.refuse))
  check('udpIdle', () => idleOf(choice.udpIdle))
  check('keep', () => keepLimits(choice.keep))
  check('maxFlows', () => flowChoice(choice.maxFlows))
  for (const way of choice.send) check('send', () => parseHandOver(handOverText(way)))
  // It quotes what the fields make together, which nobody has typed.
  if (problems.send !== undefined) problems.send = capital(problems.send.replace(/^"(?:[^"\\]|\\.)*…?"(?:: | )/, ''))
  if (!scopes.some((each) => choice.scope[each])) problems.scope = noScope
  for (const word of wordsOf(choice.interfaces)) check('interfaces', () => parseInterface(word))
  for (const field of ['sources', 'excludeSources', 'servers', 'exclude'] as const) for (const word of wordsOf(choice[field])) check(field, () => parseCidr(word))
  for (const word of wordsOf(choice.programs)) {
    const { kind, name } = programWord(word)
    if (kind === 'cgroup') check('programs', () => parseCgroup(name))
  }
  if (choice.netns.trim() !== '' && !/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$/.test(choice.netns.trim())) problems.netns = 'Name one network namespace, or the number of one process in it'
  if (choice.marks.trim() !== '') check('marks', () => parseMarks(choice.marks))
  if (choice.table.trim() !== '') check('table', () => parseTable(choice.table.trim()))
  if (choice.priority.trim() !== '') check('priority', () => makePlan({ tcp: '80', backend: choice.backend, priority: parsePriority(choice.priority) }))
  // What only shows when all is put together: a port that is sent to two proxies.
  if (Object.keys(problems).length === 0) check(sends ? 'send' : 'ports', () => planOfChoice(choice, { users: [], groups: [], cgroups: [] }))
  return problems
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

/** Equal texts mean the same choice, whatever the order and spacing of what was typed; undefined while it is wrong. `payload`, `keep` and `maxFlows` are left out: they are no part of a plan. */
export function choiceKey(choice: GateChoice): string | undefined {
  if (Object.keys(checkChoice(choice)).length > 0) return undefined
  const plan = planOfChoice(choice, { users: [], groups: [], cgroups: [] })
  const sorted = (text: string): string[] => [...new Set(wordsOf(text))].sort()
  return JSON.stringify([plan, sorted(choice.users), sorted(choice.groups), sorted(choice.programs), choice.netns.trim()])
}

