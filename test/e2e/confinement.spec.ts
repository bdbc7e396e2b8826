import { expect, test } from '@playwright/test'
import { chownSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { defaultChoice } from '../../electron/core/plan/gateChoice.ts'
import { startDesktop, type Desktop } from '../support/e2e/desktop.ts'
import { launchApp } from '../support/e2e/launchApp.ts'

let desktop: Desktop
let folder: string

test.beforeAll(async () => {
  desktop = await startDesktop()
  folder = mkdtempSync(join(tmpdir(), 'sluice-e2e-'))
})
test.afterAll(async () => {
  await desktop.stop()
  rmSync(folder, { recursive: true, force: true })
})

test('the page has no way to files, processes or other pages', async () => {
  const running = await launchApp(desktop, { folder: join(folder, 'page') })
  try {
    const { page } = running
    expect(page.url()).toBe('sluice://app/index.html')
    const seen = await page.evaluate(readFileSync(new URL('../support/e2e/pageProbe.js', import.meta.url), 'utf8'))
    expect(seen).toEqual({
      globals: [],
      bridge: ['invoke', 'on'],
      html: 'refused: TypeError',
      script: expect.stringMatching(/^refused/),
      file: 'refused: TypeError',
      web: 'refused: TypeError',
      above: expect.stringMatching(/^(404|refused.*)$/),
      escaped: expect.stringMatching(/^(404|refused.*)$/),
      otherHost: expect.stringMatching(/^(404|refused.*)$/),
      popup: 'null',
      permission: expect.stringMatching(/^refused/),
      policy: expect.stringMatching(/default-src 'none'.*require-trusted-types-for 'script'/),
    })
    // Leaving is refused as well: the page is still ours afterwards.
    await page.evaluate("location.href = 'http://203.0.113.2/'; new Promise((resolve) => requestAnimationFrame(resolve))")
    expect(page.url()).toBe('sluice://app/index.html')
  } finally {
    await running.stop()
  }
})

test('the bridge takes known names with right arguments only', async () => {
  const running = await launchApp(desktop, { folder: join(folder, 'bridge') })
  try {
    const answers = await running.page.evaluate(async (choice) => {
      const { invoke } = (globalThis as unknown as { sluice: { invoke: (name: unknown, argument: unknown) => Promise<{ ok: boolean; error?: { code: string } }> } }).sluice
      const code = async (name: unknown, argument: unknown): Promise<string> => {
        const answer = await invoke(name, argument)
        return answer.ok ? 'ok' : (answer.error?.code ?? '')
      }
      return [
        await code('getInfo', null),
        await code('getInfo', { extra: 1 }),
        await code('__proto__', null),
        await code('constructor', null),
        await code(7, null),
        await code('setSettings', { theme: 'pink' }),
        await code('setSettings', { theme: 'dark', other: 1 }),
        await code('flows', { filter: '', sort: 'id', descending: false, offset: -1, limit: 10 }),
        await code('exportSession', { format: 'exe', filter: '' }),
        await code('openGate', { ...choice, ports: '80\n22' }),
        await code('changeGate', { ...choice, send: [{ ports: '80', kind: 'http', to: '127.0.0.1:1' }] }),
        await code('changeGate', choice),
        await code('resumeGate', null),
        await code('drainGate', null),
      ]
    }, defaultChoice)
    expect(answers).toEqual(['ok', 'protocol', 'protocol', 'protocol', 'protocol', 'protocol', 'protocol', 'protocol', 'protocol', 'protocol', 'protocol', 'not-open', 'not-open', 'not-open'])
  } finally {
    await running.stop()
  }
})

test('an ordinary user runs with the sandbox on', async () => {
  const user = { uid: 65534, gid: 65534 }
  const own = join(folder, 'user')
  mkdirSync(own)
  const home = mkdtempSync(join(tmpdir(), 'sluice-e2e-home-'))
  const runtime = join(home, 'run')
  mkdirSync(runtime, { mode: 0o700 })
  for (const path of [own, home, runtime]) chownSync(path, user.uid, user.gid)
  // mkdtemp makes folders of the maker's alone.
  const { chmodSync } = await import('node:fs')
  chmodSync(folder, 0o755)
  const env = { ...desktop.env, HOME: home, XDG_RUNTIME_DIR: runtime, XDG_CONFIG_HOME: join(home, '.config'), XDG_CACHE_HOME: join(home, '.cache'), XDG_STATE_HOME: join(home, '.state'), XDG_DATA_HOME: join(home, '.data') }
  const running = await launchApp({ ...desktop, env }, { folder: own, user })
  try {
    const argv = await running.app.evaluate(() => process.argv.join(' '))
    expect(argv).not.toContain('--no-sandbox')
    const pid = await running.app.evaluate(({ BrowserWindow }) => BrowserWindow.getAllWindows()[0]?.webContents.getOSProcessId() ?? 0)
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    const field = (name: string): string => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? ''
    expect(field('Seccomp')).toBe('2')
    expect(field('NoNewPrivs')).toBe('1')
    expect(field('CapEff')).toBe('0000000000000000')
    expect(field('Uid').split(/\s+/)[0]).toBe(String(user.uid))
    const answer = await running.page.evaluate(() => (globalThis as unknown as { sluice: { invoke: (name: string, argument: null) => Promise<{ ok: boolean; value: { user: string } }> } }).sluice.invoke('getInfo', null))
    expect(answer).toMatchObject({ ok: true, value: { user: 'nobody' } })
  } finally {
    await running.stop()
    rmSync(home, { recursive: true, force: true })
  }
})
