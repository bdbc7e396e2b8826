import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { labAddresses, type Lab } from '#test/lab/makeLab.ts'
import { until } from '#test/lab/until.ts'

/** Files that clients and servers share. */
export interface ServerFiles {
  readonly folder: string
  /** Random bytes, which nothing compresses. */
  readonly random: string
  readonly key: string
  remove(): void
}

const postgresPrograms = '/usr/lib/postgresql/15/bin'

/** Real servers in the laboratory's server, both families: iperf3 (5201), redis (6379), sshd (22), PostgreSQL (5432), HTTP/3 (443/udp). Resolves when each of them answers. */
export async function startServers(lab: Lab): Promise<ServerFiles> {
  const folder = mkdtempSync(join(tmpdir(), `sluice-programs-${process.pid}-`))
  chmodSync(folder, 0o755)
  const path = (name: string): string => join(folder, name)
  mkdirSync(path('www'))
  mkdirSync(path('got'))
  writeFileSync(path('random'), randomBytes(4 << 20))
  copyFileSync(path('random'), path('www/random'))
  await Promise.all([startIperf(lab), startRedis(lab, folder), startSsh(lab, folder), startPostgres(lab, folder), startHttp3(lab, folder)])
  return { folder, random: path('random'), key: path('key'), remove: () => rmSync(folder, { recursive: true, force: true }) }
}

async function startIperf(lab: Lab): Promise<void> {
  await lab.spawn('server', ['iperf3', '--server', '--forceflush']).line((line) => line.includes('listening'))
}

async function startRedis(lab: Lab, folder: string): Promise<void> {
  const { ipv4, ipv6 } = labAddresses
  const words = ['--bind', ipv4.server, ipv6.server, '--protected-mode', 'no', '--save', '', '--dir', folder]
  await lab.spawn('server', ['redis-server', ...words]).line((line) => line.includes('Ready to accept connections'))
}

async function startSsh(lab: Lab, folder: string): Promise<void> {
  const path = (name: string): string => join(folder, name)
  for (const name of ['key', 'hostKey']) execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', path(name)])
  copyFileSync(path('key.pub'), path('authorized'))
  // Where sshd puts the part of itself that has no rights.
  mkdirSync('/run/sshd', { recursive: true })
  const lines = [`HostKey ${path('hostKey')}`, `AuthorizedKeysFile ${path('authorized')}`, 'PidFile none', 'UsePAM no', 'StrictModes no', 'PasswordAuthentication no', 'PermitRootLogin yes', 'LogLevel INFO', 'PrintMotd no']
  writeFileSync(path('sshd.conf'), `${lines.join('\n')}\n`)
  await lab.spawn('server', ['sh', '-c', `exec /usr/sbin/sshd -D -e -f ${path('sshd.conf')} 2>&1`]).line((line) => line.includes('listening on ::'))
}

async function startPostgres(lab: Lab, folder: string): Promise<void> {
  const data = join(folder, 'postgres')
  mkdirSync(data)
  execFileSync('chown', ['postgres', data])
  const asPostgres = ['setpriv', '--reuid', 'postgres', '--regid', 'postgres', '--clear-groups', '--']
  const [own = '', ...words] = asPostgres
  execFileSync(own, [...words, `${postgresPrograms}/initdb`, '-D', data, '-A', 'trust', '--no-sync', '-E', 'UTF8', '--locale', 'C'], { cwd: '/', stdio: 'ignore' })
  writeFileSync(join(data, 'pg_hba.conf'), 'host all all all trust\n')
  const settings = ['fsync=off', "listen_addresses=*", `unix_socket_directories=`, 'log_destination=stderr'].flatMap((each) => ['-c', each])
  await lab.spawn('server', [...asPostgres, 'sh', '-c', 'exec "$@" 2>&1', 'sh', `${postgresPrograms}/postgres`, '-D', data, ...settings], { cwd: '/' }).line((line) => line.includes('ready to accept connections'), 30_000)
}

async function startHttp3(lab: Lab, folder: string): Promise<void> {
  const path = (name: string): string => join(folder, name)
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=server.test', '-days', '2', '-keyout', path('h3.key'), '-out', path('h3.crt')], { stdio: 'ignore' })
  lab.spawn('server', ['gtlsserver', '--quiet', '--htdocs', path('www'), '*', '443', path('h3.key'), path('h3.crt')])
  // It says nothing when it listens.
  await until('it listens in both families', async () => (await lab.exec('server', ['ss', '-Hlun', 'sport', '=', '443'])).stdout, (listed) => listed.split('\n').filter((line) => line !== '').length >= 2)
}
