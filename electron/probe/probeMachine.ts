import { existsSync, readFileSync } from 'node:fs'

import type { MachineFacts } from '#core/rules/machineFacts.ts'
import { listCgroups } from './cgroups.ts'
import { listInterfaces } from './interfaces.ts'
import { tryBackend } from './tryBackend.ts'

/**
 * The facts of this machine and network namespace that decide which rules are compiled and by which tool they are loaded. Changes nothing: backends are tried in
 * namespaces of their own. `privileged`: root is looking, so what is refused is refused for good.
 */
export async function probeMachine({ privileged }: { readonly privileged: boolean }): Promise<MachineFacts> {
  const [interfaces, cgroups, ...tools] = await Promise.all([
    listInterfaces(),
    listCgroups(),
    tryBackend('nft', privileged),
    tryBackend('iptables', privileged),
    tryBackend('iptables-legacy', privileged),
  ])
  return {
    tools,
    ipv6: existsSync('/proc/net/if_inet6'),
    interfaces,
    lenientLo: isLenient(),
    ...(cgroups === undefined ? {} : { cgroupPrefix: cgroups.prefix }),
    ...(cgroups?.paths === undefined ? {} : { cgroups: cgroups.paths }),
  }
}

/** Linux takes the larger of `all` and the interface's own for rp_filter, and either for src_valid_mark (Documentation/networking/ip-sysctl.rst). */
function isLenient(): boolean {
  const value = (path: string): number => {
    try {
      return Number(readFileSync(`/proc/sys/net/ipv4/conf/${path}`, 'utf8'))
    } catch {
      return 1
    }
  }
  return Math.max(value('all/rp_filter'), value('lo/rp_filter')) !== 1 && value('all/src_valid_mark') + value('lo/src_valid_mark') === 0
}
