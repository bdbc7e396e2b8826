import { PassThrough } from 'node:stream'

import { expect, test } from 'vitest'

import { Output } from '#cli/output.ts'
import { runCommand } from '#cli/runCommand.ts'

test.each([
  [['--add', '70000'], 'out of range'],
  [['--add', '80/sctp'], 'no port'],
  [['--add-udp', '80/'], 'no port'],
  [[], 'nothing to change'],
  [['--drain', '--resume'], 'cannot both be done'],
  [['--drain', '--add', '80'], 'stands alone'],
  [['--status', '--for', '1m'], 'stands alone'],
  [['--remove', '80', '--for', '1m'], '--for goes with'],
  [['--exclude', 'nonsense'], 'no network'],
  [['--add', '80', '--for', 'ever'], 'takes a duration'],
  [['--hold', '--no-hold'], 'cannot both be done'],
  [['--send', '80'], 'sends nothing anywhere'],
  [['--udp-idle', '0'], 'takes seconds'],
  [['--server', 'nonsense'], 'no network'],
  [['--scope', 'all'], 'takes local, forwarded'],
  [['--iface', 'lo'], 'scope "local"'],
  [['--remove-iface', '*'], 'no name of an interface'],
  [['--user', 'nobody-of-that-name'], 'no user'],
  [['--remove-cgroup', '/'], 'root of all cgroups'],
  [['--drain', '--user', '0'], 'stands alone'],
  [['a', 'b', '--status'], 'one argument too many'],
] as const)('a wrong change is refused before anybody is asked: %j', async (args, says) => {
  const [out, err] = [new PassThrough(), new PassThrough()]
  expect(await runCommand(['change', ...args], new Output(out, err))).toBe(2)
  expect(String(err.read())).toContain(says)
  expect(out.read()).toBeNull()
})
