import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'

import { beforeEach, describe, expect, test } from 'vitest'

import { ask, expectClean, expectDirect, findProcess, openGate, person, runFilesOf, snapshot, startTestHelper } from '../helper/harness.ts'
import type { TestHelper } from '../helper/harness.ts'
import { killAtOnce } from '../helper/killAtOnce.ts'
import { olderTool } from '../helper/olderTools.ts'
import { before, lab, programs, start } from '../helper/stage.ts'

/** Whatever dies or freezes: the network works again within seconds, and nothing of ours is left. */
let helper: TestHelper

beforeEach(() => {
  helper = start()
})

const isRelay = (line: string): boolean => line.endsWith('/sluice-relay')
const isHolder = (line: string): boolean => line.endsWith('/nft -i')
const isGuard = (line: string): boolean => line.endsWith('--guard')

describe.each(['nft', 'iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  const leaseEnd = async (): Promise<string | undefined> => /--datestop (\S+)/.exec((await lab.exec('router', [`${backend === 'iptables' ? 'iptables-nft' : backend}-save`, '-t', 'mangle'])).stdout)?.[1]
  beforeEach(async () => {
    await openGate(helper, programs, backend)
    expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ relayed: true })
    expect(await ask(lab, 'router', 'ipv4', 8080)).toMatchObject({ relayed: true })
  })

  test('SIGKILL of the helper', async () => {
    process.kill(helper.pid, 'SIGKILL')
    await expectDirect(lab)
    await expectClean(lab, before)
  })

  test('SIGTERM of the helper', async () => {
    process.kill(helper.pid, 'SIGTERM')
    expect(await helper.ended).toBe(0)
    expect(helper.events.some(({ event }) => event === 'closed')).toBe(true)
    await expectClean(lab, before)
    await expectDirect(lab)
  })

  test('SIGINT is for the app to answer', async () => {
    process.kill(helper.pid, 'SIGINT')
    expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ relayed: true })
    await helper.end()
    await expectClean(lab, before)
  })

  test('SIGKILL of the relay', async () => {
    process.kill(findProcess(lab, isRelay), 'SIGKILL')
    expect((await helper.event('closed')).failure).toMatchObject({ code: 'relay-died' })
    await expectDirect(lab)
    await helper.end()
    await expectClean(lab, before)
  })

  test('SIGSTOP of the relay', async () => {
    process.kill(findProcess(lab, isRelay), 'SIGSTOP')
    expect((await helper.event('closed')).failure).toMatchObject({ code: 'relay-died', message: 'the relay stopped answering' })
    await expectDirect(lab)
    await helper.end()
    await expectClean(lab, before)
  })

  test('SIGSTOP of the helper: its guard takes everything back, and the helper finds its gate closed when it goes on', async () => {
    process.kill(helper.pid, 'SIGSTOP')
    await expectDirect(lab)
    await expect.poll(() => snapshot(lab), { timeout: 15_000, interval: 200 }).toBe(before)
    process.kill(helper.pid, 'SIGCONT')
    expect((await helper.event('closed')).failure).toBeDefined()
    await helper.end()
    await expectClean(lab, before)
  })

  test('SIGKILL of helper and relay together, the relay frozen before', async () => {
    const relay = findProcess(lab, isRelay)
    process.kill(relay, 'SIGSTOP')
    process.kill(helper.pid, 'SIGKILL')
    await expectDirect(lab)
    await expectClean(lab, before)
  })

  test('SIGKILL of the guard: another one takes its place', async () => {
    const first = findProcess(lab, isGuard)
    process.kill(first, 'SIGKILL')
    // Told when the new one watches: only from then on does it take back what a killed helper leaves.
    await helper.event('warning', ({ code }) => code === 'guard-replaced')
    expect(findProcess(lab, isGuard)).not.toBe(first)
    expect(runFilesOf(lab)).toHaveLength(2)
    expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ relayed: true })
    process.kill(helper.pid, 'SIGKILL')
    await expectDirect(lab)
    await expectClean(lab, before)
  })

  test('SIGKILL of helper, relay and guard at once: nothing is taken once the lease is over, and the next opening and `cleanup` take back what is left', async () => {
    // A renewal, so that what is left is not what was loaded.
    if (backend !== 'nft') await expect.poll(() => leaseEnd(), { timeout: 15_000, interval: 300 }).not.toBe(await leaseEnd())
    const [relay, guard] = [findProcess(lab, isRelay), findProcess(lab, isGuard)]
    await killAtOnce([guard, helper.pid, relay])
    await helper.ended
    // Of those who had a right to take rules away nobody is left; iptables' rules end by themselves.
    await expectDirect(lab, 8080, 25_000)
    expect((await snapshot(lab)).includes('SLUICE_')).toBe(backend !== 'nft')
    const sweeper = start()
    await sweeper.request('hello', { protocol: 1 })
    const { removed } = await sweeper.request('cleanup', {})
    expect(removed.length).toBeGreaterThan(0)
    expect(removed.filter((line) => line.startsWith('IPv4 rule'))).toHaveLength(3)
    expect((await sweeper.request('cleanup', {})).removed).toEqual([])
    await sweeper.end()
    await expectClean(lab, before)
    await expectDirect(lab)
  })
})

describe.each(['iptables', 'iptables-legacy'] as const)('%s', (backend) => {
  test.each([
    { lacks: 'xt_time', refuses: '-m time', end: false },
    { lacks: 'xt_hl', refuses: '-m (ttl|hl) ', end: true },
  ])('a kernel without $lacks: the gate opens with rules that do without, and have an end: $end', async ({ refuses, end }) => {
    helper.kill()
    helper = start(olderTool(programs.folder, backend, refuses))
    await openGate(helper, programs, backend)
    expect(await ask(lab, 'client', 'ipv6', 8080)).toMatchObject({ relayed: true })
    const { stdout } = await lab.exec('router', [`${backend === 'iptables' ? 'iptables-nft' : backend}-save`, '-t', 'mangle'])
    expect(stdout).toContain('-j SLUICE_TAKE')
    expect(stdout).not.toMatch(/-m ttl/)
    expect(stdout.includes('--datestop')).toBe(end)
    await helper.end()
    await expectClean(lab, before)
  })
})

test('nft: SIGKILL of the process that holds the rules', async () => {
  await openGate(helper, programs, 'nft')
  process.kill(findProcess(lab, isHolder), 'SIGKILL')
  expect((await helper.event('closed')).failure).toMatchObject({ code: 'rules-failed' })
  await expectDirect(lab)
  await helper.end()
  await expectClean(lab, before)
})

test('nft: SIGSTOP of the process that holds the rules: the lease runs out in the kernel, then everything goes', async () => {
  await openGate(helper, programs, 'nft')
  process.kill(findProcess(lab, isHolder), 'SIGSTOP')
  await expectDirect(lab)
  expect((await helper.event('closed')).failure).toMatchObject({ code: 'rules-failed' })
  await helper.end()
  await expectClean(lab, before)
})

test('a helper that is at work for longer than its guard waits for a frozen one goes on', async () => {
  helper.kill()
  const work = 'process.on("SIGUSR2",()=>{const begun=Date.now();while(Date.now()-begun<6000);})'
  helper = startTestHelper(lab, programs, 'router', { SUDO_UID: String(person.uid), NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(work)}` })
  await openGate(helper, programs, 'iptables')
  const relay = findProcess(lab, isRelay)
  process.kill(helper.pid, 'SIGUSR2')
  // Answered when it is done.
  await helper.request('facts', {})
  expect(helper.events.filter(({ event }) => event === 'closed')).toEqual([])
  expect(findProcess(lab, isRelay)).toBe(relay)
  expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ ok: true, relayed: true })
  await helper.end()
  await expectClean(lab, before)
})

/** A tool that ran a moment ago may have ended. */
function killNow(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // gone already
  }
}

test('killing a whole cgroup leaves the guard, which takes everything back', async (context) => {
  const parent = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup'].find((path) => existsSync(`${path}/cgroup.procs`) && readFileSync(`/proc/self/cgroup`, 'utf8').includes('0::'))
  const group = `${parent ?? ''}/sluice-test-${String(process.pid)}`
  try {
    if (parent === undefined) throw new Error('there is no cgroup v2 hierarchy')
    mkdirSync(group)
    writeFileSync(`${group}/cgroup.procs`, String(helper.pid))
  } catch (error) {
    context.skip(`no cgroup can be made here: ${String(error)}`)
  }
  await openGate(helper, programs, 'iptables')
  const inside = readFileSync(`${group}/cgroup.procs`, 'utf8').trim().split('\n').map(Number)
  expect(inside).toContain(findProcess(lab, isRelay))
  expect(inside).not.toContain(findProcess(lab, isGuard))
  if (existsSync(`${group}/cgroup.kill`)) writeFileSync(`${group}/cgroup.kill`, '1')
  else for (const pid of inside) killNow(pid)
  await expectDirect(lab)
  await expectClean(lab, before)
  await expect.poll(() => { rmdirSync(group); return existsSync(group) }).toBe(false)
})
