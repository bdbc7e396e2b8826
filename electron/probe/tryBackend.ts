import { execa } from 'execa'

import { defaultMarks, type Backend } from '#core/plan/plan.ts'
import type { ToolFacts } from '#core/rules/machineFacts.ts'
import { findTool, iptablesTools, toolEnvironment, type ToolName } from './tools.ts'

const timeLimit = 10_000

/** Each kind of expression the rules use, in a table nobody enters: loading it asks nft and the kernel alike. (A check with `nft -c` asks the parser alone on some versions.) */
const nftTrial = (owner: boolean): string => [
  `add table inet trial${owner ? ' { flags owner; }' : ''}`,
  'add set inet trial lease { type inet_proto; flags timeout; }',
  'add set inet trial ports { type inet_service; flags interval; elements = { 80, 8000-8100 }; }',
  'add element inet trial lease { tcp timeout 4s }',
  'add chain inet trial bare',
  'add chain inet trial pre { type filter hook prerouting priority filter + 50; policy accept; }',
  'add chain inet trial out { type route hook output priority mangle; policy accept; }',
  'add rule inet trial pre tcp flags & (fin | syn | rst | ack) != syn socket transparent 1 accept',
  'add rule inet trial pre fib daddr type unicast ct direction original jump bare',
  'add rule inet trial bare tcp dport @ports meta l4proto @lease',
  'add set inet trial old { type ipv6_addr . inet_service . ipv6_addr . inet_service; }',
  'add rule inet trial out meta l4proto @lease udp dport @ports ct state new ip6 saddr . udp sport . ip6 daddr . udp dport @old return',
  `add rule inet trial bare meta nfproto ipv4 meta l4proto { tcp, udp } tproxy ip to 127.0.0.1:1 meta mark set meta mark | ${defaultMarks.forwarded} accept`,
  'add rule inet trial bare meta l4proto tcp reject with tcp reset',
  `add rule inet trial out ct mark set ct mark | ${defaultMarks.local}`,
].join('\n')

const iptablesTrial = `*mangle
:TRIAL - [0:0]
-A TRIAL -p tcp -m tcp ! --syn -m socket --transparent -j ACCEPT
-A TRIAL -m conntrack --ctdir ORIGINAL -m connmark --mark 0x1/0x1 -m mark --mark 0x1/0x1 -j RETURN
-A TRIAL -m addrtype --dst-type UNICAST -j CONNMARK --set-xmark 0x1/0x1
-A TRIAL -p udp -m multiport --dports 53 -m conntrack --ctstate NEW -m connmark ! --mark 0x1/0x1 -j TPROXY --on-ip 127.0.0.1 --on-port 1 --tproxy-mark 0x1/0x1
-A TRIAL -p tcp -m tcp --syn -m multiport --dports 80,8000:8100 -j TPROXY --on-ip 127.0.0.1 --on-port 1 --tproxy-mark 0x1/0x1
COMMIT
`

/** Where those are refused: TCP can still be redirected, if the kernel translates addresses. */
const nftRedirectTrial = (owner: boolean): string => [
  `add table inet trial${owner ? ' { flags owner; }' : ''}`,
  'add set inet trial lease { type inet_proto; flags timeout; }',
  'add set inet trial ports { type inet_service; flags interval; elements = { 80, 8000-8100 }; }',
  'add element inet trial lease { tcp timeout 4s }',
  'add chain inet trial bare',
  'add chain inet trial pre { type nat hook prerouting priority -110; policy accept; }',
  'add chain inet trial out { type nat hook output priority -110; policy accept; }',
  'add rule inet trial pre fib daddr type unicast jump bare',
  'add rule inet trial bare tcp flags & (fin | syn | rst | ack) == syn tcp dport @ports meta l4proto @lease',
  `add rule inet trial bare meta nfproto ipv4 meta l4proto tcp meta mark set meta mark | ${defaultMarks.forwarded} redirect to :1`,
  'add rule inet trial out meta l4proto tcp redirect to :1',
].join('\n')
const iptablesRedirectTrial = `*nat
:TRIAL - [0:0]
-A TRIAL -m addrtype --dst-type UNICAST -m mark --mark 0x1/0x1 -j RETURN
-A TRIAL -p tcp -j MARK --set-xmark 0x1/0x1
-A TRIAL -p tcp -m tcp --syn -m multiport --dports 80,8000:8100 -j REDIRECT --to-ports 1
COMMIT
`

/** Giving a packet's copy to a program is a module of its own (nft_log or xt_NFLOG, and nfnetlink_log), which a kernel may lack. */
const nftLogRule = 'add rule inet trial bare tcp flags & (fin | syn | rst | ack) == syn ct status & dnat == 0 log group 7 snaplen 160 drop\n'
const nftLogTrial = `add table inet trial\nadd chain inet trial bare\n${nftLogRule}`
const iptablesLogRule = '-A TRIAL -p tcp -m tcp --syn -m conntrack ! --ctstate DNAT -j NFLOG --nflog-group 7 --nflog-size 160\n'
const iptablesLogTrial = `*mangle\n:TRIAL - [0:0]\n${iptablesLogRule}COMMIT\n`

/**
 * Tries a backend by really loading rules in a network namespace made for it and gone with it. Without privilege a user namespace makes that possible; where the
 * machine allows none, being installed is all that can be known, and the helper, which is root, tries again anyway. `quick`: without the version, and with one process where
 * nothing is missing.
 */
export async function tryBackend(backend: Backend, privileged: boolean, { quick = false }: { readonly quick?: boolean } = {}): Promise<ToolFacts> {
  const tool: ToolName = backend === 'nft' ? 'nft' : iptablesTools(backend, 'ipv4').restore
  const path = findTool(tool)
  if (path === undefined) return { backend, usable: false, reason: backend === 'nft' ? 'nftables is not installed' : `${backend} is not installed (there is no ${tool})` }
  const unshare = findTool('unshare')
  if (quick && privileged && unshare !== undefined) {
    const [everything, words] = backend === 'nft' ? [`${nftTrial(true)}\n${nftLogRule}`, ['-f', '-']] : [iptablesTrial.replace('COMMIT\n', `${iptablesLogRule}COMMIT\n`), ['--noflush']]
    if ((await run(unshare, ['--net', '--', path, ...words], everything)) === undefined) return { backend, path, usable: true, log: true, ...(backend === 'nft' ? { owner: true } : {}) }
  }
  const version = await readVersion(path)
  const found = { backend, path, ...(version === undefined ? {} : { version }) }

  const scratch = unshare === undefined ? undefined : await openable(unshare, privileged)
  if (scratch === undefined) return { ...found, usable: true, reason: 'installed; it could not be tried without administrator rights', ...(backend === 'nft' ? { owner: false } : {}) }

  const [command = '', ...args] = scratch
  const load = (text: string): Promise<string | undefined> => run(command, [...args, path, ...(backend === 'nft' ? ['-f', '-'] : ['--noflush'])], text)
  if (backend === 'nft') {
    const log = (await load(nftLogTrial)) === undefined
    if ((await load(nftTrial(true))) === undefined) return { ...found, usable: true, owner: true, log }
    const refusal = await load(nftTrial(false))
    if (refusal === undefined) return { ...found, usable: true, owner: false, log }
    for (const owner of [true, false]) if ((await load(nftRedirectTrial(owner))) === undefined) return { ...found, usable: true, owner, log, redirectsBecause: refusal }
    return { ...found, usable: false, owner: false, reason: `the kernel or nft refuses transparent rules: ${refusal}` }
  }
  const refusal = await load(iptablesTrial)
  if (refusal === undefined) return { ...found, usable: true, log: (await load(iptablesLogTrial)) === undefined }
  // Old iptables needs a module that only root may load, so without root its refusal proves nothing.
  if (!privileged && backend === 'iptables-legacy') return { ...found, usable: true, reason: 'installed; it could not be tried without administrator rights' }
  if ((await load(iptablesRedirectTrial)) === undefined) return { ...found, usable: true, redirectsBecause: refusal }
  return { ...found, usable: false, reason: `the kernel or iptables refuses transparent rules: ${refusal}` }
}

/** Loads a text by a backend in a namespace made for it: undefined when that went well, else one line of what was said; `no-scratch` where it cannot be tried. */
export async function loadInScratch(backend: Backend, text: string, privileged: boolean): Promise<string | undefined> {
  const path = findTool(backend === 'nft' ? 'nft' : iptablesTools(backend, 'ipv4').restore)
  const unshare = findTool('unshare')
  const scratch = path === undefined || unshare === undefined ? undefined : await openable(unshare, privileged)
  if (path === undefined || scratch === undefined) return 'no-scratch'
  const [command = '', ...args] = scratch
  return run(command, [...args, path, ...(backend === 'nft' ? ['-f', '-'] : ['--noflush'])], text)
}

/** The words that run a command in a scratch namespace, if this machine lets us have one. */
async function openable(unshare: string, privileged: boolean): Promise<string[] | undefined> {
  const words = privileged ? [unshare, '--net', '--'] : [unshare, '--map-root-user', '--net', '--']
  const [command = '', ...args] = words
  const probe = findTool('ip')
  if (probe === undefined) return undefined
  return (await run(command, [...args, probe, 'link'], '')) === undefined ? words : undefined
}

/** Undefined when it went well, else one line of what the tool said. */
async function run(command: string, args: readonly string[], input: string): Promise<string | undefined> {
  const result = await execa(command, args, { input, env: toolEnvironment, extendEnv: false, timeout: timeLimit, reject: false, stripFinalNewline: true, maxBuffer: 65_536 })
  if (!result.failed) return undefined
  if (result.timedOut) return 'it did not answer in time'
  const line = textOf(result.stderr).split('\n').map((text) => text.trim()).find((text) => text !== '')
  return (line ?? result.shortMessage ?? 'it failed').slice(0, 300)
}

async function readVersion(path: string): Promise<string | undefined> {
  const result = await execa(path, ['--version'], { env: toolEnvironment, extendEnv: false, timeout: timeLimit, reject: false, maxBuffer: 65_536 })
  return /\bv?([0-9]+(?:\.[0-9]+)+)/.exec(textOf(result.stdout))?.[1]
}

/** A tool that could not be started has no output, whatever execa's types say. */
function textOf(output: unknown): string {
  return typeof output === 'string' ? output : ''
}
