import { mkdtempSync, rmSync, chownSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { Lab } from '../makeLab.ts'
import type { Journey } from './traffic.ts'
import { findPlaces } from '#probe/places.ts'

export interface WindowedOptions {
  readonly lab: Lab
  readonly journeys: readonly Journey[]
  /** Electron's program. */
  readonly electron: string
  readonly say: (text: string) => void
}

/** Pause between two journeys: a newcomer must be able to follow. */
const pauseMilliseconds = 1500

/** The app on the laboratory's router, with real programs making traffic for as long as it is open. */
export async function runWindowed({ lab, journeys, electron, say }: WindowedOptions): Promise<number> {
  const home = mkdtempSync(join(tmpdir(), 'sluice-demo-home-'))
  const uid = Number(process.env['SUDO_UID'] ?? 0)
  const gid = Number(process.env['SUDO_GID'] ?? 0)
  chownSync(home, uid, gid)
  // As the person who asked, where sudo says who that is; else as root, whom Chromium wants without its sandbox.
  const identity = uid === 0 ? [] : ['/usr/bin/setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--init-groups', '--']
  const sandbox = uid === 0 ? ['--no-sandbox'] : []
  const app = lab.spawn('router', [...identity, electron, ...sandbox, findPlaces().root, '--demo', `--user-data-dir=${home}/data`, '--sessions', `${home}/sessions`], {
    env: { ...process.env, HOME: uid === 0 ? home : process.env['HOME'] },
  })
  say('the app is open on the laboratory\'s router; open the gate on 80, 443, 6379 and 8080 to see what its programs say. Close the window to end.')
  let over = false
  void app.ended.then(() => (over = true))
  const traffic = (async () => {
    for (let turn = 0; !over; turn += 1) {
      const journey = journeys[turn % journeys.length]
      // A gate closed at once cuts what it relays: that is the person's choice and no fault of the demo.
      if (journey !== undefined) await journey.run().catch(() => undefined)
      await new Promise((resolve) => setTimeout(resolve, pauseMilliseconds))
    }
  })()
  const { code } = await app.ended
  await traffic
  rmSync(home, { recursive: true, force: true })
  return code ?? 0
}
