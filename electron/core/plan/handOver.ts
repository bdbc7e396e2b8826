import * as v from 'valibot'

import { Failure } from '../contract/failure.ts'
import { formatPorts } from './formatPorts.ts'
import { mergePorts } from './mergePorts.ts'
import { parseCidr } from './parseCidr.ts'
import { parsePorts } from './parsePorts.ts'
import { portRange } from './portRange.ts'
import type { PortRange } from './portRange.ts'
import { commonPorts, withoutPorts } from './portSets.ts'

/**
 * A proxy a person already runs. `proxy-v2`: HAProxy's PROXY protocol, version 2. `socks5`: RFC 1928 without authentication. `tproxy`: one of this machine that takes
 * connections as they are, client's address and server's own (Squid's `http_port … tproxy`, HAProxy's `bind … transparent`), listening on loopback or every address.
 */
export type ProxyTarget =
  | { readonly kind: 'proxy-v2' | 'socks5'; readonly address: string; readonly port: number }
  | { readonly kind: 'proxy-v2'; readonly path: string }
  | { readonly kind: 'tproxy'; readonly port: number }

/** TCP flows to these ports go to a proxy instead of to their server. */
export interface HandOver {
  readonly ports: readonly PortRange[]
  readonly to: ProxyTarget
}

/** Longest path of a unix socket, in bytes: sun_path without its end, unix(7). */
const longestPath = 107

/** Together. */
const mostRanges = 4096

const port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535))
/** Shape only; meaning is `parseHandOvers`'s. */
export const handOverShape = v.strictObject({
  ports: v.pipe(v.array(portRange), v.minLength(1), v.maxLength(1024)),
  to: v.union([
    v.strictObject({ kind: v.picklist(['proxy-v2', 'socks5']), address: v.pipe(v.string(), v.maxLength(64)), port }),
    v.strictObject({ kind: v.literal('proxy-v2'), path: v.pipe(v.string(), v.maxLength(longestPath)) }),
    v.strictObject({ kind: v.literal('tproxy'), port }),
  ]),
})

/**
 * Canonical: ports merged, addresses in one form, sorted by port.
 * @throws Failure `bad-plan`: a port sent to two proxies, an address or a path that is none. `bad-ports`: a range that runs backwards.
 */
export function parseHandOvers(wishes: readonly HandOver[]): HandOver[] {
  const parsed = wishes.map(({ ports, to }) => ({ ports: canonicalPorts(ports), to: parseTarget(to) }))
  parsed.sort((a, b) => (a.ports[0]?.from ?? 0) - (b.ports[0]?.from ?? 0))
  const all = parsed.flatMap(({ ports }) => ports).sort((a, b) => a.from - b.from)
  for (const [index, { from }] of all.entries()) {
    if (index > 0 && from <= (all[index - 1]?.to ?? 0)) throw new Failure('bad-plan', `Port ${from} is sent to two proxies`)
  }
  if (all.length > mostRanges) throw new Failure('bad-plan', `At most ${mostRanges} ranges of ports can be sent to proxies`)
  return parsed
}

/** What is left of them without these ports. */
export function withoutHandOvers(handOvers: readonly HandOver[], cut: readonly PortRange[]): HandOver[] {
  return handOvers.map(({ ports, to }) => ({ ports: withoutPorts(ports, cut), to })).filter(({ ports }) => ports.length > 0)
}

/**
 * What holds while rules for others come into force: all of the new ones but proxies in TPROXY mode, which only those rules reach; their ports go where they went.
 * Told first, and `after` when the rules are there, no flow meets a proxy without its rules or rules without their proxy.
 */
export function handOversBetween(before: readonly HandOver[], after: readonly HandOver[]): HandOver[] {
  const late = after.filter(({ to }) => to.kind === 'tproxy').flatMap(({ ports }) => ports)
  const kept = before.map(({ ports, to }) => ({ ports: commonPorts(ports, late), to })).filter(({ ports }) => ports.length > 0)
  return parseHandOvers([...after.filter(({ to }) => to.kind !== 'tproxy'), ...kept])
}

function canonicalPorts(ranges: readonly PortRange[]): PortRange[] {
  for (const { from, to } of ranges) if (from > to) throw new Failure('bad-ports', `"${from}-${to}" runs backwards: write ${to}-${from}`)
  return mergePorts(ranges)
}

function parseTarget(to: ProxyTarget): ProxyTarget {
  if (to.kind === 'tproxy') return { kind: to.kind, port: to.port }
  if ('path' in to) {
    if (!to.path.startsWith('/') || /[\0-\x1f\x7f]/.test(to.path)) throw new Failure('bad-plan', `A proxy's socket needs an absolute path, not ${JSON.stringify(to.path)}`)
    if (byteLength(to.path) > longestPath) throw new Failure('bad-plan', `The path of a socket is at most ${longestPath} bytes long`)
    return { kind: to.kind, path: to.path }
  }
  if (to.address.includes('/')) throw new Failure('bad-plan', `${JSON.stringify(to.address)} is no address of a proxy`)
  return { kind: to.kind, address: addressOf(to.address), port: to.port }
}

function addressOf(text: string): string {
  try {
    return parseCidr(text).text.replace(/\/.*$/, '')
  } catch {
    throw new Failure('bad-plan', `${JSON.stringify(text.slice(0, 64))} is no address of a proxy: write for example 127.0.0.1 or [::1]`)
  }
}

function isPort(number: number): boolean {
  return number >= 1 && number <= 65_535
}

/** In UTF-8; a lone surrogate becomes a replacement of three bytes. */
function byteLength(text: string): number {
  let length = 0
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0
    length += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x1_0000 ? 3 : 4
  }
  return length
}

/**
 * `80,8080=proxy2:127.0.0.1:8888`, `1080-1090=socks5:[::1]:1080`, `443=proxy2:/run/x.sock`, `80=tproxy:3129`.
 * @throws Failure `bad-plan` or `bad-ports`, one line that says what is wrong.
 */
export function parseHandOver(text: string): HandOver {
  const shown = JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
  const [, ports, kind, where = ''] = /^([^=]*)=([a-z0-9-]+):(.*)$/.exec(text) ?? []
  if (ports === undefined) throw new Failure('bad-plan', `${shown} sends nothing anywhere: write for example 80,8080=proxy2:127.0.0.1:8888`)
  if (kind !== 'proxy2' && kind !== 'socks5' && kind !== 'tproxy') throw new Failure('bad-plan', `${shown}: a proxy is spoken to by proxy2 or socks5, or takes connections as they are by tproxy`)
  const ranges = parsePorts(ports)
  if (kind === 'tproxy') {
    if (!/^[0-9]{1,5}$/.test(where) || !isPort(Number(where))) throw new Failure('bad-plan', `${shown}: a proxy in TPROXY mode is of this machine and told by its port alone, for example 3129`)
    return { ports: ranges, to: { kind, port: Number(where) } }
  }
  if (where.startsWith('/')) {
    if (kind === 'socks5') throw new Failure('bad-plan', `${shown}: a SOCKS server is reached by address and port`)
    return { ports: ranges, to: parseTarget({ kind: 'proxy-v2', path: where }) }
  }
  const [, six, four, number] = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})$/.exec(where) ?? []
  const address = six ?? four
  if (address === undefined || !isPort(Number(number))) throw new Failure('bad-plan', `${shown}: write the proxy as 127.0.0.1:8888, [::1]:8888 or the path of its socket`)
  return { ports: ranges, to: parseTarget({ kind: kind === 'proxy2' ? 'proxy-v2' : 'socks5', address, port: Number(number) }) }
}

/** The inverse of `parseHandOver` for canonical ones. */
export function formatHandOver({ ports, to }: HandOver): string {
  return `${formatPorts(ports)}=${formatTarget(to)}`
}
export function formatTarget(to: ProxyTarget): string {
  if (to.kind === 'tproxy') return `tproxy:${to.port}`
  const kind = to.kind === 'socks5' ? 'socks5' : 'proxy2'
  if ('path' in to) return `${kind}:${to.path}`
  return `${kind}:${to.address.includes(':') ? `[${to.address}]` : to.address}:${to.port}`
}
