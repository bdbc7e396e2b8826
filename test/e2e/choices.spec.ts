import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from '@playwright/test'

import { labAddresses, makeLab, type Lab, type Place } from '../lab/makeLab.ts'
import { startDesktop, type Desktop } from '../support/e2e/desktop.ts'
import { launchApp, type RunningApp } from '../support/e2e/launchApp.ts'
import { rulesIn, startOrigin } from '../support/e2e/site.ts'
import { WindowDriver } from '../support/e2e/windowDriver.ts'

/** What a person chooses besides ports of TCP, on the real gate, each test where the one before it ended. */
test.describe.configure({ mode: 'serial' })

const command = fileURLToPath(new URL('../../build/node/cli.mjs', import.meta.url))
let desktop: Desktop
let lab: Lab
let folder: string
let running: RunningApp
let window: WindowDriver
let before: string
const { server } = labAddresses.ipv4

test.beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-e2e-'))
  ;[desktop, lab] = await Promise.all([startDesktop(), makeLab()])
  const names = `dnsmasq --keep-in-foreground --log-facility=- --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= --bind-interfaces --listen-address=${server} --address=/www.example.test/203.0.113.7`
  const launching = launchApp(desktop, { folder, netns: lab.paths.router })
  lab.spawn('router', ['microsocks', '-i', '127.0.0.1', '-p', '1080'])
  await Promise.all([startOrigin(lab), startOrigin(lab, 'server', [8090, 8091]), lab.spawn('server', ['sh', '-c', `exec ${names} 2>&1`]).line((line) => line.includes('started'))])
  before = await rulesIn(lab)
  running = await launching
  window = new WindowDriver(running.page)
  await window.ready()
})
test.afterAll(async () => {
  await running.stop()
  await lab.remove()
  await desktop.stop()
  rmSync(folder, { recursive: true, force: true })
})

const get = (place: Place, path: string) => lab.exec(place, ['curl', '-sS', `http://${server}${path}`])
const download = (name: string) => lab.spawn('client', ['curl', '-sS', '-o', '/dev/null', '-w', '%{size_download}', `http://${server}/download?name=${name}`])
const strip = () => window.page.getByRole('status').filter({ hasText: 'changed choices' })
const closed = async () => {
  await expect(window.gate).toHaveAttribute('data-gate', 'closed')
  await expect.poll(() => rulesIn(lab)).toBe(before)
}

test('flows of UDP: a name that is asked for with its answer, and what is refused', async () => {
  const { page } = window
  await window.typePorts('80, 53/udp')
  await page.getByRole('button', { name: 'Refuse QUIC' }).click()
  await page.keyboard.press('Control+e')
  await expect(window.gate).toHaveText(/Open\s*TCP 80 · UDP 53, 443/)
  expect((await lab.exec('client', ['dig', '+tries=1', '+time=10', '+short', `@${server}`, 'www.example.test', 'A'])).stdout).toBe('203.0.113.7\n')
  await lab.exec('router', ['dig', '+tries=1', '+time=10', '-p', '443', `@${server}`, 'www.example.test', 'A'], { reject: false })
  await expect(window.row('A www.example.test → 203.0.113.7')).toContainText('UDP')
  await expect(window.row('443')).toContainText('refused')
  await window.row('A www.example.test → 203.0.113.7').click()
  let panel = await window.openTab('Overview')
  await expect(panel).toContainText('1 up, 1 down')
  panel = await window.openTab('DNS')
  await expect(panel).toContainText('A 203.0.113.7')
  panel = await window.openTab('Datagrams')
  await panel.getByRole('radio', { name: 'Hex' }).click()
  await expect(panel).toContainText('00000000')
  await window.details.getByRole('button', { name: 'Close details' }).click()
})

test('ports are added to the open gate and nothing is cut; what cannot be changed is said', async () => {
  const { page } = window
  const slow = download('change')
  await expect(window.row('/download')).toContainText('live')
  await window.typePorts('80, 8090, 53/udp')
  await expect(strip()).toContainText('not in force yet')
  await strip().getByRole('button', { name: 'Apply now' }).click()
  await expect(strip()).toHaveCount(0)
  await expect(window.gate).toHaveText(/Open\s*TCP 80, 8090 · UDP 53, 443/)
  await get('client', ':8090/hello')
  await get('router', ':8081/release?name=change')
  expect((await slow.ended).code).toBe(0)
  await page.getByText('More choices').click()
  await page.getByLabel('Routing table').fill('300')
  await expect(strip()).toContainText('The routing table cannot be changed while the gate is open: your changed choices wait for the next opening.')
  await expect(strip().getByRole('button', { name: 'Apply now' })).toHaveCount(0)
  await strip().getByRole('button', { name: 'Discard' }).click()
  await expect(page.getByLabel('Routing table')).toHaveValue('')
  await window.go('Flows')
  await expect(window.row('8090')).toContainText('GET /hello → 200 OK')
  await expect(window.row('/download')).toContainText('finished')
})

test('a port is had for a while, from the window and by the command, and the gate closes by itself', async () => {
  const { page } = window
  const [session = ''] = readdirSync(running.sessions)
  const change = (...words: string[]) => lab.exec('router', [process.execPath, command, 'change', join(running.sessions, session), ...words], { env: { ...process.env, ...desktop.env } })
  const timed = (words: string) => page.getByRole('group').filter({ hasText: `${words} is taken for` })
  await window.typePorts('80, 8090, 53/udp, 8091')
  await strip().getByRole('button', { name: 'Apply for…' }).click()
  await page.getByRole('menuitem', { name: 'For 10 minutes' }).click()
  await expect(timed('8091')).toContainText(/is taken for\s+(?:10:00|9:\d\d)/)
  await expect(strip()).toHaveCount(0)
  await expect(page.getByRole('textbox', { name: 'Ports to intercept' })).toHaveValue('80, 8090, 53/udp')
  // Another change lets it be; kept, it is chosen like the others.
  await change('--add', '8200', '--for', '1h', '--exclude', '203.0.113.99')
  await expect(timed('8200')).toContainText(/(?:1:00:00|59:\d\d)/)
  await expect(window.gate).toContainText('8090-8091, 8200')
  await expect(page.getByLabel('Leave alone')).toBeAttached()
  await timed('8091').getByRole('button', { name: 'Keep' }).click()
  await expect(timed('8091')).toHaveCount(0)
  await expect(page.getByRole('textbox', { name: 'Ports to intercept' })).toHaveValue('80, 8090-8091, 53/udp')
  await timed('8200').getByRole('button', { name: /away now/ }).click()
  await expect(window.gate).toHaveText(/TCP 80, 8090-8091 · UDP 53, 443/)
  await change('--add', '8300', '--for', '1s')
  await expect(window.gate).toHaveText(/TCP 80, 8090-8091 · UDP 53, 443/)
  await expect(strip()).toHaveCount(0)
  await change('--include', '203.0.113.99')
  await window.button('Time limit: none').click()
  await page.getByRole('menuitem', { name: 'Close in 1 hour' }).click()
  await expect(window.button(/^Time limit: closes in (?:1:00:00|59:\d\d)$/)).toBeVisible()
  await window.button(/^Time limit: closes/).click()
  await page.getByRole('menuitemcheckbox', { name: 'No time limit' }).click()
  await expect(window.button('Time limit: none')).toBeVisible()
})

test('a server is left alone from its flow, at once, and taken again', async () => {
  const { page } = window
  const flows = async () => Number(/(\d+) flows/.exec((await window.footer.textContent()) ?? '')?.[1])
  await window.go('Flows')
  const count = await flows()
  await window.row('8090').click({ button: 'right' })
  await page.getByRole('menuitem', { name: 'Leave this server alone' }).click()
  const notice = window.toasts.getByRole('status').filter({ hasText: `${server} is left alone from now on` })
  await expect(notice).toBeVisible()
  await get('client', '/hello?alone')
  await notice.getByRole('button', { name: 'Undo' }).click()
  await expect(window.toasts).toContainText(`${server} is no longer left alone`)
  await expect(notice).toHaveCount(0)
  await get('client', '/hello?again')
  await expect(window.row('/hello?again')).toBeVisible()
  await expect(window.row('/hello?alone')).toHaveCount(0)
  await expect.poll(flows).toBe(count + 1)
  // The keyboard does the same.
  await window.row('/hello?again').click()
  await page.keyboard.press('Control+Shift+L')
  await expect(notice).toBeVisible()
  await notice.getByRole('button', { name: 'Undo' }).click()
  await expect(notice).toHaveCount(0)
})

test('draining shows how far it is, can be turned back, and cut short', async () => {
  const { page } = window
  const slow = download('back')
  await expect(window.row('name=back')).toContainText('live')
  await window.button('Drain and close').dblclick()
  await expect(window.gate).toHaveAttribute('data-gate', 'draining')
  await expect(page.getByRole('progressbar', { name: 'Flows that have ended' })).toBeVisible()
  // One that ended just before may still have been counted when it began.
  await expect(page.getByText(/^\s*1 of \d flows? left/)).toBeVisible()
  await get('client', '/hello?draining')
  await window.button('Take flows again').click()
  await expect(window.gate).toHaveAttribute('data-gate', 'open')
  await get('client', '/hello?taken')
  await expect(window.row('/hello?taken')).toBeVisible()
  await expect(window.row('/hello?draining')).toHaveCount(0)
  await window.button('Drain and close').click()
  await window.button('Close at once (cuts 1 flow)').click()
  expect((await slow.ended).code).not.toBe(0)
  await closed()
})

test('ports are sent to a proxy that runs already, and the flow says which', async () => {
  const { page } = window
  await window.typePorts('80')
  await page.getByText('Send ports to a proxy').click()
  await window.button('Add a proxy').click()
  await page.getByRole('textbox', { name: 'Ports sent, 1' }).fill('8090')
  await page.getByRole('combobox', { name: 'Spoken to by, 1' }).selectOption('socks5')
  await page.getByRole('textbox', { name: 'Proxy, 1' }).fill('127.0.0.1:1080')
  await window.button('Open gate').click()
  await expect(window.gate).toHaveAttribute('data-gate', 'open')
  // The server sees the proxy and no longer the client.
  expect((await get('client', ':8090/hello?sent')).stdout).toContain(labAddresses.ipv4.routerToServer)
  // What the proxy says on is a flow of its own, and may be decoded first.
  await window.row('/hello?sent').filter({ hasText: labAddresses.ipv4.client }).click()
  await expect(await window.openTab('Overview')).toContainText('socks5:127.0.0.1:1080')
  await page.keyboard.press('Control+e')
  await closed()
  await window.go('Ports')
  await window.button('Take this away, 1').click()
})

test('no more of a flow is kept than was chosen, nor can that be changed while the gate is open', async () => {
  const { page } = window
  await window.typePorts('80')
  await page.getByText('More choices').click()
  const flow = page.getByRole('group', { name: 'Keep at most' }).getByLabel('a flow')
  await flow.fill('64 KiB')
  const sessions = (): string[] => (existsSync(running.sessions) ? readdirSync(running.sessions) : [])
  const others = sessions()
  await window.button('Open gate').click()
  await expect(window.gate).toHaveAttribute('data-gate', 'open')
  const [session = ''] = sessions().filter((name) => !others.includes(name))
  const { stdout } = await lab.exec('client', ['sh', '-c', `head -c 1000000 /dev/zero | curl -sS --data-binary @- -o /dev/null -w '%{size_upload}' http://${server}/echo`])
  expect(stdout).toBe('1000000')
  await window.go('Ports')
  await flow.fill('')
  await expect(page.getByText('How much is kept cannot be changed while the gate is open')).toBeVisible()
  await flow.fill('64 KiB')
  await page.keyboard.press('Control+e')
  await closed()
  expect(statSync(join(running.sessions, session, 'capture-000001.pcapng')).size).toBeLessThan(256 * 1024)
  await flow.fill('')
  await page.getByText('More choices').click()
})

test('no more flows are relayed at once than was chosen, nor can that be changed while the gate is open', async () => {
  const { page } = window
  await window.typePorts('80')
  await page.getByText('More choices').click()
  const flows = page.getByLabel('Flows at once')
  await flows.fill('1')
  await window.button('Open gate').click()
  await expect(window.gate).toHaveAttribute('data-gate', 'open')
  const slow = download('only')
  await expect(window.row('name=only')).toContainText('live')
  const { code } = await lab.exec('client', ['curl', '-sS', `http://${server}/hello?none`], { reject: false })
  expect(code).not.toBe(0)
  await expect(page.getByText('no room for more flows').first()).toBeVisible()
  await get('router', ':8081/release?name=only')
  expect((await slow.ended).code).toBe(0)
  await window.go('Ports')
  await flows.fill('2')
  await expect(page.getByText('How many flows there may be at once cannot be changed while the gate is open')).toBeVisible()
  await flows.fill('1')
  await page.keyboard.press('Control+e')
  await closed()
  await flows.fill('')
  await page.getByText('More choices').click()
})

test('a service of this computer asked by a device, and a neighbour on the link asked from here', async () => {
  const { page } = window
  await startOrigin(lab, 'router', [80, 8082])
  await lab.exec('server', ['ip', 'addr', 'add', 'fe80::5:2/64', 'dev', 'up0', 'nodad'])
  const services = page.getByLabel('Clients of this computer’s own services')
  await window.typePorts('80')
  await services.check()
  await window.button('Open gate').click()
  await expect(window.gate).toHaveAttribute('data-gate', 'open')
  expect((await lab.exec('client', ['curl', '-sS', `http://${labAddresses.ipv4.routerToClient}/hello?service`])).code).toBe(0)
  expect((await lab.exec('router', ['curl', '-sS', 'http://[fe80::5:2%25sv0]/hello?near'])).code).toBe(0)
  for (const [path, words] of [['/hello?service', labAddresses.ipv4.client], ['/hello?near', 'fe80::5:2%sv0']] as const) {
    await window.row(path).click()
    await expect(await window.openTab('Overview')).toContainText(words)
    // The address without its interface is no name.
    await expect(window.details).not.toContainText('named in the Host header')
    if (path === '/hello?service') await expect(window.details).toContainText('asks a service of this computer')
    await window.details.getByRole('button', { name: 'Close details' }).click()
  }
  await page.keyboard.press('Control+e')
  await closed()
  await window.go('Ports')
  await services.uncheck()
})

test('the gate of another network namespace, chosen from the list', async () => {
  const { page } = window
  const rules = async () => (await lab.exec('client', ['nft', 'list', 'ruleset'])).stdout
  const none = await rules()
  await window.typePorts('80')
  await page.getByText('Only some of it').click()
  const field = page.getByRole('combobox', { name: 'Network namespace' })
  await field.click()
  await field.fill(lab.names.client.slice(0, -2))
  await page.getByRole('option', { name: lab.names.client }).click()
  await window.button('Open gate').click()
  await expect(window.gate).toHaveAttribute('data-gate', 'open')
  expect(await rules()).toContain('table inet sluice')
  expect(await rulesIn(lab)).toBe(before)
  await get('client', '/hello?there')
  await expect(window.row('/hello?there')).toContainText('curl')
  await page.keyboard.press('Control+e')
  await closed()
  expect(await rules()).toBe(none)
})
