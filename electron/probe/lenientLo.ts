import { readFileSync } from 'node:fs'

/**
 * Whether what the relay sends again on lo is let in: no strict reverse-path check there. Linux takes the larger of `all` and the interface's own for rp_filter, and either for
 * src_valid_mark (Documentation/networking/ip-sysctl.rst).
 */
export function isLenientLo(): boolean {
  const value = (path: string): number => {
    try {
      return Number(readFileSync(`/proc/sys/net/ipv4/conf/${path}`, 'utf8'))
    } catch {
      return 1
    }
  }
  return Math.max(value('all/rp_filter'), value('lo/rp_filter')) !== 1 && value('all/src_valid_mark') + value('lo/src_valid_mark') === 0
}
