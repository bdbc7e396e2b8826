import type { Backend } from '#core/plan/plan.ts'
import type { Lab } from '#test/lab/makeLab.ts'
import { until } from '#test/lab/until.ts'

import { snapshot } from '../helper/harness.ts'
import type { TestHelper } from '../helper/harness.ts'
import type { Taken } from './faultTable.ts'

const tables: Readonly<Record<Backend, string>> = {
  nft: 'nft delete table inet sluice',
  iptables: 'iptables-nft -t mangle -F; ip6tables-nft -t mangle -F',
  'iptables-legacy': 'iptables-legacy -t mangle -F; ip6tables-legacy -t mangle -F',
}
const others: Readonly<Record<Exclude<Taken, 'table gone'>, string>> = {
  // One process a family: who goes on until none is left takes what is put back meanwhile, on a busy machine for ever.
  'ip rules gone': 'for f in -4 -6; do ip $f rule | sed -n "/proto 77/s/.*/rule del protocol 77/p" | ip $f -force -batch -; done',
  'route gone': 'ip route flush table 7701',
}

/** Somebody else takes it away. */
export async function takeAway(lab: Lab, what: Taken, backend: Backend): Promise<void> {
  await lab.exec('router', ['sh', '-c', what === 'table gone' ? tables[backend] : others[what]])
}

/** The same, and waits until all is back. Milliseconds from the end of the act to the end of the helper's last repair; 0 where that came first. */
export async function takeAwayAndWait(lab: Lab, helper: TestHelper, what: Taken, backend: Backend): Promise<number> {
  const held = await listRules(lab)
  const seen = { repairing: false, restored: 0 }
  helper.onEvent((event) => {
    if (event.event === 'action' && event.text.includes('putting it back')) seen.repairing = true
    if (event.event === 'warning' && event.code === 'rules-restored') Object.assign(seen, { repairing: false, restored: performance.now() })
  })
  await takeAway(lab, what, backend)
  const over = performance.now()
  await expectBack(lab, held)
  // The last repair may not have been told yet.
  await until('the repair is told', () => Promise.resolve({ ...seen }), ({ repairing, restored }) => restored > 0 && !repairing)
  return Math.max(0, seen.restored - over)
}

export async function listRules(lab: Lab): Promise<string[]> {
  return (await snapshot(lab)).split('\n')
}

/** Lines that were there are there again; in any order, since a table made anew is listed behind those that stayed. */
export async function expectBack(lab: Lab, held: readonly string[]): Promise<void> {
  await until('all is back', async () => {
    const now = await listRules(lab)
    return held.filter((line) => {
      const at = now.indexOf(line)
      if (at !== -1) now.splice(at, 1)
      return at === -1
    })
  }, (missing) => missing.length === 0)
}
