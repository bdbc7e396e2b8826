import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import { execa } from 'execa'

import type { DoctorRow } from '#core/contract/bridge.ts'
import { listCgroups } from './cgroups.ts'
import type { Check } from './doctorFacts.ts'

/** Sluice's own programs. */
export const checkPrograms: Check = ({ places }) => {
  const programs = [['relay', places.relay], ['helper', places.helper], ['inspector', places.inspector]] as const
  const missing = programs.filter(([, path]) => !existsSync(path)).map(([name]) => name)
  if (missing.length > 0) return [{ id: 'programs', title: 'Programs of Sluice', verdict: 'fail', fact: `missing: ${missing.join(', ')}`, mend: existsSync(join(places.root, 'electron')) ? 'npm run build' : 'install Sluice again' }]
  return [{ id: 'programs', title: 'Programs of Sluice', verdict: 'ok', fact: 'relay, helper and inspector are there' }]
}

const pkexecPlaces = ['/usr/bin/pkexec', '/bin/pkexec']
const polkitPlaces = ['/usr/lib/polkit-1/polkitd', '/usr/libexec/polkitd', '/usr/lib/policykit-1/polkitd']
const policy = '/usr/share/polkit-1/actions/org.sluice.policy'

/** How root's rights would be had. */
export const checkPrivilege: Check = ({ isRoot }) => {
  const row = { id: 'privilege', title: 'Privilege' }
  if (isRoot) return [{ ...row, verdict: 'ok', fact: process.env['SUDO_UID'] === undefined ? 'running as root' : `running as root, for user ${process.env['SUDO_UID']}` }]
  const pkexec = pkexecPlaces.some((path) => existsSync(path))
  const polkit = polkitPlaces.some((path) => existsSync(path))
  if (!pkexec || !polkit) return [{ ...row, verdict: 'fail', fact: pkexec ? 'polkit is not installed, so nobody could be asked' : 'pkexec is not installed, so nobody could be asked', mend: 'sudo apt install pkexec polkitd, or run sluice with sudo' }]
  if (existsSync(policy)) return [{ ...row, verdict: 'ok', fact: 'polkit asks for Sluice by name and keeps the answer for a while' }]
  return [{ ...row, verdict: 'ok', fact: 'polkit asks each time the gate opens', mend: 'sluice permission install, to be asked by name and less often' }]
}

/** Tries it: a confined program may write where it is told and nowhere else. */
export const checkConfinement: Check = async ({ places }) => {
  const row = { id: 'confinement', title: 'Confinement' }
  if (!existsSync(places.confine)) return [{ ...row, verdict: 'warn', fact: 'the program that confines the inspector is missing; it runs with your rights', mend: existsSync(join(places.root, 'electron')) ? 'npm run build' : 'install Sluice again' }]
  const folder = await mkdtemp(join(tmpdir(), 'sluice-doctor-'))
  try {
    const [inside, outside] = [join(folder, 'inside'), join(folder, 'outside')]
    await Promise.all([mkdir(inside), mkdir(outside)])
    const tried = await execa(places.confine, ['--write', inside, '--', '/bin/sh', '-c', ': > "$0" && { : > "$1"; } 2>/dev/null', join(inside, 'a'), join(outside, 'b')], { reject: false, timeout: 10_000, stdin: 'ignore' })
    const verdict: DoctorRow = existsSync(join(outside, 'b'))
      ? { ...row, verdict: 'warn', fact: 'the kernel has no Landlock: the inspector has no privilege, but may write what you may', mend: 'boot with landlock in the lsm= list of the kernel (CONFIG_SECURITY_LANDLOCK, Linux 5.13)' }
      : existsSync(join(inside, 'a'))
        ? { ...row, verdict: 'ok', fact: 'the inspector reads captures without privilege and writes in the session alone (tried)' }
        : { ...row, verdict: 'warn', fact: `a confined program could not be run: ${tried.shortMessage ?? tried.stderr}` }
    return [verdict]
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const littleRoom = 2 * 2 ** 30

/** Room where sessions go. A full disk ends the recording, never the relaying. */
export const checkDisk: Check = async ({ folder }) => {
  let path = folder
  // It may not have been made yet.
  while (!existsSync(path) && dirname(path) !== path) path = dirname(path)
  const { bavail, bsize, type } = await statfs(path)
  const free = bavail * bsize
  const gibibytes = `${(free / 2 ** 30).toFixed(1)} GiB free at ${path}`
  const row = { id: 'disk', title: 'Room for sessions' }
  // TMPFS_MAGIC, statfs(2).
  const memory = type === 0x0102_1994 ? ', which is memory' : ''
  if (free >= littleRoom) return [{ ...row, verdict: 'ok', fact: `${gibibytes}${memory}` }]
  return [{ ...row, verdict: 'warn', fact: `${gibibytes}${memory}: when it is full the recording stops (the relaying does not)`, mend: 'make room, choose another place with -o, or keep a budget with --max-bytes 500M' }]
}

/** Where programs are told apart by their cgroup. */
export const checkCgroups: Check = async () => {
  const row = { id: 'cgroups', title: 'cgroups' }
  const found = await listCgroups()
  if (found === undefined) return [{ ...row, verdict: 'warn', fact: 'cgroup v2 is not mounted at /sys/fs/cgroup: --cgroup, --unit, --container and sluice run cannot be used', mend: 'boot with systemd.unified_cgroup_hierarchy=1, or sudo mkdir -p /sys/fs/cgroup/unified && sudo mount -t cgroup2 none /sys/fs/cgroup/unified' }]
  const where = found.prefix === '' ? '/sys/fs/cgroup' : `/sys/fs/cgroup/${found.prefix}`
  return [{ ...row, verdict: 'ok', fact: `version 2 at ${where}${found.paths === undefined ? '' : `, ${String(found.paths.length)} in it`}` }]
}
