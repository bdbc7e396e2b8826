import { basename } from 'node:path'

import type { ControlRequest, ControlStatus } from '#core/contract/controlProtocol.ts'
import { Failure } from '#core/contract/failure.ts'
import { parsePlanEdit } from '#core/plan/editPlan.ts'
import type { PlanEdit } from '#core/plan/editPlan.ts'
import { formatPlanPorts } from '#core/plan/formatPlanPorts.ts'
import { formatPorts } from '#core/plan/formatPorts.ts'
import { parseCidr } from '#core/plan/parseCidr.ts'
import { parseHandOver } from '#core/plan/handOver.ts'
import { parsePorts } from '#core/plan/parsePorts.ts'
import { parsePortWords } from '#core/plan/parsePortWords.ts'
import { describeDifference } from '#core/plan/planDifference.ts'
import type { PortRange } from '#core/plan/portRange.ts'
import { askControl, findGate, findGates } from '#gate/askControl.ts'
import { changeEvent } from './captureView.ts'
import { cgroupsGone, nameEdits, nameShapes } from './changeNames.ts'
import type { Command } from './command.ts'
import { durationOf } from './durationOf.ts'
import { counted, formatBytes } from './format.ts'
import { parseOptions } from './parseOptions.ts'
import type { Options } from './parseOptions.ts'
import { idleOf, listed, scopesOf } from './planOptions.ts'
import { printable } from './printable.ts'
import { sessionPath } from './sessions.ts'

const shapes = {
  add: { type: 'string', multiple: true },
  remove: { type: 'string', multiple: true },
  'add-udp': { type: 'string', multiple: true },
  'remove-udp': { type: 'string', multiple: true },
  exclude: { type: 'string', multiple: true },
  include: { type: 'string', multiple: true },
  'exclude-source': { type: 'string', multiple: true },
  'include-source': { type: 'string', multiple: true },
  server: { type: 'string', multiple: true },
  'remove-server': { type: 'string', multiple: true },
  source: { type: 'string', multiple: true },
  'remove-source': { type: 'string', multiple: true },
  refuse: { type: 'string', multiple: true },
  carry: { type: 'string', multiple: true },
  'udp-idle': { type: 'string' },
  send: { type: 'string', multiple: true },
  direct: { type: 'string', multiple: true },
  scope: { type: 'string', multiple: true },
  ...nameShapes,
  hold: { type: 'boolean' },
  'no-hold': { type: 'boolean' },
  for: { type: 'string' },
  drain: { type: 'boolean' },
  resume: { type: 'boolean' },
  close: { type: 'boolean' },
  status: { type: 'boolean' },
  json: { type: 'boolean' },
} as const
type Given = Options<typeof shapes>

const acts = ['drain', 'resume', 'close', 'status'] as const
const edits = ['add', 'remove', 'add-udp', 'remove-udp', 'exclude', 'include', 'exclude-source', 'include-source', 'server', 'remove-server', 'source', 'remove-source', 'refuse', 'carry', 'udp-idle', 'send', 'direct', 'scope', 'hold', 'no-hold', ...(Object.keys(nameShapes) as (keyof typeof nameShapes)[])] as const

export const changeCommand: Command = {
  name: 'change',
  summary: 'changes a gate that is open, and cuts nothing',
  usage: `sluice change [SESSION] [--add PORTS] [--remove PORTS] [--add-udp PORTS] [--remove-udp PORTS]
              [--exclude CIDR] [--include CIDR] [--exclude-source CIDR] [--include-source CIDR]
              [--server CIDR] [--remove-server CIDR] [--source CIDR] [--remove-source CIDR]
              [--refuse PORTS] [--carry PORTS] [--udp-idle SECONDS] [--send PORTS=PROXY] [--direct PORTS]
              [--scope SCOPES] [--iface IF] [--remove-iface IF] [--user U] [--remove-user U] [--group G] [--remove-group G]
              [--cgroup PATH] [--remove-cgroup PATH] [--unit NAME] [--remove-unit NAME] [--container C] [--remove-container C]
              [--hold | --no-hold] [--for 10m] [--json]
sluice change [SESSION] --drain | --resume | --close | --status [--json]

Speaks with the sluice capture that records into SESSION; without, with the only one you have open. New flows are taken or left as the gate is then;
those that are relayed stay relayed to their end. Asks for no permission: whoever opened the gate had it.

  --add PORTS      takes these as well: 443,8000-8100 are TCP, 8443/udp is UDP
  --remove PORTS   takes no new flows to these
  --add-udp PORTS, --remove-udp PORTS  the same for UDP, without /udp
  --exclude CIDR   leaves these servers alone as well
  --include CIDR   leaves these servers alone no longer
  --exclude-source CIDR, --include-source CIDR  the same for clients
  --server CIDR    includes these servers as well; where every one was included, these alone
  --remove-server CIDR  includes these no longer
  --source CIDR, --remove-source CIDR  the same for clients
  --refuse PORTS   refuses these of UDP ("port unreachable")
  --carry PORTS    carries these of UDP that were refused
  --udp-idle SECONDS  how long a flow of UDP may be silent: 30, or dns=5,quic=120,other=60
  --send PORTS=PROXY  sends new flows to these to a proxy, as in sluice capture: 80=proxy2:127.0.0.1:8888, 443=socks5:[::1]:1080, 80=tproxy:3129
  --direct PORTS   sends new flows to these to their servers again
  --scope SCOPES   whose traffic from now on: local, forwarded, incoming, or several of them
  -i, --iface IF   forwarded and incoming flows that come in at this interface as well; where every one was included, this alone; '*' for every one again
  --remove-iface IF  at this one no longer
  --user U, --group G, --cgroup PATH, --unit NAME, --container C  the same for local flows, as in sluice capture; --cgroup '*' ends the choice of units and containers, too
  --remove-user U, --remove-group G, --remove-cgroup PATH, --remove-unit NAME, --remove-container C  these no longer
  --hold, --no-hold  whether TCP connections wait for their server
  --for DURATION   the ports that are added go again after that; without --add, the whole gate drains and closes then: 200ms, 30s, 5m, 2h, 1d
  --drain          takes no new flow; the gate closes when those it relays have ended
  --resume         takes new flows again while it drains
  --close          closes at once: relayed flows are reset
  --status         says how the gate stands (without SESSION: every gate)
  --json           one object: pid, session, phase, plan, backend, active, total, bytes, recording, ends, and what was added, removed and changed; --status one a line
Lists may be written with commas, or by giving the option again.`,
  async run(args, output) {
    const { values, positionals } = parseOptions(args, shapes)
    const [session, extra] = positionals
    if (extra !== undefined) throw new Failure('usage', `"${extra}" is one argument too many`)
    const request = requestOf(values)
    const folder = session === undefined ? undefined : sessionPath(session)
    const { names, containers } = await nameEdits(values)
    const show = async (status: ControlStatus): Promise<void> => {
      if (values.json === true) return output.json(jsonOf(status))
      if (status.difference !== undefined) {
        const parts = describeDifference(status.difference)
        await output.line(printable(parts.length === 0 ? 'Nothing to change.' : `${parts.join('; ')}.`))
      }
      for (const line of statusLines(status)) await output.line(printable(line))
    }
    if (request.type === 'status' && folder === undefined) {
      const gates = await findGates()
      for (const { status } of gates) await show(status)
      if (gates.length === 0 && values.json !== true) await output.line('No gate of yours is open.')
      return 0
    }
    const { path, status } = await findGate(folder)
    if (request.type !== 'edit') await show(await askControl(path, request))
    else {
      const gone = await cgroupsGone(values, status.plan?.cgroups ?? [])
      await show(await askControl(path, { ...request, containers, edit: { ...request.edit, ...names, cgroups: { ...names.cgroups, remove: [...names.cgroups.remove, ...gone] } } }))
    }
    return 0
  },
}

function requestOf(values: Given): ControlRequest {
  const wanted = acts.filter((act) => values[act] === true)
  const changes = edits.filter((name) => values[name] !== undefined)
  const [act, another] = wanted
  if (another !== undefined) throw new Failure('usage', `--${String(act)} and --${another} cannot both be done`)
  if (act !== undefined && (changes.length > 0 || values.for !== undefined)) throw new Failure('usage', `--${act} stands alone`)
  if (act !== undefined) return { type: act }
  const duration = values.for === undefined ? null : durationOf(values.for)
  if (changes.length === 0) {
    if (duration === null) throw new Failure('usage', 'nothing to change: say what with --add, --remove, --exclude, --for, --drain, … (sluice help change)')
    return { type: 'close-after', duration }
  }
  if (duration !== null && values.add === undefined && values['add-udp'] === undefined) throw new Failure('usage', '--for goes with ports that are added, or stands alone')
  if (values.hold === true && values['no-hold'] === true) throw new Failure('usage', '--hold and --no-hold cannot both be done')
  return { type: 'edit', edit: editOf(values), duration, containers: [] }
}

function editOf(values: Given): PlanEdit {
  const ports = (usual: 'add' | 'remove'): { tcp: PortRange[]; udp: PortRange[] } => {
    const both = (values[usual] ?? []).map((text) => parsePortWords(text))
    const udp = (values[`${usual}-udp`] ?? []).map((text) => parsePortWords(text, 'udp'))
    const all = [...both, ...udp]
    return { tcp: all.flatMap((each) => [...each.tcp]), udp: all.flatMap((each) => [...each.udp]) }
  }
  type List = { [Key in keyof typeof shapes]: (typeof shapes)[Key] extends { readonly multiple: true } ? Key : never }[keyof typeof shapes]
  const networks = (name: List): string[] => listed(values[name]).map((text) => parseCidr(text).text)
  const ranges = (name: List): PortRange[] => (values[name] ?? []).flatMap((text) => parsePorts(text))
  const hold = values.hold === true ? true : values['no-hold'] === true ? false : undefined
  const [add, remove] = [ports('add'), ports('remove')]
  return parsePlanEdit({
    tcp: { add: add.tcp, remove: remove.tcp },
    udp: { add: add.udp, remove: remove.udp },
    exclude: { add: networks('exclude'), remove: networks('include') },
    excludeSources: { add: networks('exclude-source'), remove: networks('include-source') },
    servers: { add: networks('server'), remove: networks('remove-server') },
    sources: { add: networks('source'), remove: networks('remove-source') },
    refuse: { add: ranges('refuse'), remove: ranges('carry') },
    send: { add: (values.send ?? []).map(parseHandOver), remove: ranges('direct') },
    ...(values['udp-idle'] === undefined ? {} : { udpIdle: idleOf(values['udp-idle']) }),
    ...(hold === undefined ? {} : { hold }),
    ...(values.scope === undefined ? {} : { scope: scopesOf(values.scope) }),
  })
}

function jsonOf({ difference, ...status }: ControlStatus): object {
  return { ...status, ...(difference === undefined ? {} : changeEvent(difference)) }
}

function statusLines({ session, phase, plan, backend, active, total, bytes, recording, ends }: ControlStatus): string[] {
  const left = (until: number): string => `${counted(Math.max(0, Math.round((until - Date.now()) / 1000)), 'second')} (at ${new Date(until).toLocaleTimeString('en-GB')})`
  const word = { closed: 'closed', opening: 'opening', open: 'open', draining: 'draining', closing: 'closing' }[phase]
  const on = plan === undefined || phase === 'closed' ? '' : ` on ${formatPlanPorts(plan)}${backend === undefined ? '' : ` by ${backend}`}`
  return [
    `${basename(session)}: ${word}${on}; ${counted(active, 'flow')} active of ${total}, ${formatBytes(bytes)}${recording === 'on' ? '' : `, recording ${recording}`}`,
    ...(ends?.ports ?? []).map(({ transport, ports, until }) => `  ${transport} ${formatPorts(ports)} goes in ${left(until)}`),
    ...(ends?.gate === undefined ? [] : [`  the gate drains in ${left(ends.gate)}`]),
  ]
}
