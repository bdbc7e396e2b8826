import type { Lab } from '../lab/makeLab.ts'
import { makePlan } from '#core/plan/makePlan.ts'
import type { Scope } from '#core/plan/plan.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { renderNft } from '#core/rules/renderNft.ts'
import { renderRoutes } from '#core/rules/renderRoutes.ts'

/** Sluice's own rules in the laboratory's router, leading forwarded flows (and, where wanted, others') to a port to whichever transparent listener. */
export async function divertTo(lab: Lab, port: number, relayPort: number, udp = false, besides: readonly Scope[] = []): Promise<{ undo(): Promise<void> }> {
  const plan = makePlan({ tcp: String(port), ...(udp ? { udp: String(port) } : {}), scope: ['forwarded', ...besides], interfaces: ['cl0'], backend: 'nft' })
  const rules = compileRules(plan, { tools: [{ backend: 'nft', usable: true, path: '/usr/sbin/nft' }], ipv6: true, interfaces: ['lo', 'cl0', 'sv0'] })
  const nft = renderNft(rules, { relayPort, owner: false, leaseSeconds: 3600 })
  const routes = renderRoutes(rules)
  await lab.exec('router', ['/usr/sbin/nft', '-f', '-'], { input: nft.load + nft.arm })
  for (const args of routes.apply) await lab.exec('router', ['/usr/sbin/ip', ...args])
  return {
    async undo() {
      await lab.exec('router', ['/usr/sbin/nft', '-f', '-'], { input: nft.remove })
      for (const args of routes.revert) await lab.exec('router', ['/usr/sbin/ip', ...args], { reject: false })
    },
  }
}
