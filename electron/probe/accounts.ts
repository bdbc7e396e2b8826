import { execa } from 'execa'

import { Failure } from '#core/contract/failure.ts'

/** A name or a number as user id. Fails with `bad-user`. */
export async function findUser(user: string): Promise<number> {
  if (/^\d{1,10}$/.test(user)) return Number(user)
  // Not /etc/passwd alone: names may come from a directory service.
  const { stdout, failed } = await execa('/usr/bin/id', ['-u', '--', user], { reject: false, timeout: 10_000 })
  if (failed || !/^\d+$/.test(stdout.trim())) throw new Failure('bad-user', `there is no user "${user}"`)
  return Number(stdout.trim())
}

/** Likewise of a group. */
export async function findGroup(group: string): Promise<number> {
  if (/^\d{1,10}$/.test(group)) return Number(group)
  const { stdout, failed } = await execa('/usr/bin/getent', ['group', group], { reject: false, timeout: 10_000 })
  const id = stdout.split(':')[2]
  if (failed || id === undefined || !/^\d+$/.test(id)) throw new Failure('bad-user', `there is no group "${group}"`)
  return Number(id)
}

export interface Account {
  readonly name: string
  readonly id: number
}

/** Lines of passwd(5) or group(5): name first, id third. */
export function parseAccounts(text: string): Account[] {
  return text.split('\n').flatMap((line) => {
    const [name = '', , id = ''] = line.split(':')
    return name !== '' && !name.startsWith('#') && /^\d{1,10}$/.test(id) ? [{ name, id: Number(id) }] : []
  })
}
