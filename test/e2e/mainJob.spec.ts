import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Har } from 'har-format'
import { expect, test } from '@playwright/test'

import { answerOpenDialog, answerSaveDialog } from '../support/e2e/launchApp.ts'
import { run } from '../support/e2e/run.ts'
import { rulesIn, startOrigin } from '../support/e2e/site.ts'
import { openStage, type Stage } from '../support/e2e/stage.ts'

/** The main job as a person does it in the window, with real programs. Each test goes on where the one before it ended. */
test.describe.configure({ mode: 'serial' })

let stage: Stage
let before: string
test.beforeAll(async () => {
  stage = await openStage()
  // Beside the demo's services: downloads that wait in the middle until they are told to go on.
  await startOrigin(stage.lab, 'server', [8090, 8091])
  before = await rulesIn(stage.lab)
})
test.afterAll(() => stage.stop())

test('the gate opens on the chosen ports, as previewed', async () => {
  const { window, lab } = stage
  const { page } = window
  await window.typePorts('80, 443, 6379, 8080, 8090')
  const rules = page.getByRole('complementary').locator('pre').first()
  await expect(rules).toContainText('elements = { 80, 443, 6379, 8080, 8090 }')
  const previewed = (await rules.textContent()) ?? ''
  await page.keyboard.press('Control+e')
  await expect(window.gate).toHaveAttribute('data-gate', 'open')
  await expect(window.gate).toHaveText(/Open\s*TCP 80, 443, 6379, 8080, 8090/)
  await expect(page.getByRole('heading', { name: 'Waiting for the first flow' })).toBeVisible()
  const chains = [...previewed.matchAll(/add chain inet sluice (\w+)/g)].map((match) => match[1])
  expect(chains.length).toBeGreaterThan(5)
  const loaded = (await lab.exec('router', ['nft', 'list', 'ruleset'])).stdout
  for (const chain of chains) expect(loaded).toContain(`chain ${chain ?? ''} `)
  expect(loaded).toContain('table inet sluice')
})

test('what real programs say appears decoded, with the program that said it', async () => {
  const { window } = stage
  for (const [name, scope] of [
    ['curl, POST of JSON', 'local'], ['curl, 404', 'local'], ['curl, TLS 1.2', 'local'], ['redis-cli', 'local'], ['git clone, IPv6', 'local'],
    ['a browser loads a page', 'local'], ['curl, two requests on one connection', 'forwarded'], ['curl, TLS 1.3', 'forwarded'],
  ] as const) {
    await stage.journey(name, scope).run()
  }
  await expect(window.row('POST /api/orders → 201 Created')).toContainText('curl')
  await expect(window.row('GET /missing → 404 Not Found')).toHaveClass(/\bwarn\b/)
  await expect(window.row('TLS 1.2 server.test')).toContainText('curl')
  await expect(window.row('6379').first()).toContainText('redis-cli')
  await expect(window.row('git-upload-pack').first()).toContainText('git-remote-http')
  await expect(window.row('chromium').first()).toBeVisible()
  await expect(window.row('GET /data.json → 200 OK (2 requests)').filter({ hasText: '198.51.100.2' })).toBeVisible()
  await expect(window.row('TLS 1.3 server.test')).toContainText('443')
  await window.useFilter('process == chromium and http')
  await expect.poll(async () => (await window.rows.allTextContents()).join('\n')).toMatch(/GET \/\S+ → 200 OK/)
  await window.useFilter('client == 198.51.100.2')
  await expect(window.rows).toHaveCount(2)
  await window.useFilter('')
})

test('details of a live capture: request, response, stream, process', async () => {
  const { window } = stage
  await window.row('POST /api/orders').click()
  let panel = await window.openTab('Request')
  await expect(panel).toContainText('"article"')
  panel = await window.openTab('Response')
  await expect(panel).toContainText('"order": 4711')
  panel = await window.openTab('Stream')
  await expect(panel).toContainText('POST /api/orders HTTP/1.1')
  await panel.getByRole('radio', { name: 'Hex' }).click()
  await expect(panel).toContainText('50 4f 53 54 20 2f 61 70  69')
  panel = await window.openTab('Process')
  await expect(panel).toContainText('/usr/bin/curl')
  panel = await window.openTab('Timing')
  await expect(panel.getByRole('row', { name: /POST/ })).toContainText('Wait')
  await window.details.getByRole('button', { name: 'Close details' }).click()
})

test('exports from the window: HAR, pcapng, NDJSON, all or what the filter shows', async () => {
  const { window, running, folder } = stage
  const { page } = window
  const exportAs = async (format: string, name: string): Promise<string> => {
    const path = join(folder, name)
    await answerSaveDialog(running.app, path)
    await page.keyboard.press('Control+Shift+E')
    const dialog = page.getByRole('dialog', { name: 'Export' })
    await dialog.getByRole('radio', { name: new RegExp(`^${format} `) }).check()
    await dialog.getByRole('button', { name: 'Export…' }).click()
    await expect(window.toasts.getByText(new RegExp(`to ${name.replace('.', '\\.')}`))).toBeVisible()
    await expect(dialog).toHaveCount(0)
    await window.toasts.getByRole('button', { name: 'Dismiss' }).first().click()
    return path
  }
  const total = Number((await window.footer.textContent())?.match(/(\d+) flows/)?.[1])
  const lines = readFileSync(await exportAs('NDJSON', 'all.ndjson'), 'utf8').trim().split('\n')
  expect(lines).toHaveLength(total)
  const pcapng = await exportAs('pcapng', 'all.pcapng')
  const complaints = await run('tshark', ['-n', '-r', pcapng, '-Y', '_ws.malformed || tcp.checksum.status == 0', '-o', 'tcp.check_checksum:TRUE', '-T', 'fields', '-e', 'frame.number'])
  expect(complaints.trim()).toBe('')
  expect(await run('tshark', ['-n', '-r', pcapng, '-Y', 'http.request.uri == "/api/orders"', '-T', 'fields', '-e', 'http.request.method'])).toContain('POST')
  await window.useFilter('status == 404')
  await expect(window.rows.first()).toBeVisible()
  const har = JSON.parse(readFileSync(await exportAs('HAR', 'some.har'), 'utf8')) as Har
  expect(har.log.entries.some(({ request }) => request.url.endsWith('/missing'))).toBe(true)
  expect(har.log.entries.some(({ request }) => request.url.endsWith('/api/orders'))).toBe(false)
  await window.useFilter('')
})

test('draining takes no new flow and lets the running one end; then nothing is left', async () => {
  const { window, lab } = stage
  const { page } = window
  const slow = lab.spawn('router', ['curl', '-sS', '-o', '/dev/null', '-w', '%{size_download}', 'http://203.0.113.2:8090/download?name=drain'])
  await expect(window.row('/download').filter({ hasText: 'live' })).toBeVisible()
  await expect(window.button(/^Close at once \(cuts 1 flow\)$/)).toBeVisible()
  const total = await window.footer.textContent()
  // A second click at the same place must not cut anything.
  await window.button('Drain and close').dblclick()
  await expect(window.gate).toHaveAttribute('data-gate', 'draining')
  await expect(window.gate).toContainText('1 flow still running; new ones go direct')
  await stage.journey('curl, 404', 'local').run()
  // Ctrl+E never cuts: it leads to the button that would.
  await page.keyboard.press('Control+e')
  await expect(window.button(/^Close at once/)).toBeFocused()
  await lab.exec('router', ['curl', '-sS', 'http://203.0.113.2:8091/release?name=drain'])
  const { code } = await slow.ended
  expect({ code, bytes: slow.output() }).toEqual({ code: 0, bytes: String(512 << 10) })
  await expect(window.gate).toHaveAttribute('data-gate', 'closed')
  await expect(window.gate).toContainText('Nothing is intercepted')
  await expect(window.row('/download')).toContainText('finished')
  expect((await window.footer.textContent())?.match(/\d+ flows/)?.[0]).toBe(total?.match(/\d+ flows/)?.[0])
  await expect.poll(() => rulesIn(lab)).toBe(before)
})

test('closing at once says how many it cuts, cuts them, and leaves nothing', async () => {
  const { window, lab } = stage
  await window.openGate('8090')
  await expect(window.footer).toContainText('0 flows')
  // It waits in the midst of it: one that reads slowly reads on what it has before it hears of a reset, which may be megabytes.
  const slow = lab.spawn('client', ['curl', '-sS', '-o', '/dev/null', 'http://203.0.113.2:8090/download?name=cut'])
  await window.button('Close at once (cuts 1 flow)').click()
  expect((await slow.ended).code).not.toBe(0)
  await expect(window.gate).toHaveAttribute('data-gate', 'closed')
  await expect(window.rows.first()).toContainText('cut by gate')
  await expect.poll(() => rulesIn(lab)).toBe(before)
})

test('a session of before is opened again from disk', async () => {
  const { window, running } = stage
  const first = readdirSync(running.sessions).sort()[0] ?? ''
  await answerOpenDialog(running.app, join(running.sessions, first))
  await window.page.keyboard.press('Control+o')
  await expect(window.footer).toContainText(first)
  await expect(window.row('POST /api/orders')).toBeVisible()
})
