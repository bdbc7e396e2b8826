import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { build } from 'vite'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'

import { startProcess } from '#test/lab/labProcess.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'

/** Several helpers' log, which turns while they write. */
let folder: string
let appenders: LabProcess[] = []
const names = ['a', 'b', 'c', 'd']

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-test-log-'))
  const root = join(import.meta.dirname, '..', '..', '..')
  await build({ root, configFile: false, logLevel: 'error', build: { ssr: join(import.meta.dirname, 'appender.ts'), outDir: folder, emptyOutDir: false, rolldownOptions: { output: { entryFileNames: 'appender.mjs' } } } })
}, 60_000)
afterEach(async () => {
  await Promise.all(appenders.map((each) => each.stop()))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function start(path: string, limit: number, count: number): void {
  appenders = names.map((name) => startProcess([process.execPath, join(folder, 'appender.mjs'), path, name, String(limit), String(count)]))
}
async function round(number: number): Promise<void> {
  for (const each of appenders) each.write(String(number))
  for (const each of appenders) expect(await each.line((line) => line.split(' ')[1] === String(number))).toBe(`done ${String(number)}`)
}

test('whoever writes while it turns: what was put aside stays whole, no entry is lost', async () => {
  const [path, older, limit] = [join(folder, 'once.log'), join(folder, 'once.log.1'), 4096]
  start(path, limit, 1)
  for (let number = 1; number <= 10; number += 1) {
    for (const each of [path, older]) rmSync(each, { force: true })
    // The next entry is the one with which it turns.
    const before = `begun ${String(number)}\n${'x'.repeat(limit)}\n`
    writeFileSync(path, before)
    await round(number)
    const [aside, now] = [readFileSync(older, 'utf8'), existsSync(path) ? readFileSync(path, 'utf8') : '']
    expect(aside.startsWith(before)).toBe(true)
    expect(`${aside.slice(before.length)}${now}`.trimEnd().split('\n').sort()).toEqual(names.map((name) => `entry ${name} ${String(number)} 1`))
  }
})

test('it turns again and again under all hands: nobody fails, and never is a new file put over a full one', async () => {
  const [path, limit] = [join(folder, 'often.log'), 300]
  start(path, limit, 150)
  for (let number = 1; number <= 6; number += 1) {
    await round(number)
    expect(statSync(`${path}.1`).size).toBeGreaterThan(limit)
  }
})
