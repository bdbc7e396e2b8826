import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from '@playwright/test'

import { rulesIn } from '../support/e2e/site.ts'
import { openStage } from '../support/e2e/stage.ts'

const command = fileURLToPath(new URL('../../build/node/cli.mjs', import.meta.url))

test('the app is killed with SIGKILL while the gate is open: no rule, a network that works, and the record up to then', async () => {
  const stage = await openStage()
  try {
    const { window, lab, running } = stage
    const before = await rulesIn(lab)
    await window.openGate('80, 8080')
    await stage.journey('curl, 404', 'local').run()
    await expect(window.row('GET /missing')).toBeVisible()
    expect(await rulesIn(lab)).not.toBe(before)
    const gone = running.app.waitForEvent('close').catch(() => undefined)
    process.kill(running.pid, 'SIGKILL')
    await gone
    await expect.poll(() => rulesIn(lab)).toBe(before)
    await stage.journey('curl, 404', 'local').run()
    await stage.journey('curl, POST of JSON', 'forwarded').run()
    const [session] = readdirSync(running.sessions)
    const flows = await lab.exec('router', [process.execPath, command, 'flows', join(running.sessions, session ?? ''), '--json'])
    expect(flows.stdout).toContain('GET /missing')
  } finally {
    await stage.stop()
  }
})
