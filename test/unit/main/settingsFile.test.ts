import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'

import { defaultChoice } from '#core/plan/gateChoice.ts'
import { SettingsFile } from '#main/settingsFile.ts'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-settings-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

test('settings of 0.1 are taken over with all they knew', () => {
  const path = join(folder, 'old.json')
  const choice = { tcp: '22, 80', scope: { local: true, forwarded: false }, interfaces: 'br0', exclude: '203.0.113.9', backend: 'nft', payload: false }
  writeFileSync(path, JSON.stringify({ format: 1, settings: { theme: 'dark', choice, recentPorts: ['80'] }, window: { x: 1, y: 2, width: 900, height: 600, maximized: false } }))
  const file = new SettingsFile(path)
  const { tcp, ...rest } = choice
  expect(file.setAside).toBeUndefined()
  expect(file.settings).toEqual({ theme: 'dark', choice: { ...defaultChoice, ...rest, scope: { ...rest.scope, incoming: false }, ports: tcp }, recentPorts: ['80'] })
  expect(file.window).toEqual({ x: 1, y: 2, width: 900, height: 600, maximized: false })
  const changed = { ...file.settings, choice: { ...file.settings.choice, ports: '53/udp', send: [{ ports: '80', kind: 'socks5' as const, to: '127.0.0.1:1080' }] } }
  file.change(changed)
  expect(new SettingsFile(path).settings).toEqual(changed)
})

test('a choice that came to be since is as it is at first', () => {
  const path = join(folder, 'without.json')
  const { keepPort: _keepPort, keep: _keep, maxFlows: _maxFlows, ...older } = { ...defaultChoice, ports: '22', hold: false }
  writeFileSync(path, JSON.stringify({ format: 2, settings: { theme: 'light', choice: older, recentPorts: ['22'] } }))
  const file = new SettingsFile(path)
  expect(file.setAside).toBeUndefined()
  expect(file.settings.choice).toEqual({ ...older, keepPort: false, keep: { session: '4 GiB', flow: '' }, maxFlows: '' })
})

test('what is damaged is put aside', () => {
  const path = join(folder, 'bad.json')
  writeFileSync(path, JSON.stringify({ format: 1, settings: { theme: 'dark', choice: { tcp: 7 }, recentPorts: [] } }))
  const file = new SettingsFile(path)
  expect(file.settings.choice).toEqual(defaultChoice)
  expect(readdirSync(folder).some((name) => name.startsWith('bad.json.damaged-'))).toBe(true)
})
