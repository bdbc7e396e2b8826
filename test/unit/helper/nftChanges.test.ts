import { describe, expect, test } from 'vitest'

import type { Backend } from '#core/plan/plan.ts'
import { listenToNft } from '#helper/nftChanges.ts'

/** As `nft monitor` (1.0.6) prints a lease that is renewed by iptables-nft-restore, and somebody's `iptables-nft -F`. */
const renewal = (pid: number): string[] => [
  'delete rule ip mangle SLUICE_ON # handle 31',
  'add chain ip mangle SLUICE_ON',
  'add rule ip mangle SLUICE_ON # xt_time counter packets 0 bytes 0 return',
  `# new generation 42 by process ${String(pid)} (iptables-nft-re)`,
]
const flush = (pid: number): string[] => ['delete rule ip mangle PREROUTING handle 7', `# new generation 43 by process ${String(pid)} (iptables-nft)`]
const ours = 100

function told(backend: Backend, lines: readonly string[]): string[] {
  const found: string[] = []
  const listen = listenToNft(backend, (pid) => pid === ours, (who) => found.push(who))
  for (const line of lines) listen(line)
  return found
}

describe('what nft monitor tells', () => {
  test('our own renewals are no reason to look, however many; what others take away is, with their name', () => {
    expect(told('iptables', [...renewal(ours), ...renewal(ours)])).toEqual([])
    expect(told('iptables', [...renewal(ours), ...flush(7), ...renewal(ours)])).toEqual(['iptables-nft, process 7'])
    expect(told('iptables', renewal(8))).toEqual(['iptables-nft-re, process 8'])
  })
  test('what was taken away by us does not stand for what somebody else did after it', () => {
    expect(told('iptables', [...renewal(ours), 'add rule ip filter INPUT counter', '# new generation 44 by process 9 (nft)'])).toEqual([])
  })
  test('tables of others, and elements that run out, are nobody\'s doing', () => {
    expect(told('nft', ['delete rule inet theirs a handle 1', '# new generation 1 by process 9 (nft)', 'delete element inet sluice lease { tcp . 80 }', '# new generation 2 by process 9 (nft)'])).toEqual([])
    expect(told('nft', ['delete table inet sluice', '# new generation 3 by process 9 (n\u001b[31mft)'])).toEqual(['n?[31mft, process 9'])
  })
})
