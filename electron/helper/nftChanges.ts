import type { Backend } from '#core/plan/plan.ts'
import { chainPrefix, iptablesTables, nftFamily, nftTable } from '#core/rules/names.ts'

/**
 * Takes the lines of `nft monitor` and tells when somebody took away what may be ours (also tables of iptables-nft that ours are in): who, as nft names it. What tools of our own took away
 * (`isOwn`, by process id) is not told: a lease of iptables is renewed by taking its rules away and putting others in, and is no reason to look.
 */
export function listenToNft(backend: Backend, isOwn: (pid: number) => boolean, onTaken: (who: string) => void): (line: string) => void {
  const ours = backend === 'nft' ? [` ${nftFamily} ${nftTable}`] : [...iptablesTables.flatMap((table) => [` ip ${table}`, ` ip6 ${table}`]), chainPrefix]
  let touched = false
  return (line) => {
    // Lines of one change come before the line that says whose it was.
    const author = /^# new generation \d+ by process (\d+) \(([^)]*)\)/.exec(line)
    if (author === null) {
      touched ||= line.startsWith('delete ') && !line.startsWith('delete element') && ours.some((word) => line.includes(word))
      return
    }
    const [, pid = '', name = ''] = author
    const isTold = touched && !isOwn(Number(pid))
    touched = false
    if (isTold) onTaken(`${name.replace(/[^\x20-\x7e]/g, '?')}, process ${pid}`)
  }
}
