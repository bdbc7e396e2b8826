import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from '@playwright/test'

import { openWindow, type OpenWindow } from '../support/e2e/openWindow.ts'
import { recordedFlows } from '../support/e2e/recordedFlows.ts'

const axe = readFileSync(fileURLToPath(new URL('../../node_modules/axe-core/axe.min.js', import.meta.url)), 'utf8')
let open: OpenWindow
test.beforeAll(async () => {
  open = await openWindow(recordedFlows())
})
test.afterAll(() => open.stop())

/** Faults of accessibility that axe finds in what is on show, one line each. */
async function faults(): Promise<string[]> {
  const { page } = open.window
  await page.evaluate(`if (!globalThis.axe) { ${axe} }`)
  // Motion ends first: a half faded colour has no contrast of its own.
  await page.evaluate('Promise.all(document.getAnimations().filter((one) => one.effect.getComputedTiming().iterations !== Infinity).map((one) => one.finished))')
  return page.evaluate<string[]>(`axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) =>
    violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => id + ' ' + target.join(' ') + ': ' + failureSummary)))`)
}

for (const theme of ['Light', 'Dark'] as const) {
  test(`every view can be read and used by everybody, ${theme.toLowerCase()}`, async () => {
    const { window } = open
    const { page } = window
    await window.go('Flows')
    await window.theme(theme)
    const background = await page.evaluate('getComputedStyle(document.body).backgroundColor')
    expect(background).toBe(theme === 'Light' ? 'rgb(243, 244, 245)' : 'rgb(29, 31, 34)')
    await window.grid.press('Home')
    await expect(window.row('/orders')).toBeVisible()
    expect(await faults(), 'flows').toEqual([])
    await window.row('GET /missing').click()
    for (const tab of ['Overview', 'Request', 'Response', 'Stream', 'Timing', 'Process']) {
      await window.openTab(tab)
      expect(await faults(), tab).toEqual([])
    }
    await window.row('server reset').click()
    await window.openTab('Stream')
    await expect(window.details).toContainText('not in the record')
    expect(await faults(), 'a stream with a hole').toEqual([])
    await window.row('GET /broken').click({ button: 'right' })
    await expect(page.getByRole('menu')).toBeVisible()
    expect(await faults(), 'menu').toEqual([])
    await page.keyboard.press('Escape')
    await window.filter.fill('status >=')
    await expect(page.getByRole('search')).toHaveClass(/invalid/)
    expect(await faults(), 'a wrong filter').toEqual([])
    await window.useFilter('')
    for (const [name, key] of [['export', 'Control+Shift+E'], ['keys', 'F1']] as const) {
      await page.keyboard.press(key)
      await expect(page.getByRole('dialog')).toBeVisible()
      expect(await faults(), name).toEqual([])
      await page.keyboard.press('Escape')
      await expect(page.getByRole('dialog')).toHaveCount(0)
    }
    // Keys pressed one upon the other: what the browser says of the first dialog's end does not close the second.
    await page.keyboard.press('Control+Shift+E')
    await expect(page.getByRole('dialog', { name: 'Export' })).toBeVisible()
    await Promise.all([page.keyboard.press('Escape'), page.keyboard.press('F1')])
    await expect(page.getByRole('dialog', { name: 'Keyboard' })).toBeVisible()
    await page.keyboard.press('Escape')
    await expect(page.getByRole('dialog')).toHaveCount(0)
    await window.go('Ports')
    await expect(page.getByRole('complementary').locator('pre').first()).toBeVisible()
    for (const part of ['Only some of it', 'Send ports to a proxy', 'More choices']) await page.getByText(part).click()
    await window.button('Add a proxy').click()
    const users = page.getByRole('combobox', { name: 'Run by users' })
    await users.pressSequentially('root, no')
    await expect(page.getByRole('option', { name: 'nobody' })).toBeVisible()
    expect(await faults(), 'ports').toEqual([])
    await users.press('Escape')
    await users.fill('')
    await users.press('Backspace')
    await window.button('Take this away, 1').click()
    for (const part of ['Only some of it', 'Send ports to a proxy', 'More choices']) await page.getByText(part).click()
    await window.typePorts('70000')
    expect(await faults(), 'wrong ports').toEqual([])
    await window.typePorts('80')
    await window.go('Doctor')
    await expect(page.getByRole('main').getByRole('listitem').first()).toBeVisible()
    expect(await faults(), 'doctor').toEqual([])
  })
}

test('the theme is kept for the next start, and System follows the desktop', async () => {
  const { running, window } = open
  await window.theme('Dark')
  const kept = JSON.parse(readFileSync(`${running.userData}/settings.json`, 'utf8')) as { settings: { theme: string } }
  expect(kept.settings.theme).toBe('dark')
  expect(await running.app.evaluate(({ nativeTheme }) => nativeTheme.themeSource)).toBe('dark')
})
