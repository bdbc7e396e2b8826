import { readdir, readFile, readlink } from 'node:fs/promises'
import { networkInterfaces } from 'node:os'

import type { Suggestion, Suggestions } from '#core/contract/bridge.ts'
import { parseCidr } from '#core/plan/parseCidr.ts'
import { parseAccounts, type Account } from './accounts.ts'
import { listCgroups } from './cgroups.ts'
import { listInterfaces } from './interfaces.ts'

/** Of each kind; a list a person chooses from. */
const most = 1000
/** Milliseconds the look at processes may take. */
const patience = 400

/**
 * What this machine has that a choice can name, for lists to choose from. What cannot be listed is left out: every field takes what is typed as well.
 * Never rejects.
 */
export async function listSuggestions(): Promise<Suggestions> {
  const [passwd, group, cgroups, interfaces, namespaces] = await Promise.all([
    readFile('/etc/passwd', 'utf8').catch(() => ''),
    readFile('/etc/group', 'utf8').catch(() => ''),
    listCgroups().catch(() => undefined),
    listInterfaces().catch(() => []),
    listNamespaces().catch(() => []),
  ])
  const { users, groups } = accountSuggestions(parseAccounts(passwd), parseAccounts(group))
  return {
    users: users.slice(0, most),
    groups: groups.slice(0, most),
    programs: programSuggestions(cgroups?.paths ?? []).slice(0, most),
    interfaces: interfaces.filter((name) => name !== 'lo').map((word) => ({ word, hint: addressesOf(word) })),
    networks: networkSuggestions().slice(0, most),
    namespaces: namespaces.slice(0, most),
  }
}

/** People first, then what services run as. */
function accountSuggestions(users: readonly Account[], groups: readonly Account[]): Pick<Suggestions, 'users' | 'groups'> {
  const isPerson = ({ id }: Account): boolean => id >= 1000 && id < 65_000
  const list = (accounts: readonly Account[], what: string): Suggestion[] =>
    [...accounts].sort((a, b) => Number(isPerson(b)) - Number(isPerson(a)) || a.id - b.id).map(({ name, id }) => ({ word: name, hint: `${what} ${id}` }))
  return { users: list(users, 'uid'), groups: list(groups, 'gid') }
}

/** Cgroups as words of the field: units by name, containers by theirs or by the twelve digits their tools show, outermost first. */
export function programSuggestions(paths: readonly string[]): Suggestion[] {
  const found = new Map<string, Suggestion>()
  for (const path of paths) {
    const last = path.split('/').at(-1) ?? ''
    const container = /^(?:docker|libpod|crio|cri-containerd)-([0-9a-f]{12})[0-9a-f]{52}\.scope$|^([0-9a-f]{12})[0-9a-f]{52}$/.exec(last)
    const named = /^lxc\.payload\.(.+)$|^machine-(.+)\.scope$|^systemd-nspawn@(.+)\.service$/.exec(last)
    const name = container?.[1] ?? container?.[2] ?? named?.[1] ?? named?.[2] ?? named?.[3]
    if (name !== undefined && /^[A-Za-z0-9_.:@-]+$/.test(name)) found.set(`container:${name}`, { word: `container:${name}`, hint: 'container' })
    else if (/^[A-Za-z0-9_.:@\\-]+\.(?:service|scope|slice)$/.test(last) && !found.has(last)) found.set(last, { word: last, hint: path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : 'unit' })
  }
  const rank = ({ word }: Suggestion): number => ['container:', '.service', '.scope', '.slice'].findIndex((part) => word.includes(part))
  return [...found.values()].sort((a, b) => rank(a) - rank(b) || a.word.localeCompare(b.word))
}

/** The networks of the interfaces' addresses; loopback and link-local ones are no choice. */
function networkSuggestions(): Suggestion[] {
  const found = new Map<string, Suggestion>()
  for (const [name, addresses = []] of Object.entries(networkInterfaces())) {
    for (const { cidr, internal, family, address } of addresses) {
      if (internal || cidr === null || (family === 'IPv6' && /^fe[89ab]/i.test(address))) continue
      const { text } = parseCidr(cidr.replace(/%.*\//, '/'))
      found.set(text, { word: text, hint: `network of ${name}` })
    }
  }
  return [...found.values()]
}

function addressesOf(name: string): string {
  return (networkInterfaces()[name] ?? []).filter(({ address }) => !/^fe[89ab]/i.test(address)).map(({ address }) => address).slice(0, 2).join(', ')
}

/** Those `ip netns` names, then one process of each other namespace that may be looked at. */
async function listNamespaces(): Promise<Suggestion[]> {
  const named = (await readdir('/run/netns').catch(() => [])).filter((name) => /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$/.test(name)).sort().map((word) => ({ word, hint: 'named namespace' }))
  const own = await readlink('/proc/self/ns/net').catch(() => '')
  const seen = new Set([own])
  const processes: Suggestion[] = []
  const end = performance.now() + patience
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number).sort((a, b) => a - b)) {
    if (performance.now() > end || processes.length >= most) break
    const namespace = await readlink(`/proc/${pid}/ns/net`).catch(() => undefined)
    if (namespace === undefined || seen.has(namespace)) continue
    seen.add(namespace)
    const name = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim()
    processes.push({ word: String(pid), hint: name === '' ? 'process' : `process ${name}` })
  }
  return [...named, ...processes]
}
