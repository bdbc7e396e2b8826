import { createSocket } from 'node:dgram'
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
    await expect(page.getByRole('textbox', { name: 'Ports to intercept' })).toHaveAttribute('aria-invalid', 'true')
    await expect(window.button('Choose ports first')).toBeVisible()
    await page.keyboard.press('Control+e')
    await expect(window.gate).toHaveAttribute('data-gate', 'closed')
  }
  await window.typePorts('443 80, 8000-8100')
  await expect(says).toHaveText(/^103 ports/)
  await expect(window.button('Open gate')).toBeEnabled()
  await window.typePorts('53/sctp')
  await expect(says).toHaveText(/"53\/sctp" is no port/)
  await window.typePorts('443 80, 53/udp')
  await expect(says).toHaveText(/^2 ports and 1 port of UDP\./)
})

test('presets are added and taken away, and recent words stay as they were chosen', async () => {
  const { window } = open
  const { page } = window
  const field = page.getByRole('textbox', { name: 'Ports to intercept' })
  await window.typePorts('22')
  const web = page.getByRole('group', { name: 'Presets' }).getByRole('button', { name: 'Web' })
  await expect(web).toHaveAttribute('aria-pressed', 'false')
  await web.click()
  await expect(field).toHaveValue('22, 80, 443, 8080')
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
    await expect(page.getByRole('textbox', { name: 'Ports to intercept' })).toHaveValue(`80, ${port}`)
    await expect(rows.first()).toHaveAttribute('aria-pressed', 'true')
  } finally {
    talk.destroy()
    for (const socket of accepted) socket.destroy()
    server.close()
  }
})

test('UDP is chosen and refused like any port, and a socket of UDP stands in the list', async () => {
  const { window } = open
  const { page } = window
  const field = page.getByRole('textbox', { name: 'Ports to intercept' })
  const presets = page.getByRole('group', { name: 'Presets' })
  const preview = page.getByRole('complementary')
  const socket = createSocket('udp4')
  await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
  try {
    await window.typePorts('80')
    await presets.getByRole('button', { name: 'DNS' }).click()
    await expect(field).toHaveValue('53, 80, 53/udp')
    await presets.getByRole('button', { name: 'Refuse QUIC' }).click()
    await expect(preview).toContainText('TCP ports 53, 80 and UDP ports 53, 443 will be intercepted.')
    await expect(preview).toContainText('What comes for UDP port 443 is refused')
    await page.getByText('More choices').click()
    await page.getByRole('group', { name: 'UDP is over after' }).getByLabel('s DNS').fill('5')
    await expect(preview).toContainText('after 5 seconds of silence (DNS), 60 seconds (QUIC)')
    await page.getByRole('group', { name: 'UDP is over after' }).getByLabel('s DNS').fill('')
    await presets.getByRole('button', { name: 'Refuse QUIC' }).click()
    await expect(page.getByLabel('Refuse UDP')).toHaveValue('')
    await page.getByText('More choices').click()
    const row = page.getByRole('region', { name: 'Ports of this computer right now' }).getByRole('button', { name: new RegExp(`^${socket.address().port}/udp`) })
    await row.click()
    await expect(field).toHaveValue(`53, 80, 53/udp, ${socket.address().port}/udp`)
    await expect(row).toHaveAttribute('aria-pressed', 'true')
  } finally {
    socket.close()
  }
})

test('devices\' ports can be kept where connections wait, and what another tool would do otherwise stands beside the rules', async () => {
  const { window } = open
  const { page } = window
  const preview = page.getByRole('complementary')
  await window.typePorts('80')
  await page.getByText('More choices').click()
  const keep = page.getByRole('checkbox', { name: /^Keep devices’ ports/ })
  const wait = page.getByRole('checkbox', { name: /^Wait for the server/ })
  await expect(keep).not.toBeChecked()
  await keep.check()
  await expect(preview).toContainText('Servers see the devices’ own ports, too')
  await wait.uncheck()
  await expect(keep).toBeDisabled()
  await expect(keep).not.toBeChecked()
  await expect(preview).not.toContainText('Servers see the devices’ own ports, too')
  await wait.check()
  await keep.uncheck()

  await preview.getByText('What another tool would do otherwise').click()
  await expect(preview.getByText('When somebody else flushes all rules,')).toBeVisible()
  await page.getByLabel('Rules by').selectOption('nft')
  await expect(preview).toContainText('By nftables it is so:')
  await expect(preview).toContainText('ours stay, where tables can have an owner')
  await page.getByLabel('Rules by').selectOption('iptables')
  await expect(preview).toContainText('ours go too, and are put back within a second')
  await page.getByLabel('Rules by').selectOption('auto')
  await page.getByText('More choices').click()
})

test('the dialog of keys tells of time limits as well', async () => {
  const { page } = open.window
  await page.keyboard.press('F1')
  await expect(page.getByRole('dialog', { name: 'Keyboard' })).toContainText('it drains and closes by itself then. Apply for… does the same for ports that are added.')
  await page.keyboard.press('Escape')
})

test('how much is kept at most stands there from the start, and what is no size opens nothing', async () => {
  const { window } = open
  const { page } = window
  await window.typePorts('80')
  await page.getByText('More choices').click()
  const keep = page.getByRole('group', { name: 'Keep at most' })
  const [session, flow, says] = [keep.getByLabel('a session'), keep.getByLabel('a flow'), page.locator('#keep-says')]
  await expect(session).toHaveValue('4 GiB')
  await expect(flow).toHaveValue('')
  await expect(says).toHaveText(/its oldest part goes for the newest/)
  for (const [text, reason] of [['much', /"much"/], ['4', /At least 1 MiB/], ['-1', /"-1"/]] as const) {
    await session.fill(text)
    await expect(says).toHaveText(reason)
    await expect(says).toHaveClass(/problem/)
    await expect(session).toHaveAttribute('aria-invalid', 'true')
    await page.keyboard.press('Control+e')
    await expect(window.gate).toHaveAttribute('data-gate', 'closed')
  }
  await session.fill('500M')
  await flow.fill('64 KiB')
  await expect(says).toHaveText(/its oldest part goes/)
  await expect(window.button('Open gate')).toBeEnabled()
  // And how many flows at once.
  const flows = page.getByLabel('Flows at once')
  await flows.fill('0')
  await expect(page.locator('#maxFlows-says')).toHaveText(/1 to 1000000/)
  await expect(flows).toHaveAttribute('aria-invalid', 'true')
  await flows.fill('100')
  await expect(page.locator('#maxFlows-says')).toHaveText(/beyond is reset/)
  await expect(window.button('Open gate')).toBeEnabled()
  await flows.fill('')
  await session.fill('4 GiB')
  await flow.fill('')
  await page.getByText('More choices').click()
})

test('whom to intercept is chosen from what this machine has, with the keyboard alone, and a name nobody has is said', async () => {
  const { window } = open
  const { page } = window
  const preview = page.getByRole('complementary')
  await window.typePorts('80')
  await page.getByText('Only some of it').click()
  const users = page.getByRole('combobox', { name: 'Run by users' })
  await users.focus()
  await page.keyboard.type('nobo')
  const offers = page.getByRole('listbox', { name: 'Suggestions' })
  await expect(offers.getByRole('option', { name: 'nobody' })).toBeVisible()
  await page.keyboard.press('ArrowDown')
  await page.keyboard.press('Enter')
  await page.keyboard.type('nosuchuser,')
  await expect(page.locator('#users-says')).toHaveText('there is no user "nosuchuser"')
  await expect(users).toHaveAttribute('aria-invalid', 'true')
  await expect(window.button('Mend the choices first')).toBeVisible()
  await page.keyboard.press('Backspace')
  await expect(preview).toContainText('that run as user 65534 are included')
  await expect(window.button('Open gate')).toBeEnabled()
  await page.keyboard.press('Tab')
  await expect(page.getByRole('combobox', { name: 'Run in groups' })).toBeFocused()
  await page.keyboard.type('0')
  await expect(preview).toContainText('in group 0')
  await page.keyboard.press('Backspace')
  await page.getByRole('button', { name: 'Remove nobody' }).press('Enter')
  await page.getByRole('combobox', { name: 'Units, containers' }).fill('nosuch.service')
  await expect(page.locator('#programs-says')).toContainText('nosuch.service')
  await page.getByRole('combobox', { name: 'Units, containers' }).fill('')
  await page.getByRole('combobox', { name: 'Clients in' }).fill('198.51.100.0/24')
  await page.getByRole('combobox', { name: 'But not in' }).fill('198.51.100.9')
  await page.getByRole('combobox', { name: 'Servers in' }).fill('203.0.113.0/24')
  await expect(preview).toContainText('Only connections to servers in 203.0.113.0/24 are included.')
  await expect(preview).toContainText('Connections from addresses in 198.51.100.9/32 are left alone.')
  await page.getByRole('combobox', { name: 'Network namespace' }).fill('blue')
  await expect(preview).toContainText('All this happens in the network namespace blue.')
  await expect(preview.locator('pre')).toHaveCount(0)
  for (const name of ['Clients in', 'But not in', 'Servers in', 'Network namespace']) {
    await page.getByRole('combobox', { name }).focus()
    await page.keyboard.press('Backspace')
  }
  await expect(preview.locator('pre').first()).toBeVisible()
  await page.getByText('Only some of it').click()
})

test('ports are sent to a proxy by address or by the path of its socket', async () => {
  const { window } = open
  const { page } = window
  const preview = page.getByRole('complementary')
  await window.typePorts('80')
  await page.getByText('Send ports to a proxy').click()
  await window.button('Add a proxy').click()
  await expect(page.getByRole('textbox', { name: 'Ports sent, 1' })).toBeFocused()
  await page.keyboard.type('8080')
  await page.getByRole('textbox', { name: 'Proxy, 1' }).fill('/run/proxy.sock')
  await expect(preview).toContainText('What is meant for TCP port 8080 goes to the proxy (told by PROXY protocol) at /run/proxy.sock')
  await page.getByRole('combobox', { name: 'Spoken to by, 1' }).selectOption('socks5')
  await expect(page.locator('#send-says')).toHaveText('A SOCKS server is reached by address and port')
  await page.getByRole('textbox', { name: 'Proxy, 1' }).fill('127.0.0.1:1080')
  await expect(preview).toContainText('the SOCKS server at 127.0.0.1:1080')
  await page.getByRole('combobox', { name: 'Spoken to by, 1' }).selectOption('tproxy')
  await expect(page.locator('#send-says')).toContainText('told by its port alone')
  await page.getByRole('textbox', { name: 'Proxy, 1' }).fill('3129')
  await expect(preview).toContainText('the proxy in TPROXY mode at port 3129 of this computer')
  await window.button('Take this away, 1').click()
  await expect(preview).not.toContainText('TPROXY mode')
  await page.getByText('Send ports to a proxy').click()
})

test('the preview says in words and in rules what opening would do', async () => {
  const { window } = open
  const { page } = window
  await window.typePorts('80, 443')
  const preview = page.getByRole('complementary')
  await expect(preview).toContainText('TCP ports 80, 443 will be intercepted.')
  await expect(preview.locator('pre').first()).toContainText('add table inet sluice')
  await expect(preview.locator('pre').first()).toContainText('elements = { 80, 443 }')
  await page.getByText('Only some of it').click()
  await page.getByText('More choices').click()
  await page.getByLabel('Leave alone').fill('198.51.100.0/24')
  await page.getByLabel('Rules by').selectOption('iptables')
  await expect(preview.locator('pre').first()).toContainText('*mangle')
  await expect(preview).toContainText('198.51.100.0/24')
  await page.getByLabel('Routed through this computer').uncheck()
  await page.getByLabel('Clients of this computer’s own services').check()
  await expect(preview).toContainText('What others say to services of this computer itself is included, whichever interface it comes in by.')
  await page.getByLabel('Clients of this computer’s own services').uncheck()
  await expect(preview).toContainText('What others say to services of this computer itself is left alone.')
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
