import { readFileSync, readlinkSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'

import type { DoctorRow } from '#core/contract/bridge.ts'
import { chainPrefix, defaultMarks, nftTable, routeProtocol } from '#core/rules/names.ts'
import { ask } from './doctorFacts.ts'
import type { Check } from './doctorFacts.ts'
import { findInputFirewalls } from './inputFirewalls.ts'
import { listManagers } from './managers.ts'
import { listPorts } from './ports.ts'

const asRoot = 'sudo sluice doctor'

/** Whether the helper that wrote this network namespace's journal is alive; for others than root, whether any helper is. */
async function livingHelper(isRoot: boolean): Promise<boolean> {
  if (isRoot) {
    try {
      const namespace = /\[(\d+)\]/.exec(readlinkSync('/proc/self/ns/net'))?.[1] ?? ''
      const journal = JSON.parse(readFileSync(`/run/sluice/${namespace}.json`, 'utf8')) as { helper?: { pid?: unknown; start?: unknown } }
      const stat = readFileSync(`/proc/${Number(journal.helper?.pid)}/stat`, 'latin1')
      // Field 22 of proc(5), counted behind the name, which may hold anything.
      return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] === journal.helper?.start
    } catch {
      return false
    }
  }
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const words = (await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '')).split('\0')
    if (words.some((word) => word.endsWith('/helper.mjs')) && !words.includes('--guard')) return true
  }
  return false
}

/** Rules, routes and ip rules that bear our name while no gate is open. */
export const checkLeftovers: Check = async ({ isRoot, ruleset, legacy }) => {
  const left: string[] = []
  if (ruleset !== undefined && new RegExp(`^table inet ${nftTable} `, 'm').test(ruleset)) left.push(`table inet ${nftTable}`)
  if (allRules(ruleset, legacy).includes(chainPrefix)) left.push(`chains ${chainPrefix}*`)
  for (const family of ['-4', '-6']) {
    const rules = (await ask('ip', [family, 'rule', 'show'])) ?? ''
    const routes = (await ask('ip', [family, 'route', 'show', 'table', 'all', 'protocol', String(routeProtocol)])) ?? ''
    if (new RegExp(`proto(?:col)? ${routeProtocol}\\b`).test(rules)) left.push(`ip ${family} rules`)
    if (routes.trim() !== '') left.push(`ip ${family} routes`)
  }
  const row = { id: 'leftovers', title: 'Left behind' }
  if (left.length === 0) return [{ ...row, verdict: 'ok', fact: isRoot ? 'nothing of Sluice\'s is on this machine' : 'no route or ip rule of Sluice\'s (nft and iptables rules may be read by root alone)' }]
  if (await livingHelper(isRoot)) return [{ ...row, verdict: 'ok', fact: `a gate is open now: ${left.join(', ')}` }]
  return [{ ...row, verdict: 'warn', fact: `of a Sluice that was killed: ${left.join(', ')}`, mend: 'sudo sluice cleanup' }]
}

/** Diverted forwarded packets pass INPUT with their foreign destination; a drop there needs an accept for our mark in the same firewall. */
export const checkFirewall: Check = ({ isRoot, ruleset, legacy }) => {
  const row = { id: 'firewall', title: 'Firewall' }
  if (!isRoot) return [{ ...row, verdict: 'warn', fact: 'whether a firewall drops what comes in may be read by root alone', mend: asRoot }]
  const firewalls = findInputFirewalls(ruleset ?? '', legacy ?? { ipv4: '', ipv6: '' }, defaultMarks.forwarded)
  if (firewalls.length === 0) return [{ ...row, verdict: 'ok', fact: 'no chain drops what comes in' }]
  const named = (some: typeof firewalls): string => some.map(({ chain }) => chain).join(', ')
  const closed = firewalls.filter(({ letsPass }) => !letsPass)
  if (closed.length === 0) return [{ ...row, verdict: 'ok', fact: `${named(firewalls)} drops what comes in, and lets Sluice's mark pass` }]
  return [{ ...row, verdict: 'warn', fact: `${named(closed)} drops what comes in: forwarded UDP, and forwarded flows that somebody translates, would not reach the relay (local ones do)`, mend: closed.map(({ mend }) => mend).join(' and ') }]
}

function allRules(ruleset: string | undefined, legacy: { readonly ipv4: string; readonly ipv6: string } | undefined): string {
  return [ruleset, legacy?.ipv4, legacy?.ipv6].join('\n')
}

/** Programs that change rules and routes by themselves. */
export const checkManagers: Check = () => {
  const names = listManagers()
  const row = { id: 'managers', title: 'Managers of rules', verdict: 'ok' } as const
  return [{ ...row, fact: names.length === 0 ? 'none of those that are known runs here' : `${names.join(', ')}: what it takes away of Sluice's while the gate is open is put back, and said` }]
}

/** A ruleset without our own table. */
function outside(ruleset: string): string {
  return ruleset.replace(new RegExp(`^table inet ${nftTable} \\{[\\s\\S]*?^\\}`, 'm'), '')
}

const proxyNames = new Set(['mitmproxy', 'mitmdump', 'mitmweb', 'squid', 'haproxy', 'sing-box', 'clash', 'mihomo', 'v2ray', 'xray', 'redsocks', 'sshuttle', 'privoxy', 'tinyproxy', 'opensnitchd', 'portmaster-core', 'hev-socks5-tproxy', 'envoy'])

/** Others that take connections out of the way. */
export const checkForeignProxies: Check = async ({ isRoot, ruleset, legacy }) => {
  const rows: DoctorRow[] = []
  const listeners = (await listPorts()).filter((row) => row.kind === 'listening' && row.program !== undefined && proxyNames.has(row.program))
  const names = [...new Set(listeners.map((row) => `${row.program ?? ''} on ${row.port}`))]
  const foreign = allRules(outside(ruleset ?? ''), legacy).split('\n').filter((line) => /\btproxy (ip6? )?to |-j TPROXY /.test(line) && !line.includes(chainPrefix))
  if (foreign.length > 0) rows.push({ id: 'tproxy', title: 'Other transparent rules', verdict: 'warn', fact: `${foreign.length === 1 ? 'a rule of somebody else\'s takes' : `${foreign.length} rules of others take`} connections, too: ${(foreign[0] as string).trim().slice(0, 160)}`, mend: 'stop that program, or leave its ports out' })
  rows.push({ id: 'proxies', title: 'Other proxies', verdict: 'ok', fact: names.length === 0 ? `none seen${isRoot ? '' : ' among your programs'}` : `${names.join(', ')}: flows to and from it are intercepted like any program's` })
  return rows
}
