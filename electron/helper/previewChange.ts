import type { ChangePart, PreviewResult } from '#core/contract/helperProtocol.ts'
import { Failure } from '#core/contract/failure.ts'
import { trimChange } from '#core/rules/trimChange.ts'
import { parsePlan } from '#core/plan/parsePlan.ts'
import type { Backend } from '#core/plan/plan.ts'
import { chooseBackend } from '#core/rules/chooseBackend.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { chainPrefix, linkLocalNetwork, nftFamily, nftTable, routeProtocol } from '#core/rules/names.ts'
import type { IptablesTable } from '#core/rules/names.ts'
import { renderIptables, sweepIptables, tablesOf } from '#core/rules/renderIptables.ts'
import { renderNft } from '#core/rules/renderNft.ts'
import { renderRoutes } from '#core/rules/renderRoutes.ts'
import { holdsSyns } from '#core/rules/ruleSet.ts'
import type { Family, RuleSet } from '#core/rules/ruleSet.ts'
import { bridgesCallRules, canTellBridges } from '#probe/bridges.ts'
import { checkConflicts } from '#probe/conflicts.ts'
import { digestRules } from '#probe/digestRules.ts'
import { probeMachine } from '#probe/probeMachine.ts'
import { udpBefore } from '#probe/udpBefore.ts'

import { acquireLock } from './acquireLock.ts'
import { withCgroupsNow } from './appliedRules.ts'
import { listLinkLocalDevices } from './linkLocalRoutes.ts'
import { leaseSeconds } from './ruleKeeper.ts'
import { networkNamespace } from './runFolder.ts'
import { askTool, requireTool } from './runTool.ts'
import { makeScratchNamespace } from './scratchNamespace.ts'
import type { ScratchNamespace } from './scratchNamespace.ts'
import { legacyTables } from './takeBack.ts'

/** All parts together, characters, so that the answer stays within a line of the protocol. */
const mostText = 400_000

/**
 * What opening the gate with a plan would change in this network namespace now: rules, ip rules and routes as their own tools list them, before and after. Changes nothing here: our
 * rules are loaded in a namespace made for it, so that the text is what this kernel and these tools make of them.
 * Fails as opening would: `already-open`, `backend-missing`, `table-taken`, …, and `rules-failed` when the rules are refused.
 */
export async function previewChange(wish: unknown): Promise<PreviewResult> {
  const plan = parsePlan(wish)
  // Held while we look, so that nobody opens in between; and an open gate says so.
  const lock = await acquireLock(networkNamespace())
  try {
    const [facts] = await Promise.all([probeMachine({ privileged: true }), checkConflicts(plan)])
    const backend = chooseBackend(plan, facts)
    const compiled = compileRules(plan, facts)
    const ruleSet = { ...withCgroupsNow(compiled, facts), ...(compiled.way !== 'redirect' && bridgesCallRules() && (await canTellBridges(backend)) ? { bridgesCall: true as const } : {}) }
    const tool = facts.tools.find((each) => each.backend === backend)
    const given: Given = { ruleSet, backend, relayPort: plan.relayPort, holds: holdsSyns(ruleSet) && tool?.log !== false, owner: tool?.owner === true, oldUdp: { ...(await udpBefore({ ...plan, udp: ruleSet.sets.udp }).listOldUdp()), ports: [] } }
    const scratch = await makeScratchNamespace()
    try {
      const parts = [...(backend === 'nft' ? [await previewNft(given, scratch)] : await previewIptables(given, scratch)), ...(await previewRoutes(ruleSet, scratch))]
      const trimmed = parts.map(trimChange)
      if (trimmed.reduce((sum, { before, after }) => sum + before.length + after.length, 0) > mostText) throw new Failure('internal', 'what would change is too much to show')
      return { backend, digest: digestRules(compiled), parts: trimmed }
    } finally {
      scratch.end()
    }
  } finally {
    lock.release()
  }
}

interface Given {
  readonly ruleSet: RuleSet
  readonly backend: Backend
  readonly relayPort: number
  readonly holds: boolean
  readonly owner: boolean
  /** Without the ports that are left alone for the first half minute. */
  readonly oldUdp: Awaited<ReturnType<ReturnType<typeof udpBefore>['listOldUdp']>>
}
type Whole = Omit<ChangePart, 'line'>

async function previewNft({ ruleSet, relayPort, holds, owner, oldUdp }: Given, scratch: ScratchNamespace): Promise<Whole> {
  const nft = requireTool('nft')
  const before = (await askTool(nft, ['--stateless', 'list', 'ruleset'])).stdout
  const { load, arm } = renderNft(ruleSet, { relayPort, keptPort: relayPort + 1, owner: false, holds, oldUdp, leaseSeconds })
  await loaded(scratch.run(nft, ['-f', '-'], { input: load + arm }), nft)
  const ours = (await scratch.run(nft, ['--stateless', 'list', 'table', nftFamily, nftTable])).stdout
  const head = `table ${nftFamily} ${nftTable} {\n`
  // In the scratch namespace nobody keeps it open, so there it has no owner.
  const owned = owner ? ours.replace(head, `table ${nftFamily} ${nftTable} { # progname nft\n\tflags owner\n\n`) : ours
  // What a crash left is taken back first.
  const others = before.replace(new RegExp(`^table ${nftFamily} ${nftTable} \\{[\\s\\S]*?\\n\\}\\n`, 'm'), '')
  return { title: 'nft list ruleset', before: withoutPassing(before), after: withoutPassing(others + owned) }
}

/** The lease, which is renewed each second, is no part of what stays. */
function withoutPassing(listed: string): string {
  return listed.replace(/^(\tset lease \{\n[^}]*?)\t\telements = \{[^}]*\}\n/gm, '$1')
}

async function previewIptables({ ruleSet, backend, relayPort, holds, oldUdp }: Given, scratch: ScratchNamespace): Promise<Whole[]> {
  const kind = backend === 'iptables' ? 'nft' : 'legacy'
  const parts: Whole[] = []
  for (const family of ruleSet.families) {
    const name = `${family === 'ipv4' ? 'iptables' : 'ip6tables'}-${kind}`
    const [save, restore] = [requireTool(`${name}-save`), requireTool(`${name}-restore`)]
    for (const table of tablesOf(ruleSet)) {
      // Asking old iptables makes its tables.
      const before = kind === 'legacy' && !legacyTables(family).includes(table) ? '' : savedText((await askTool(save, ['-t', table])).stdout)
      const options = { relayPort, keptPort: relayPort + 1, holds, family, oldUdp }
      const inTable = (text: string): string => text.split(/^(?=\*)/m).find((section) => section.startsWith(`*${table}\n`)) ?? ''
      // The first may be refused by a kernel without xt_hl or xt_time, as when opening.
      const until = Math.ceil(Date.now() / 1000) + 60
      const ours = [{ until }, { until, hopless: true }, { hopless: true }].map((given) => inTable(renderIptables(ruleSet, { ...options, ...given }).load))
      parts.push({ title: `${name}-save -t ${table}`, before, after: savedText(await afterRestore(scratch, { save, restore, before, ours, table })) })
    }
  }
  return parts
}

async function afterRestore(scratch: ScratchNamespace, { save, restore, before, ours, table }: { save: string; restore: string; before: string; ours: readonly string[]; table: IptablesTable }): Promise<string> {
  const copied = before === '' || (await scratch.run(restore, ['--noflush'], { input: before.replaceAll('--datestop RENEWED', '--datestop 2037-01-01T00:00:00') })).exitCode === 0
  const left = copied ? sweepIptables((await scratch.run(save, ['-t', table])).stdout, table) : ''
  if (left !== '') await loaded(scratch.run(restore, ['--noflush'], { input: left }), restore)
  const [last = '', ...others] = ours.toReversed()
  let taken = false
  for (const input of others.toReversed()) taken ||= (await scratch.run(restore, ['--noflush'], { input })).exitCode === 0
  if (!taken) await loaded(scratch.run(restore, ['--noflush'], { input: last }), restore)
  const saved = (await scratch.run(save, ['-t', table])).stdout
  if (copied) return saved
  // Somebody's rules there need what a namespace alone has not (an ipset): then ours are put among theirs as text.
  const mine = savedText(saved).split('\n').filter((line) => line.startsWith(`:${chainPrefix}`) || line.startsWith('-A '))
  const [declared, rules] = [mine.filter((line) => line.startsWith(':')), mine.filter((line) => !line.startsWith(':'))]
  const lines = before.split('\n')
  const afterChains = lines.findLastIndex((line) => line.startsWith(':')) + 1
  const end = lines.lastIndexOf('COMMIT')
  return [...lines.slice(0, afterChains), ...declared, ...lines.slice(afterChains, end), ...rules, ...lines.slice(end)].join('\n')
}

/** Without what changes by itself: comments with the time, counters, and the lease's end, which is written anew every few seconds. */
function savedText(saved: string): string {
  const plain = (line: string): string => line.replace(/ \[\d+:\d+\]$/, '').replace(/( --datestop) \S+/, '$1 RENEWED')
  return saved.split('\n').filter((line) => line !== '' && !line.startsWith('#')).map((line) => `${plain(line)}\n`).join('')
}

async function previewRoutes(ruleSet: RuleSet, scratch: ScratchNamespace): Promise<Whole[]> {
  const ip = requireTool('ip')
  const none = new Map<Family, string>()
  for (const family of ruleSet.families) none.set(family, (await scratch.run(ip, [flag(family), 'rule', 'show'])).stdout)
  for (const args of renderRoutes(ruleSet).apply) await loaded(scratch.run(ip, args), ip)
  const parts: Whole[] = []
  for (const family of ruleSet.families) {
    const before = (await askTool(ip, [flag(family), 'rule', 'show'])).stdout
    const bare = none.get(family)?.split('\n') ?? []
    const ours = (await scratch.run(ip, [flag(family), 'rule', 'show'])).stdout.split('\n').filter((line) => !bare.includes(line))
    const isLeft = (line: string): boolean => line.startsWith('0:') && new RegExp(`\\bproto ${String(routeProtocol)}\\b`).test(line)
    const others = before.split('\n').filter((line) => !isLeft(line))
    // Of equal preference the kernel asks, and lists, the oldest first.
    const at = others.findLastIndex((line) => line.startsWith('0:')) + 1
    parts.push({ title: `ip ${flag(family)} rule show`, before, after: [...others.slice(0, at), ...ours, ...others.slice(at)].join('\n') })
    const table = ['route', 'show', 'table', String(ruleSet.routing.table)]
    const after = (await scratch.run(ip, [flag(family), ...table])).stdout
    parts.push({ title: `ip ${flag(family)} ${table.join(' ')}`, before: (await askTool(ip, [flag(family), ...table])).stdout, after: family === 'ipv6' && ruleSet.scope.includes('local') ? (await linkLocalLines(after)) + after : after })
  }
  return parts
}

/** The routes of interfaces that only this namespace has, as the tool writes the one that every namespace may have. */
async function linkLocalLines(listed: string): Promise<string> {
  const line = listed.split('\n').find((each) => each.includes('default dev lo')) ?? ''
  return line === '' ? '' : (await listLinkLocalDevices()).map((name) => `${line.replace('default dev lo', `${linkLocalNetwork} dev ${name}`)}\n`).join('')
}

const flag = (family: Family): string => (family === 'ipv4' ? '-4' : '-6')

async function loaded(work: ReturnType<ScratchNamespace['run']>, path: string): Promise<void> {
  const { exitCode, stderr } = await work
  if (exitCode !== 0) throw new Failure('rules-failed', `${path} refuses the rules`, stderr.slice(0, 4000))
}
