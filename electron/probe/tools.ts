import { accessSync, constants } from 'node:fs'

/** The only folders a tool is taken from, whatever PATH says: the helper runs as root. */
const folders = ['/usr/sbin', '/sbin', '/usr/bin', '/bin'] as const

/** Every program Sluice ever runs as root, besides its own. */
export type ToolName =
  | 'nft' | 'ip' | 'unshare' | 'flock'
  | 'iptables-nft-restore' | 'iptables-nft-save' | 'ip6tables-nft-restore' | 'ip6tables-nft-save'
  | 'iptables-legacy-restore' | 'iptables-legacy-save' | 'ip6tables-legacy-restore' | 'ip6tables-legacy-save'

/** Absolute path of a tool, or undefined when it is not installed. */
export function findTool(name: ToolName): string | undefined {
  return folders.map((folder) => `${folder}/${name}`).find((path) => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** What a tool is given as its environment: nothing of the caller's. PATH is for iptables-legacy, which looks for modprobe. */
export const toolEnvironment = { PATH: folders.join(':'), LC_ALL: 'C' } as const

/**
 * The tools of an iptables backend and family. `iptables-restore` itself is an alternative that an administrator may point to either
 * backend; rules loaded by one are invisible to the other, so the names that cannot be mistaken are used, for loading, listing and taking back.
 */
export function iptablesTools(backend: 'iptables' | 'iptables-legacy', family: 'ipv4' | 'ipv6'): { readonly restore: ToolName; readonly save: ToolName } {
  const flavour = backend === 'iptables' ? 'nft' : 'legacy'
  return family === 'ipv4'
    ? { restore: `iptables-${flavour}-restore`, save: `iptables-${flavour}-save` }
    : { restore: `ip6tables-${flavour}-restore`, save: `ip6tables-${flavour}-save` }
}
