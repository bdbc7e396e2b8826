import { expect, test } from '@playwright/test'

import { openWindow, type OpenWindow } from '../support/e2e/openWindow.ts'
import { recordedFlows } from '../support/e2e/recordedFlows.ts'

const many = 5000
let open: OpenWindow
test.beforeAll(async () => {
  open = await openWindow(recordedFlows(many))
  await expect(open.window.footer).toContainText('5,006 flows')
})
test.afterAll(() => open.stop())
test.beforeEach(async () => {
  await open.window.useFilter('')
  await expect(open.window.footer).toContainText(/^\s*5,006 flows/)
})

const clipboard = () => open.running.app.evaluate(({ clipboard: board }) => board.readText())

test('thousands of flows, of which only those in sight are in the page', async () => {
  const { window } = open
  await expect(window.grid).toHaveAttribute('aria-rowcount', String(many + 7))
  await window.grid.press('Home')
  await expect(window.row('/orders?from=page')).toBeVisible()
  expect(await window.rows.count()).toBeLessThan(80)
  await window.grid.press('End')
  await expect(window.row(`GET /item/${many - 1} → 200 OK`)).toBeVisible()
  expect(await window.rows.count()).toBeLessThan(80)
  // Dragging the scroll bar to the middle fetches what is there.
  await window.grid.evaluate((grid) => { (grid as unknown as { scrollTop: number; scrollHeight: number }).scrollTop = (grid as unknown as { scrollHeight: number }).scrollHeight / 2 })
  await expect(window.row(/GET \/item\/24\d\d /).first()).toBeVisible()
})

test('the filter box says whether it is right, and shows matching of all', async () => {
  const { window } = open
  const { page } = window
  const box = page.getByRole('search')
  await window.filter.fill('status >= 400')
  await expect(box).toHaveClass(/\bvalid/)
  await expect(window.footer).toContainText('2 / 5,006 flows')
  await expect(window.rows).toHaveCount(2)
  await window.filter.fill('status >= 400 and')
  await expect(box).toHaveClass(/\binvalid/)
  await expect(window.filter).toHaveAttribute('aria-invalid', 'true')
  await expect(page.locator('#filter-says')).not.toBeEmpty()
  // What was right before stays in force.
  await expect(window.footer).toContainText('2 / 5,006 flows')
  await window.filter.fill('orders')
  await expect(window.rows).toHaveCount(1)
  await window.useFilter('process == "git-remote-http"')
  await expect(window.rows).toHaveCount(1)
  await expect(window.rows).toContainText('refused')
  await window.useFilter('name == nobody.test')
  await expect(page.getByRole('heading', { name: 'No flow matches the filter' })).toBeVisible()
  await page.getByRole('main').getByRole('button', { name: 'Clear filter' }).click()
  await expect(window.footer).toContainText(/^\s*5,006 flows/)
})

test('fields are completed from the keyboard', async () => {
  const { window } = open
  await window.filter.fill('sta')
  const list = window.page.getByRole('listbox', { name: 'Completions' })
  await expect(list).toBeVisible()
  await window.filter.press('ArrowDown')
  await window.filter.press('Tab')
  await expect(window.filter).toHaveValue(/^sta\w+ $/)
  await window.filter.press('Escape')
  await window.filter.press('Escape')
  await expect(window.filter).toHaveValue('')
})

test('titles sort, once up and once down', async () => {
  const { window } = open
  /** Until the new order has come, the rows are those of the former one. */
  const sortBy = async (name: string, order: 'ascending' | 'descending'): Promise<void> => {
    const title = window.page.getByRole('columnheader', { name, exact: true })
    await title.getByRole('button').click()
    await expect(title).toHaveAttribute('aria-sort', order)
    await expect(window.grid).toHaveAttribute('aria-busy', 'false')
  }
  await sortBy('Down', 'descending')
  await window.grid.press('Home')
  await expect(window.rows.first()).toContainText('5.0 kB')
  await sortBy('Down', 'ascending')
  // The selected flow stays in sight, wherever it stands now.
  await window.grid.press('Home')
  await expect(window.rows.first()).toContainText('0 B')
  await sortBy('No.', 'ascending')
  await window.grid.press('Home')
  await expect(window.rows.first()).toContainText('/orders')
})

test('colours, words and marks tell how flows ended', async () => {
  const { window } = open
  await window.grid.press('Home')
  await expect(window.row('/orders?from=page')).toHaveClass(/\bhttp\b/)
  await expect(window.row('GET /missing')).toHaveClass(/\bwarn\b/)
  await expect(window.row('GET /broken').locator('strong')).toHaveText('503')
  await expect(window.row('GET /broken')).toHaveClass(/\berror\b/)
  await expect(window.row('refused')).toHaveClass(/\berror\b/)
  await expect(window.row('server reset')).toHaveClass(/\berror\b/)
  await expect(window.row('GET /endless')).toContainText('unfinished')
})

test('the keyboard alone reads a flow', async () => {
  const { window } = open
  const { page } = window
  await page.keyboard.press('Control+f')
  await expect(window.filter).toBeFocused()
  await page.keyboard.type('id <= 6')
  await page.keyboard.press('Enter')
  await expect(window.grid).toBeFocused()
  await expect(window.rows).toHaveCount(6)
  await page.keyboard.press('Home')
  await page.keyboard.press('j')
  await page.keyboard.press('ArrowDown')
  await page.keyboard.press('k')
  await expect(window.rows.nth(1)).toHaveAttribute('aria-selected', 'true')
  await page.keyboard.press('Enter')
  await expect(window.details.getByRole('tab', { name: 'Overview' })).toBeFocused()
  await page.keyboard.press('ArrowRight')
  await expect(window.details.getByRole('tab', { name: 'Request' })).toHaveAttribute('aria-selected', 'true')
  await expect(window.details.getByRole('listbox', { name: 'Requests of this flow' })).toBeVisible()
  await page.keyboard.press('Escape')
  await expect(window.grid).toBeFocused()
  await page.keyboard.press('Control+c')
  await expect.poll(clipboard).toContain('#2 ')
  // Marks: two of them, then from one to the next and round.
  await page.keyboard.press('Control+m')
  await page.keyboard.press('End')
  await page.keyboard.press('Control+m')
  await expect(window.rows.nth(1)).toHaveClass(/\bmarked\b/)
  await page.keyboard.press('Control+Shift+N')
  await expect(window.rows.nth(1)).toHaveAttribute('aria-selected', 'true')
  await page.keyboard.press('Control+Shift+N')
  await expect(window.rows.nth(5)).toHaveAttribute('aria-selected', 'true')
  await page.keyboard.press('Control+m')
  await expect(window.rows.nth(5)).not.toHaveClass(/\bmarked\b/)
  await page.keyboard.press('Escape')
  await expect(window.filter).toHaveValue('')
})

test('details of an exchange: overview, request, response, stream as text and bytes, timing, process', async () => {
  const { window } = open
  await window.grid.press('Home')
  await window.row('/orders?from=page').click()
  let panel = await window.openTab('Overview')
  await expect(panel).toContainText('shop.test')
  await expect(panel).toContainText('named in the Host header')
  await expect(panel).toContainText('Both sides closed in good order.')
  panel = await window.openTab('Request')
  await expect(panel).toContainText('POST /orders?from=page HTTP/1.1')
  await expect(panel.getByRole('rowheader', { name: 'Content-Type' })).toBeVisible()
  await expect(panel).toContainText('"article"')
  await panel.getByRole('button', { name: 'Copy as cURL' }).click()
  await expect.poll(clipboard).toBe(`curl 'http://shop.test/orders?from=page' -H 'Content-Type: application/json' -H 'X-Note: it'\\''s new' --data-raw '{"article":"lamp"}'`)
  panel = await window.openTab('Response')
  await expect(panel).toContainText('201 Created')
  await expect(panel).toContainText('"order": 4711')
  await panel.getByRole('radio', { name: 'As sent' }).click()
  await expect(panel.getByRole('region', { name: 'Body as bytes' })).toContainText('1f 8b')
  panel = await window.openTab('Stream')
  await expect(panel).toContainText('X-Note: it\'s new')
  await panel.getByRole('radio', { name: 'Hex' }).click()
  await expect(panel).toContainText('00000000')
  await expect(panel).toContainText('50 4f 53 54 20 2f 6f 72  64 65 72 73')
  // Sixteen bytes a row, row under row.
  const [first, second] = await Promise.all(['00000000', '00000010'].map((offset) => panel.getByText(offset).first().boundingBox()))
  expect(second?.x).toBe(first?.x)
  expect(second?.y).toBeGreaterThan(first?.y ?? Infinity)
  await panel.getByRole('radio', { name: /Server/ }).click()
  await expect(panel).not.toContainText('50 4f 53 54 20 2f 6f 72')
  panel = await window.openTab('Timing')
  await expect(panel.getByRole('row', { name: /Connect/ })).toContainText('2.0 ms')
  await expect(panel.getByRole('row', { name: /POST/ })).toContainText(/Wait\s*1\.0 ms/)
  panel = await window.openTab('Process')
  await expect(panel).toContainText('/usr/bin/curl')
  await expect(panel).toContainText('4242')
  await panel.getByRole('button', { name: 'Only flows of this program' }).click()
  await expect(window.filter).toHaveValue('process == curl')
  await expect(window.rows).toHaveCount(1)
})

test('several requests of one connection are chosen one by one', async () => {
  const { window } = open
  await window.grid.press('Home')
  await window.row('GET /missing').click()
  const panel = await window.openTab('Response')
  const list = panel.getByRole('listbox', { name: 'Requests of this flow' })
  await expect(list.getByRole('option')).toHaveCount(2)
  await list.getByRole('option', { name: '/missing' }).click()
  await expect(panel).toContainText('404 Not Found')
  await window.openTab('Process')
  await expect(window.details).toContainText('This flow came from another device')
})

test('hostile bytes are shown, never obeyed; what is missing is said', async () => {
  const { window } = open
  await window.grid.press('Home')
  await window.row('server reset').click()
  const panel = await window.openTab('Stream')
  await panel.getByRole('radio', { name: 'Text' }).click()
  await expect(panel).toContainText('<img src=x onerror=alert(1)>')
  await expect(panel).toContainText('5.0 kB are not in the record')
  await expect(panel.locator('.special').first()).toBeVisible()
  expect(await panel.locator('img').count()).toBe(0)
  expect(await panel.textContent()).not.toMatch(/[\u001b\u202e]/)
  await window.openTab('Overview')
  await expect(window.details).toContainText('The server reset the connection.')
  await expect(window.details).toContainText('the disk was too slow')
})

test('the menu of a row filters by its facts, hides, marks and copies', async () => {
  const { window } = open
  const { page } = window
  await window.grid.press('Home')
  await window.row('/orders?from=page').click({ button: 'right' })
  const menu = page.getByRole('menu', { name: 'Flow' })
  await menu.getByRole('menuitem', { name: 'Show only this program' }).click()
  await expect(window.filter).toHaveValue('process == curl')
  await expect(window.rows).toHaveCount(1)
  await window.useFilter('id <= 6')
  await window.row('/orders?from=page').click({ button: 'right' })
  await menu.getByRole('menuitem', { name: 'Hide this server' }).click()
  await expect(window.filter).toHaveValue('id <= 6 and not name == shop.test')
  await expect(window.rows).toHaveCount(5)
  await window.row('GET /broken').click()
  await page.keyboard.press('Shift+F10')
  await menu.getByRole('menuitemcheckbox', { name: 'Mark' }).press('Enter')
  await expect(window.row('GET /broken')).toHaveClass(/\bmarked\b/)
  await window.row('GET /broken').click({ button: 'right' })
  await menu.getByRole('menuitem', { name: 'Copy URL' }).click()
  await expect.poll(clipboard).toBe('http://site.test/broken')
  await window.row('GET /broken').click({ button: 'right' })
  await menu.getByRole('menuitem', { name: 'Copy as cURL' }).click()
  await expect.poll(clipboard).toBe('curl http://site.test/broken')
  await window.row('server reset').click({ button: 'right' })
  await expect(menu.getByRole('menuitem', { name: 'Copy as cURL' })).toHaveAttribute('aria-disabled', 'true')
  await page.keyboard.press('Escape')
  await expect(menu).toHaveCount(0)
})

test('columns are hidden and shown again, details stand below or at the right', async () => {
  const { window } = open
  const { page } = window
  await window.footer.getByRole('button', { name: 'Columns' }).click()
  await page.getByRole('menuitemcheckbox', { name: 'Duration' }).click()
  await expect(page.getByRole('columnheader', { name: 'Duration' })).toHaveCount(0)
  await window.footer.getByRole('button', { name: 'Columns' }).click()
  await page.getByRole('menuitemcheckbox', { name: 'Duration' }).click()
  await expect(page.getByRole('columnheader', { name: 'Duration' })).toHaveCount(1)
  await window.grid.press('Home')
  await window.rows.first().click()
  const bar = page.getByRole('separator', { name: 'Size of the details' })
  await expect(bar).toHaveAttribute('aria-orientation', 'horizontal')
  await window.footer.getByRole('button', { name: 'Details at the right' }).click()
  await expect(bar).toHaveAttribute('aria-orientation', 'vertical')
  await window.footer.getByRole('button', { name: 'Details below' }).click()
  await window.details.getByRole('button', { name: 'Close details' }).click()
  await expect(window.details).toHaveCount(0)
})
