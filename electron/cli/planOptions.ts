import { Failure } from '#core/contract/failure.ts'
import { nearest } from '#core/filter/nearest.ts'
import { makePlan } from '#core/plan/makePlan.ts'
import { parseMarks, parsePriority, parseTable } from '#core/plan/parseMarks.ts'
import { scopes } from '#core/plan/plan.ts'
import type { BackendChoice, InterceptionPlan, Scope, UdpIdle } from '#core/plan/plan.ts'
import { findGroup, findUser } from '#probe/accounts.ts'
import type { ChosenContainer } from '#probe/containerWatch.ts'
import { findCgroup, findContainerCgroups, findUnitCgroups } from '#probe/findCgroup.ts'
import type { Options, OptionShapes } from './parseOptions.ts'

/** What `plan` and `capture` share. */
export const planShapes = {
  tcp: { type: 'string', multiple: true },
  udp: { type: 'string', multiple: true },
  refuse: { type: 'string', multiple: true },
  'udp-idle': { type: 'string' },
  send: { type: 'string', multiple: true },
  scope: { type: 'string', multiple: true },
  iface: { type: 'string', multiple: true, short: 'i' },
  source: { type: 'string', multiple: true },
  'exclude-source': { type: 'string', multiple: true },
  server: { type: 'string', multiple: true },
  user: { type: 'string', multiple: true },
  group: { type: 'string', multiple: true },
  cgroup: { type: 'string', multiple: true },
  unit: { type: 'string', multiple: true },
  container: { type: 'string', multiple: true },
  exclude: { type: 'string', multiple: true },
  'no-hold': { type: 'boolean' },
  'keep-port': { type: 'boolean' },
  backend: { type: 'string' },
  port: { type: 'string' },
  marks: { type: 'string' },
  table: { type: 'string' },
  priority: { type: 'string' },
} as const satisfies OptionShapes

const backends = ['auto', 'nft', 'iptables', 'iptables-legacy'] as const

/** Values of an option that may stand several times and hold lists: "a,b" and "-x a -x b" alike. */
export function listed(values: readonly string[] | undefined): string[] {
  return (values ?? []).flatMap((value) => value.split(',')).map((value) => value.trim()).filter((value) => value !== '')
}

function oneOf<const Choice extends string>(option: string, value: string, choices: readonly Choice[]): Choice {
  const found = choices.find((choice) => choice === value)
  if (found !== undefined) return found
  const close = nearest(value, choices)
  throw new Failure('usage', `--${option} takes ${choices.join(', ')}, not "${value}"${close === undefined ? '' : ` (did you mean ${close}?)`}`)
}

/** "30" for all kinds of UDP, or "dns=5,quic=120,other=60" with any of them left out. */
export function idleOf(text: string): Partial<UdpIdle> {
  const kinds = ['dns', 'quic', 'other'] as const
  const seconds = (word: string): number => {
    if (!/^\d{1,5}$/.test(word) || Number(word) < 1 || Number(word) > 86_400) throw new Failure('usage', `--udp-idle takes seconds from 1 to 86400, not "${word}"`)
    return Number(word)
  }
  if (!text.includes('=')) {
    const all = seconds(text)
    return { dns: all, quic: all, other: all }
  }
  const chosen: { -readonly [Kind in keyof UdpIdle]?: number } = {}
  for (const word of listed([text])) {
    const [kind = '', value = ''] = word.split('=', 2)
    chosen[oneOf('udp-idle', kind, kinds)] = seconds(value)
  }
  return chosen
}

/** At least one. Fails with `usage`. */
export function scopesOf(values: readonly string[]): Scope[] {
  const chosen = listed(values).map((each): Scope => oneOf('scope', each, scopes))
  if (chosen.length === 0) throw new Failure('usage', '--scope takes local, forwarded and incoming, one or more of them')
  return chosen
}

/** The plan the options ask for. Failures: `bad-…`, `nothing-to-intercept`, `usage`. `containers` is given what their names led to. */
export async function planOf(options: Options<typeof planShapes>, containersFound: ChosenContainer[] = []): Promise<InterceptionPlan> {
  if (options.tcp === undefined && options.udp === undefined && options.refuse === undefined && options.send === undefined) throw new Failure('nothing-to-intercept', 'no ports: say which with --tcp or --udp, for example --tcp 80,443')
  const [users, groups, cgroups, units, containers] = await Promise.all([
    Promise.all(listed(options.user).map(findUser)),
    Promise.all(listed(options.group).map(findGroup)),
    Promise.all(listed(options.cgroup).map(findCgroup)),
    Promise.all(listed(options.unit).map(findUnitCgroups)),
    Promise.all(listed(options.container).map(async (name) => ({ name, cgroups: await findContainerCgroups(name) }))),
  ])
  containersFound.push(...containers)
  const backend: BackendChoice = oneOf('backend', options.backend ?? 'auto', backends)
  if (options.port !== undefined && !(/^\d{1,5}$/.test(options.port) && Number(options.port) >= 1 && Number(options.port) <= 65_535)) throw new Failure('bad-ports', `--port takes the relay's first port, 1 to 65535, not "${options.port}"`)
  return makePlan({
    // Not joined from cleaned parts: the parser names what is wrong in what was typed.
    tcp: (options.tcp ?? []).join(','),
    udp: (options.udp ?? []).join(','),
    send: options.send ?? [],
    refuse: (options.refuse ?? []).join(','),
    ...(options['udp-idle'] === undefined ? {} : { udpIdle: idleOf(options['udp-idle']) }),
    ...(options.scope === undefined ? {} : { scope: scopesOf(options.scope) }),
    ...(options['no-hold'] === true ? { hold: false } : {}),
    ...(options['keep-port'] === true ? { keepPort: true } : {}),
    interfaces: listed(options.iface),
    sources: listed(options.source),
    excludeSources: listed(options['exclude-source']),
    servers: listed(options.server),
    users,
    groups,
    cgroups: [...cgroups, ...units.flat(), ...containers.flatMap((each) => each.cgroups)],
    exclude: listed(options.exclude),
    backend,
    ...(options.port === undefined ? {} : { relayPort: Number(options.port) }),
    ...(options.marks === undefined ? {} : { marks: parseMarks(options.marks) }),
    ...(options.table === undefined ? {} : { table: parseTable(options.table) }),
    ...(options.priority === undefined ? {} : { priority: parsePriority(options.priority) }),
  })
}
