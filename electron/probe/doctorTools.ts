import { release } from 'node:os'

import type { DoctorRow } from '#core/contract/bridge.ts'
import { chooseBackend, redirectReason } from '#core/rules/chooseBackend.ts'
import type { ToolFacts } from '#core/rules/machineFacts.ts'
import type { Check } from './doctorFacts.ts'

const titles = { nft: 'nftables', iptables: 'iptables (nft)', 'iptables-legacy': 'iptables (legacy)' } as const
const packages = { nft: 'nftables', iptables: 'iptables', 'iptables-legacy': 'iptables' } as const

/** A kernel that lacks the modules says so in the tool's words. */
function mendOf(tool: ToolFacts): string {
  if (tool.path === undefined) return `sudo apt install ${packages[tool.backend]}`
  return tool.backend === 'nft' ? 'sudo modprobe -a nft_tproxy nft_socket nft_fib_inet nft_ct' : 'sudo modprobe -a xt_TPROXY xt_socket xt_multiport xt_connmark xt_addrtype'
}

function toolRow(tool: ToolFacts, needed: boolean): DoctorRow {
  const name = `${tool.path ?? ''}${tool.version === undefined ? '' : ` ${tool.version}`}`.trim()
  const row = { id: tool.backend, title: titles[tool.backend] }
  if (!tool.usable) return { ...row, verdict: needed ? 'fail' : 'ok', fact: `${tool.reason ?? 'cannot be used'}${needed ? '' : '; not needed'}`, ...(needed ? { mend: mendOf(tool) } : {}) }
  // "usable" with a reason: there, but nobody could try it.
  if (tool.reason !== undefined) return { ...row, verdict: 'warn', fact: `${name}: ${tool.reason}`, mend: 'sudo sluice doctor' }
  if (tool.redirectsBecause !== undefined) {
    return { ...row, verdict: needed ? 'warn' : 'ok', fact: `${name}: the kernel refuses transparent rules (${tool.redirectsBecause})${needed ? '' : '; not needed'}`, ...(needed ? { mend: mendOf(tool) } : {}) }
  }
  return { ...row, verdict: 'ok', fact: `${name}: transparent rules were loaded in a namespace made for it` }
}

/** Which tools load transparent rules, by loading them; and whether the kernel removes nft's when their holder dies. */
export const checkTools: Check = ({ facts }) => {
  const some = facts.tools.some((tool) => tool.usable)
  const redirects = some && redirectReason({ backend: 'auto' }, facts) !== undefined
  const rows: DoctorRow[] = facts.tools.map((tool) => toolRow(tool, !some || redirects))
  const nft = facts.tools.find((tool) => tool.backend === 'nft')
  if (some) {
    const backend = chooseBackend({ backend: 'auto' }, facts)
    const kernel = `Linux ${release()}`
    rows.unshift({ id: 'backend', title: 'Rules', verdict: 'ok', fact: `${kernel}; ${titles[backend]} will load them` })
    // Their mend stands at the tools, which say what is missing.
    if (redirects) rows.push({ id: 'redirect', title: 'Transparent rules', verdict: 'warn', fact: 'none here, so TCP is redirected (NAT): UDP is left alone, servers see this computer\u2019s address instead of the devices\u2019, and closed ports look open for a moment' })
  } else rows.unshift({ id: 'backend', title: 'Rules', verdict: 'fail', fact: `Linux ${release()}; no tool here can load transparent rules`, mend: 'sudo apt install nftables' })
  if (nft?.usable === true && nft.reason === undefined) {
    rows.push(
      nft.owner === true
        ? { id: 'owner', title: 'Removal by the kernel', verdict: 'ok', fact: 'the kernel itself removes the rules when Sluice dies' }
        : { id: 'owner', title: 'Removal by the kernel', verdict: 'warn', fact: 'nft tables cannot have an owner here (kernel 5.12 and nft 0.9.9 can); a guard process removes the rules instead' },
    )
  }
  rows.push(
    facts.ipv6
      ? { id: 'ipv6', title: 'IPv6', verdict: 'ok', fact: 'the kernel has it; both families are intercepted' }
      : { id: 'ipv6', title: 'IPv6', verdict: 'ok', fact: 'the kernel has none; IPv4 alone is intercepted' },
  )
  return rows
}
