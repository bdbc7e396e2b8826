import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { listCgroups } from '#probe/cgroups.ts'
import { labAddresses, peerProgram } from '#test/lab/makeLab.ts'
import type { LabProcess } from '#test/lab/labProcess.ts'

import { expectClean, openGate } from './harness.ts'
import type { TestHelper } from './harness.ts'
import { before, lab, programs, start } from './stage.ts'

/** A chosen unit or container gets a new cgroup each time it starts: what is taken is what bears the name now. */
const slice = `sluicelab-${String(process.pid)}.slice`
const unit = `${slice}/web.service`
const root = `/sys/fs/cgroup/${(await listCgroups())?.prefix ?? ''}`
const folder = `${root}/${unit}`
const canMake = ((): boolean => {
  try {
    mkdirSync(`${root}/${slice}`)
    rmdirSync(`${root}/${slice}`)
    return true
  } catch {
    return false
  }
})()

let helper: TestHelper
const said = (code: string): string[] => helper.events.flatMap((event) => (event.event === 'warning' && event.code === code ? [event.message] : []))
const within = ['sh', '-c', 'echo $$ > "$0"/cgroup.procs && exec "$@"', folder]
const inUnit = (...words: string[]): LabProcess => lab.spawn('router', [...within, process.execPath, peerProgram, ...words])
async function isRelayed(enter: boolean, family: 'ipv4' | 'ipv6'): Promise<boolean> {
  const words = ['ask', labAddresses[family].server, '8080', '--timeout', '10000']
  const peer = enter ? inUnit(...words) : lab.peer('router', ...words)
  await peer.ended
  const answer = JSON.parse(peer.output().trim()) as { readonly ok: boolean; readonly seenPort: number; readonly localPort: number }
  expect(answer).toMatchObject({ ok: true })
  return answer.seenPort !== answer.localPort
}
async function expectTaken(): Promise<void> {
  for (const family of ['ipv4', 'ipv6'] as const) expect(await isRelayed(true, family), family).toBe(true)
  expect(await isRelayed(false, 'ipv4')).toBe(false)
}
/** The kernel lets go of one when its last process has been collected. */
async function end(path: string): Promise<void> {
  await expect.poll(() => {
    try {
      if (existsSync(path)) rmdirSync(path)
      return true
    } catch {
      return false
    }
  }, { timeout: 10_000, interval: 20 }).toBe(true)
}

beforeEach(() => {
  helper = start()
})
afterEach(async () => {
  helper.kill()
  await helper.ended
  await end(folder)
  await end(dirname(folder))
})

describe.runIf(canMake).each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  test('a unit that ends and starts again is taken again, is spoken of, and nothing is cut', async () => {
    mkdirSync(folder, { recursive: true })
    await openGate(helper, programs, backend, { scope: ['local'], cgroups: [unit] })
    await expectTaken()
    const talk = inUnit('talk', labAddresses.ipv4.server, '8080')
    await talk.event(({ event }) => event === 'line')
    writeFileSync(`${root}/cgroup.procs`, String(talk.pid))
    await end(folder)
    expect((await helper.event('warning', ({ code }) => code === 'cgroup-gone')).message).toBe('Unit web.service has ended: nothing of it is taken until it starts again.')
    expect(await isRelayed(false, 'ipv4')).toBe(false)
    if (backend === 'iptables-legacy') await lab.exec('router', ['sh', '-ec', 'iptables-legacy -t mangle -A POSTROUTING -j RETURN; iptables-legacy -t mangle -D POSTROUTING -j RETURN'])
    mkdirSync(folder)
    expect((await helper.event('warning', ({ code }) => code === 'cgroup-back')).message).toBe('Unit web.service has started: it is taken.')
    await expectTaken()
    // So quickly that nobody sees it gone; and with the slice it is in.
    for (const gone of [[folder], [folder, dirname(folder)]]) {
      const times = said('cgroup-back').length
      for (const path of gone) await end(path)
      mkdirSync(folder, { recursive: true })
      await expect.poll(() => said('cgroup-back').length, { timeout: 10_000 }).toBeGreaterThan(times)
      await expect.poll(() => isRelayed(true, 'ipv4'), { timeout: 10_000 }).toBe(true)
    }
    talk.write('send still here')
    await talk.event(({ line }) => line === 'still here')
    await talk.stop()
    await helper.end()
    await expectClean(lab, before)
  })

  test('a unit chosen before it starts is taken from then on; ended, the gate drains, goes on and closes', async () => {
    await openGate(helper, programs, backend, { scope: ['local'], cgroups: [unit] })
    expect(said('cgroup-gone')).toEqual(['Unit web.service is not running: nothing of it is taken until it starts.'])
    mkdirSync(folder, { recursive: true })
    await helper.event('warning', ({ code }) => code === 'cgroup-back')
    await expectTaken()
    const talk = inUnit('talk', labAddresses.ipv4.server, '8080')
    await talk.event(({ event }) => event === 'line')
    writeFileSync(`${root}/cgroup.procs`, String(talk.pid))
    await end(folder)
    await helper.request('drain', {})
    mkdirSync(folder, { recursive: true })
    expect(await isRelayed(true, 'ipv4')).toBe(false)
    await helper.request('resume', {})
    await expect.poll(() => isRelayed(true, 'ipv4'), { timeout: 10_000 }).toBe(true)
    await talk.stop()
    await helper.end()
    await expectClean(lab, before)
  })
})
