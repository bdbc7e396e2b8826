import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'

import { Failure } from '#core/contract/failure.ts'
import { defaultMarks, defaultTable, routeProtocol } from '#core/rules/names.ts'
import { lookAtBridges } from './bridges.ts'
import { checkConflicts } from './conflicts.ts'
import { ask, readText } from './doctorFacts.ts'
import type { Check } from './doctorFacts.ts'

/** As `ip -j rule` prints it. */
interface IpRule {
  readonly priority?: number
  readonly fwmark?: string
  readonly fwmask?: string
  readonly table?: string
  readonly protocol?: string
}

function parseRules(text: string | undefined): IpRule[] {
  try {
    const rules: unknown = JSON.parse(text ?? '[]')
    return Array.isArray(rules) ? (rules as IpRule[]) : []
  } catch {
    return []
  }
}
const isOurs = (rule: IpRule): boolean => rule.table === String(defaultTable) || rule.protocol === String(routeProtocol)

/** Rules of others that look at bits of ours, or would be asked before ours. */
export const checkPolicyRules: Check = async () => {
  const ours = (defaultMarks.forwarded | defaultMarks.local | defaultMarks.uplink) >>> 0
  const [four, six] = await Promise.all([ask('ip', ['-j', '-4', 'rule', 'show']), ask('ip', ['-j', '-6', 'rule', 'show'])])
  const row = { id: 'ip-rules', title: 'Policy routing' }
  if (four === undefined) return [{ ...row, verdict: 'fail', fact: 'the ip tool is missing or fails', mend: 'sudo apt install iproute2' }]
  const others = [...parseRules(four), ...parseRules(six)].filter((rule) => !isOurs(rule))
  const say = (rule: IpRule): string => `${rule.priority ?? 0}: fwmark ${rule.fwmark ?? '0'}/${rule.fwmask ?? '0xffffffff'} lookup ${rule.table ?? '?'}`
  const overlapping = others.filter((rule) => rule.fwmark !== undefined && (Number(rule.fwmask ?? '0xffffffff') & ours) !== 0)
  const ahead = others.filter((rule) => (rule.priority ?? 0) === 0 && rule.table !== 'local')
  try {
    await checkConflicts({ marks: defaultMarks, table: defaultTable })
  } catch (error) {
    // As opening would.
    if (!(error instanceof Failure)) throw error
    const [fact = '', free] = error.message.split(/; free (?:here are|is) /)
    return [{ ...row, verdict: 'fail', fact, mend: free === undefined ? 'take that rule or route away while the gate is open' : `sluice capture ${free}, or take that rule or route away while the gate is open` }]
  }
  if (ahead.length > 0) return [{ ...row, verdict: 'warn', fact: `a rule at preference 0 is asked before Sluice's: ${ahead.slice(0, 3).map(say).join('; ')}`, mend: 'give that rule a preference above 0' }]
  if (overlapping.length > 0) return [{ ...row, verdict: 'ok', fact: `rules with whole marks (${overlapping.slice(0, 3).map(say).join('; ')}) do not meet flows of Sluice's` }]
  return [{ ...row, verdict: 'ok', fact: 'no ip rule collides with Sluice\'s marks' }]
}

export const checkSourceMark: Check = async () => {
  const root = '/proc/sys/net/ipv4/conf'
  const set: string[] = []
  for (const name of await readdir(root).catch(() => [])) if ((await readText(`${root}/${name}/src_valid_mark`)) === '1') set.push(name)
  return [{
    id: 'src-valid-mark', title: 'Source checks', verdict: 'ok',
    fact: set.length === 0 ? 'src_valid_mark is off' : `src_valid_mark is on (${set.slice(0, 4).join(', ')}), as WireGuard and Tailscale set it; Sluice's ip rules are made for that`,
  }]
}

/** A SYN that waited is put on lo once more; strict checks there know better (core/rules/compileRules.ts, `holdScopes`). */
export const checkReversePath: Check = async ({ facts }) => {
  const row = { id: 'rp-filter', title: 'Reverse path' }
  if (facts.lenientLo === true) return [{ ...row, verdict: 'ok', fact: 'lo lets in what the relay sends again: forwarded connections wait for their server' }]
  const values = await Promise.all(['all', 'lo'].flatMap((name) => ['rp_filter', 'src_valid_mark'].map(async (what) => [`${name}.${what}`, (await readText(`/proc/sys/net/ipv4/conf/${name}/${what}`)) ?? '?'] as const)))
  const set = values.filter(([name, value]) => value !== '0' && !(name.endsWith('rp_filter') && value === '2'))
  return [{
    ...row, verdict: 'warn',
    fact: `${set.map(([name, value]) => `net.ipv4.conf.${name} is ${value}`).join(', ')}: forwarded connections are accepted before their server has answered, so closed ports look open for a moment`,
    mend: `sudo sysctl ${set.map(([name]) => `net.ipv4.conf.${name}=${name.endsWith('rp_filter') ? '2' : '0'}`).join(' ')}, if nothing else here needs it (WireGuard and Tailscale may)`,
  }]
}

export const checkBridges: Check = async () => {
  const { fact, mend } = await lookAtBridges()
  return [{ id: 'bridges', title: 'Bridges', fact, ...(mend === undefined ? { verdict: 'ok' } : { verdict: 'warn', mend }) }]
}

/** systemd-networkd removes rules and routes it does not know when it (re)starts. */
export const checkNetworkd: Check = async () => {
  const row = { id: 'networkd', title: 'systemd-networkd' }
  if (!existsSync('/run/systemd/netif/links')) return [{ ...row, verdict: 'ok', fact: 'does not run' }]
  const folders = ['/etc/systemd/networkd.conf.d', '/run/systemd/networkd.conf.d', '/usr/lib/systemd/networkd.conf.d']
  const files = ['/etc/systemd/networkd.conf']
  for (const folder of folders) for (const name of await readdir(folder).catch(() => [])) if (name.endsWith('.conf')) files.push(`${folder}/${name}`)
  const text = (await Promise.all(files.map(readText))).join('\n')
  const leaves = /^\s*ManageForeignRoutingPolicyRules\s*=\s*(no|false|0|off)\s*$/im.test(text)
  if (leaves) return [{ ...row, verdict: 'ok', fact: 'runs, and leaves rules of others alone' }]
  return [{ ...row, verdict: 'warn', fact: 'runs, and takes ip rules of others away when it restarts: an open gate would then take no flows', mend: `printf '[Network]\\nManageForeignRoutingPolicyRules=no\\n' | sudo tee /etc/systemd/networkd.conf.d/sluice.conf, then sudo systemctl restart systemd-networkd` }]
}

export const checkForwarding: Check = async () => {
  const four = (await readText('/proc/sys/net/ipv4/ip_forward')) === '1'
  const six = (await readText('/proc/sys/net/ipv6/conf/all/forwarding')) === '1'
  const row = { id: 'forwarding', title: 'Routing', verdict: 'ok' } as const
  if (four || six) return [{ ...row, fact: `this computer routes ${[four ? 'IPv4' : '', six ? 'IPv6' : ''].filter((each) => each !== '').join(' and ')} for others: their flows can be seen` }]
  return [{ ...row, fact: 'this computer routes for nobody: its own programs can be seen' }]
}
