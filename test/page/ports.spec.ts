import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net'
import { expect, test } from '@playwright/test'

import { openWindow, type OpenWindow } from '../support/e2e/openWindow.ts'

let open: OpenWindow
test.beforeAll(async () => {
  open = await openWindow()
})
test.afterAll(() => open.stop())

test('what is typed is checked as it is typed, and a wrong list opens nothing', async () => {
  const { window } = open
  const { page } = window
  await expect(window.gate).toHaveAttribute('data-gate', 'closed')
  await expect(window.gate).toHaveText(/Closed\s*Nothing is intercepted/)
  const says = page.locator('#ports-says')
  for (const [text, reason] of [['0', /0/], ['70000', /70000/], ['80-70', /80-70/], ['abc', /abc/], ['80,,443', /nothing between two commas/]] as const) {
    await window.typePorts(text)
    await expect(says).toHaveText(reason)
    await expect(says).toHaveClass(/problem/)
    await expect(page.getByRole('textbox', { name: 'TCP ports to intercept' })).toHaveAttribute('aria-invalid', 'true')
    await expect(window.button('Choose ports first')).toBeVisible()
    await page.keyboard.press('Control+e')
    await expect(window.gate).toHaveAttribute('data-gate', 'closed')
  }
  await window.typePorts('443 80, 8000-8100')
  await expect(says).toHaveText(/^103 ports/)
  await expect(window.button('Open gate')).toBeEnabled()
})

test('presets are added and taken away, and recent words stay as they were chosen', async () => {
  const { window } = open
  const { page } = window
  const field = page.getByRole('textbox', { name: 'TCP ports to intercept' })
  await window.typePorts('22')
  const web = page.getByRole('group', { name: 'Presets' }).getByRole('button', { name: 'Web' })
  await expect(web).toHaveAttribute('aria-pressed', 'false')
  await web.click()
  await expect(field).toHaveValue('22,80,443,8080')
  await expect(web).toHaveAttribute('aria-pressed', 'true')
  await web.click()
  await expect(field).toHaveValue('22')
})

test('ports of this computer stand there with their programs and can be clicked', async () => {
  const { window } = open
  const { page } = window
  const accepted: Socket[] = []
  const server: Server = createServer((socket) => accepted.push(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const talk = connect(port, '127.0.0.1')
  try {
    await window.typePorts('80')
    const rows = page.getByRole('region', { name: 'Ports of this computer right now' }).getByRole('button', { name: new RegExp(`^${port}\\b`) })
    await expect(rows).toHaveCount(2)
    await expect(rows.filter({ hasText: '1 connection' })).toContainText('node')
    await rows.filter({ hasText: '127.0.0.1' }).click()
    await expect(page.getByRole('textbox', { name: 'TCP ports to intercept' })).toHaveValue(`80,${port}`)
    await expect(rows.first()).toHaveAttribute('aria-pressed', 'true')
  } finally {
    talk.destroy()
    for (const socket of accepted) socket.destroy()
    server.close()
  }
})

test('the preview says in words and in rules what opening would do', async () => {
  const { window } = open
  const { page } = window
  await window.typePorts('80, 443')
  const preview = page.getByRole('complementary')
  await expect(preview).toContainText('TCP ports 80, 443 will be intercepted.')
  await expect(preview.locator('pre').first()).toContainText('add table inet sluice')
  await expect(preview.locator('pre').first()).toContainText('elements = { 80, 443 }')
  await page.getByText('More choices').click()
  await page.getByLabel('Leave alone').fill('198.51.100.0/24')
  await page.getByLabel('Rules by').selectOption('iptables')
  await expect(preview.locator('pre').first()).toContainText('*mangle')
  await expect(preview).toContainText('198.51.100.0/24')
  await page.getByLabel('Routed through this computer').uncheck()
  await expect(preview).toContainText('198.51.100.0/24')
  await page.getByLabel('Leave alone').fill('198.51.100.0/99')
  await expect(page.locator('#exclude-says')).toHaveClass(/problem/)
  await expect(preview).toContainText('As soon as the choice is complete')
  await page.getByLabel('Leave alone').fill('')
  await page.getByLabel('This computer’s programs').uncheck()
  await expect(page.getByText('Choose whose traffic')).toBeVisible()
  await expect(window.button('Choose ports first')).toBeVisible()
  await page.getByLabel('This computer’s programs').check()
  await page.getByLabel('Rules by').selectOption('auto')
  await preview.getByRole('button', { name: /^Copy nftables/ }).click()
  await expect.poll(() => open.running.app.evaluate(({ clipboard }) => clipboard.readText())).toContain('add table inet sluice')
})
