import { Failure } from '#core/contract/failure.ts'

import { askTool, requireTool } from './runTool.ts'

/** Who the helper works for: the relay runs as this user, in these groups. */
export interface Person {
  readonly uid: number
  readonly gid: number
  readonly groups: readonly number[]
  readonly user: string
}

/** The user id that whoever elevated us vouches for: pkexec, else sudo, else ourselves. No message from the app can change it. */
export function personUid(environment: Readonly<Record<string, string | undefined>>, ownUid: number): number {
  const told = environment['PKEXEC_UID'] ?? environment['SUDO_UID']
  if (told === undefined) return ownUid
  const uid = /^\d{1,10}$/.test(told) ? Number(told) : NaN
  if (!(uid <= 0xffff_fffe)) throw new Failure('no-privilege', 'whoever started the helper named no valid user')
  return uid
}

/** Looks the user up by the machine's own means (getent follows nsswitch: LDAP, systemd-homed, …). A number without an entry has no further groups. */
export async function findPerson(uid: number): Promise<Person> {
  const entry = await askTool(requireTool('getent'), ['passwd', String(uid)])
  const fields = entry.stdout.split('\n')[0]?.split(':') ?? []
  const [user, gid] = [fields[0], Number(fields[3])]
  if (entry.exitCode !== 0 || user === undefined || user === '' || Number(fields[2]) !== uid || !Number.isInteger(gid)) {
    if (uid === process.getuid?.()) return { uid, gid: process.getgid?.() ?? 0, groups: process.getgroups?.() ?? [], user: String(uid) }
    throw new Failure('no-privilege', `there is no user with the number ${String(uid)}`, entry.stderr)
  }
  const listed = await askTool(requireTool('id'), ['-G', '--', user])
  const groups = listed.stdout.trim().split(/\s+/).map(Number)
  if (listed.exitCode !== 0 || !groups.every((group) => Number.isInteger(group) && group >= 0)) {
    throw new Failure('no-privilege', `the groups of ${user} cannot be told`, listed.stderr)
  }
  return { uid, gid, groups, user }
}
