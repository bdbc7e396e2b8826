import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from '@playwright/test'

import { rulesIn, startOrigin } from '../support/e2e/site.ts'
import { openStage, type Stage } from '../support/e2e/stage.ts'

const command = fileURLToPath(new URL('../../build/node/cli.mjs', import.meta.url))
let stage: Stage
let before: string
test.beforeAll(async () => {
  stage = await openStage()
  await startOrigin(stage.lab, 'server', [8090, 8091])
  before = await rulesIn(stage.lab)
})
test.afterAll(() => stage.stop())

/** Processes below the app whose command line says `word`. */
function descendants(word: string): number[] {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'utf8')
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]))
    } catch {
      // ended meanwhile
    }
  }
  const isBelow = (pid: number): boolean => {
    for (let at: number | undefined = pid; at !== undefined && at > 1; at = parents.get(at)) if (parents.get(at) === stage.running.pid) return true
    return false
  }
  return [...parents.keys()].filter((pid) => {
    try {
      return isBelow(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(word)
    } catch {
      return false
    }
  })
}
/** One may end with another before its turn comes. */
function killAll(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // ended meanwhile
    }
  }
}
const strip = () => stage.window.page.getByRole('alert')

test('a gate that another Sluice holds is said, with what to do; the other is not disturbed', async () => {
  const { window, lab, folder } = stage
  const other = lab.spawn('router', [process.execPath, command, 'capture', '--tcp', '9', '-o', join(folder, 'other.sluice')])
  await other.line((line) => line.startsWith('READY'), 30_000)
  await window.typePorts('80')
  await window.button('Open gate').click()
  await expect(window.gate).toHaveAttribute('data-gate', 'trouble')
  await expect(strip()).toContainText('Close the gate that is open first.')
  await expect.poll(() => readdirSync(stage.running.sessions)).toEqual([])
  expect((await lab.exec('router', ['nft', 'list', 'ruleset'])).stdout).toContain('table inet sluice')
  await other.stop('SIGINT')
  await strip().getByRole('button', { name: 'Try again' }).click()
  await expect(window.gate).toHaveAttribute('data-gate', 'open')
  await expect(strip()).toHaveCount(0)
  await window.page.keyboard.press('Control+e')
  await expect(window.gate).toHaveAttribute('data-gate', 'closed')
  await expect.poll(() => rulesIn(lab)).toBe(before)
})

test('the inspector is killed while the gate is open: recording and window go on', async () => {
  const { window } = stage
  await window.openGate('80, 8080')
  await stage.journey('curl, 404', 'local').run()
  await expect(window.row('GET /missing')).toBeVisible()
  const inspectors = descendants('inspector')
  expect(inspectors.length).toBeGreaterThan(0)
  killAll(inspectors)
  await expect(window.gate).toHaveAttribute('data-gate', 'open')
  await stage.journey('curl, POST of JSON', 'forwarded').run()
  await expect(window.row('POST /api/orders')).toBeVisible()
  await expect(window.row('GET /missing')).toBeVisible()
})

test('the relay is killed: the rules are taken back, the network works, the window says so', async () => {
  const { window, lab } = stage
  await expect(window.gate).toHaveAttribute('data-gate', 'open')
  const relays = descendants('sluice-relay')
  expect(relays.length).toBeGreaterThan(0)
  killAll(relays)
  await expect(window.gate).toHaveAttribute('data-gate', 'trouble')
  await expect(strip()).toContainText('The rules were taken back, so the network works as before.')
  await expect.poll(() => rulesIn(lab)).toBe(before)
  await stage.journey('curl, 404', 'local').run()
  await expect(window.row('GET /missing')).toBeVisible()
  await strip().getByRole('button', { name: 'Dismiss' }).click()
  await expect(window.gate).toHaveAttribute('data-gate', 'closed')
})

test('what was done as root can be read, with the very text that was given', async () => {
  const { window } = stage
  const { page } = window
  await window.go('Doctor')
  await page.getByRole('radio', { name: 'Done as root' }).click()
  const list = page.getByRole('main').getByRole('list')
  const loading = list.getByRole('listitem').filter({ hasText: /nft/ }).filter({ hasText: 'What it was given' }).first()
  await expect(loading).toBeVisible()
  await expect(list.getByRole('listitem').filter({ hasText: 'the gate is closed and everything taken back' }).first()).toBeVisible()
  await expect(list.getByRole('listitem').filter({ hasText: 'opening the gate: TCP ports 80, 8080' }).first()).toContainText('for root(0)')
})

test('quitting with the gate open asks, and what is chosen is done', async () => {
  const { window, lab, running } = stage
  await window.openGate('8090')
  const slow = lab.spawn('router', ['curl', '-sS', '-o', '/dev/null', '-w', '%{size_download}', 'http://203.0.113.2:8090/download?name=quit'])
  await expect(window.row('/download').filter({ hasText: 'live' })).toBeVisible()
  // What is recorded and what is counted come by ways of their own.
  await expect(window.button('Close at once (cuts 1 flow)')).toBeVisible()
  // Cancel: nothing happens.
  const ask = (response: number) =>
    running.app.evaluate(async ({ app, dialog }, button) => {
      const asked = new Promise<{ message: string; buttons: string[] }>((resolve) => {
        dialog.showMessageBox = ((_window: unknown, options: { message: string; buttons: string[] }) => {
          resolve({ message: options.message, buttons: options.buttons })
          return Promise.resolve({ response: button, checkboxChecked: false })
        }) as typeof dialog.showMessageBox
      })
      app.quit()
      return asked
    }, response)
  expect(await ask(2)).toEqual({ message: '1 flow is relayed through the gate.', buttons: ['Close at Once (cuts 1)', 'Let Them Finish', 'Cancel'] })
  await expect(window.gate).toHaveAttribute('data-gate', 'open')
  // Let them finish: the download comes whole, then the app is gone.
  const gone = running.app.waitForEvent('close')
  await ask(1)
  await lab.exec('router', ['curl', '-sS', 'http://203.0.113.2:8091/release?name=quit'])
  const { code } = await slow.ended
  expect({ code, bytes: slow.output() }).toEqual({ code: 0, bytes: String(512 << 10) })
  await gone
  await expect.poll(() => rulesIn(lab)).toBe(before)
})
