import type { Backend } from '../plan/plan.ts'
import { loadCommands } from './renderNft.ts'
import { renderIptables } from './renderIptables.ts'
import { linkLocalRoute, renderRoutes } from './renderRoutes.ts'
import type { RuleSet } from './ruleSet.ts'

export interface RulePreview {
  readonly title: string
  /** Loads as it stands: with `nft -f -`, `iptables-restore --noflush` or a shell. */
  readonly text: string
}

/** The rules as a person may read, check and load them: for one backend, or for both syntaxes when none is given. */
export function previewRules(ruleSet: RuleSet, relayPort: number, backend?: Backend): RulePreview[] {
  const previews: RulePreview[] = []
  if (backend === undefined || backend === 'nft') {
    previews.push({ title: 'nftables', text: `${loadCommands(ruleSet, { relayPort, keptPort: relayPort + 1, owner: false, holds: true, leaseSeconds: 0 }).join('\n')}\n` })
  }
  if (backend !== 'nft') {
    for (const family of ruleSet.families) {
      previews.push({ title: family === 'ipv4' ? 'iptables (IPv4)' : 'ip6tables (IPv6)', text: renderIptables(ruleSet, { relayPort, keptPort: relayPort + 1, family, holds: true }).load })
    }
  }
  const routes = renderRoutes(ruleSet).apply
  // For each, as long as it is there: nothing that loads as it stands.
  const near = ruleSet.scope.includes('local') && ruleSet.families.includes('ipv6') ? `# for each interface with a link-local address: ip ${linkLocalRoute(ruleSet.routing, 'INTERFACE').join(' ')}\n` : ''
  if (routes.length > 0) previews.push({ title: 'Policy routing', text: `${routes.map((argv) => `ip ${argv.join(' ')}\n`).join('')}${near}` })
  return previews
}
