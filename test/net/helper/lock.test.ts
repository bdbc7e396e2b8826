import { spawn } from 'node:child_process'
import { existsSync, statSync, writeFileSync } from 'node:fs'

import { expect, test } from 'vitest'

import { ask, expectClean, makeSession, namespaceInode, openArguments, openGate, person, snapshot } from './harness.ts'
import { before, lab, programs, start } from './stage.ts'

test('a second opening in the same namespace is refused and disturbs nothing; in another namespace it is not', async () => {
  const first = start()
  await openGate(first, programs, 'nft')
  const open = await snapshot(lab)
  const second = start()
  await expect(openGate(second, programs, 'iptables')).rejects.toMatchObject({ code: 'already-open' })
  expect(await snapshot(lab)).toBe(open)
  await second.end()
  const elsewhere = start([], 'client')
  await elsewhere.request('hello', { protocol: 1 })
  await elsewhere.request('open', openArguments(makeSession(programs, 'elsewhere'), 'nft', { scope: ['local'] }))
  expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ ok: true, relayed: true })
  await elsewhere.end()
  await first.end()
  await expectClean(lab, before)
})

test('cleanup leaves alone what a living Sluice holds', async () => {
  const first = start()
  await openGate(first, programs, 'iptables')
  const open = await snapshot(lab)
  const second = start()
  await second.request('hello', { protocol: 1 })
  expect(await second.request('cleanup', {})).toEqual({ removed: [] })
  expect(await first.request('cleanup', {})).toEqual({ removed: [] })
  expect(await snapshot(lab)).toBe(open)
  expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ relayed: true })
})

test('the next opening waits for the guard of a helper that was killed', async () => {
  const first = start()
  await openGate(first, programs, 'iptables')
  process.kill(first.pid, 'SIGKILL')
  // While it is still dying it is another Sluice that is open.
  await first.ended
  const second = start()
  await openGate(second, programs, 'iptables')
  expect(await ask(lab, 'client', 'ipv4', 8080)).toMatchObject({ relayed: true })
  await second.end()
  await expectClean(lab, before)
})

test('no ordinary user can hold the lock, also one left open to them by an older Sluice', async () => {
  const path = `/run/sluice/${namespaceInode(lab)}.lock`
  await start().request('hello', { protocol: 1 })
  const maker = start()
  await openGate(maker, programs, 'nft')
  expect(statSync(path)).toMatchObject({ uid: 0 })
  expect(statSync(path).mode & 0o777).toBe(0o600)
  await maker.end()
  writeFileSync(path, '', { mode: 0o666, flag: 'wx' })
  const helper = start()
  await openGate(helper, programs, 'nft')
  expect(statSync(path).mode & 0o777).toBe(0o600)
  const held = spawn('flock', ['--nonblock', path, 'true'], { uid: person.uid, gid: person.gid })
  expect(await new Promise((resolve) => held.once('exit', resolve))).not.toBe(0)
  await helper.end()
  expect(existsSync(path)).toBe(false)
})

test('a link planted where the lock lies is not followed', async () => {
  const path = `/run/sluice/${namespaceInode(lab)}.lock`
  await lab.exec('router', ['ln', '-sf', '/etc/passwd', path])
  const helper = start()
  await expect(openGate(helper, programs, 'nft')).rejects.toMatchObject({ code: 'internal' })
  await lab.exec('router', ['rm', path])
  expect(await snapshot(lab)).toBe(before)
})

test('cleanup finds what bears our name without any journal, and nothing else', async () => {
  await lab.exec('router', ['nft', 'add table inet sluice { chain c { type filter hook input priority 0; policy accept; }; }'])
  for (const tool of ['iptables-nft', 'ip6tables-nft', 'iptables-legacy', 'ip6tables-legacy']) {
    for (const args of [['-N', 'SLUICE_PRE'], ['-N', 'SLUICE_TAKE'], ['-A', 'SLUICE_PRE', '-j', 'SLUICE_TAKE'], ['-A', 'PREROUTING', '-j', 'SLUICE_PRE'], ['-A', 'PREROUTING', '-j', 'SLUICE_PRE'], ['-A', 'OUTPUT', '-p', 'tcp', '-j', 'MARK', '--set-mark', '0']]) {
      await lab.exec('router', [tool, '-t', 'mangle', ...args])
    }
  }
  for (const family of ['-4', '-6']) {
    await lab.exec('router', ['ip', family, 'rule', 'add', 'pref', '0', 'fwmark', '0x40/0x40', 'lookup', '4242', 'protocol', '77'])
    await lab.exec('router', ['ip', family, 'route', 'add', 'local', 'default', 'dev', 'lo', 'table', '4242', 'protocol', '77'])
    await lab.exec('router', ['ip', family, 'rule', 'add', 'pref', '5', 'fwmark', '0x80/0x80', 'lookup', '4243', 'protocol', '99'])
    await lab.exec('router', ['ip', family, 'route', 'add', 'local', 'default', 'dev', 'lo', 'table', '4243', 'protocol', '99'])
  }
  const helper = start()
  await helper.request('hello', { protocol: 1 })
  expect((await helper.request('cleanup', {})).removed).toEqual([
    'nft table inet sluice',
    'iptables-nft chains SLUICE_*', 'ip6tables-nft chains SLUICE_*', 'iptables-legacy chains SLUICE_*', 'ip6tables-legacy chains SLUICE_*',
    'IPv4 rule pref 0 fwmark 0x40/0x40 lookup 4242 protocol 77', 'IPv4 routes in table 4242',
    'IPv6 rule pref 0 fwmark 0x40/0x40 lookup 4242 protocol 77', 'IPv6 routes in table 4242',
  ])
  const left = await snapshot(lab)
  expect(left).not.toMatch(/sluice|4242/i)
  for (const theirs of ['fwmark 0x80/0x80', 'table 4243']) expect(left.split(theirs)).toHaveLength(3)
  expect((await helper.request('cleanup', {})).removed).toEqual([])
})
