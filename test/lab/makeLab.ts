import { execFile, execFileSync } from 'node:child_process'
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

import { signalGroup, startProcess, type LabProcess } from './labProcess.ts'
import { until } from './until.ts'

/** client -- router -- server. "Local" means a program in the router. */
export type Place = 'client' | 'router' | 'server'

export interface LabResult {
  readonly stdout: string
  readonly stderr: string
  readonly code: number
}

export interface Lab {
  /** Names for `ip netns`; each holds this process's id. */
  readonly names: Readonly<Record<Place, string>>
  /** What the namespace is opened by: /run/netns/NAME. */
  readonly paths: Readonly<Record<Place, string>>
  /** Runs a program to its end. Rejects when it fails, unless `reject` is false. */
  exec(place: Place, argv: readonly string[], options?: { readonly input?: string; readonly reject?: boolean; readonly env?: NodeJS.ProcessEnv }): Promise<LabResult>
  spawn(place: Place, argv: readonly string[], options?: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv }): LabProcess
  /** peer.mjs with these arguments. */
  peer(place: Place, ...args: readonly string[]): LabProcess
  /** The words in front of a command that bring it into a place. */
  enter(place: Place): string[]
  /** Ends every process in the laboratory and takes its namespaces away. Idempotent; done at the end of this process in any case. */
  remove(): Promise<void>
}

/** Addresses from the documentation ranges; the router's interfaces are cl0 (to the client) and sv0 (to the server), the others' is up0. */
export const labAddresses = {
  ipv4: { client: '198.51.100.2', routerToClient: '198.51.100.1', routerToServer: '203.0.113.1', server: '203.0.113.2' },
  ipv6: { client: '2001:db8:1::2', routerToClient: '2001:db8:1::1', routerToServer: '2001:db8:2::1', server: '2001:db8:2::2' },
} as const

export const peerProgram = fileURLToPath(new URL('./peer.mjs', import.meta.url))

const prefix = 'sluicelab'
const places: readonly Place[] = ['client', 'router', 'server']
let count = 0

/** Three namespaces of their own, wired and routed, IPv4 and IPv6. Needs root. Touches nothing outside of them. */
export async function makeLab(): Promise<Lab> {
  sweepDead()
  const number = ++count
  const name = (place: Place): string => `${prefix}-${process.pid}-${number}-${place}`
  const names = { client: name('client'), router: name('router'), server: name('server') }
  const paths = { client: `/run/netns/${names.client}`, router: `/run/netns/${names.router}`, server: `/run/netns/${names.server}` }
  const processes = new Set<LabProcess>()

  // nsenter and not `ip netns exec`: that one mounts a new /sys, which hides the cgroups.
  const enter = (place: Place): string[] => ['nsenter', `--net=${paths[place]}`, '--']
  const removeNow = (): void => {
    for (const each of processes) signalGroup(each.pid, 'SIGKILL')
    for (const place of places) removeNamespace(names[place])
  }
  process.once('exit', removeNow)

  const lab: Lab = {
    names,
    paths,
    enter,
    exec: (place, argv, options = {}) => run([...enter(place), ...argv], options),
    spawn(place, argv, options) {
      const started = startProcess([...enter(place), ...argv], options)
      processes.add(started)
      void started.ended.then(() => processes.delete(started))
      return started
    },
    peer: (place, ...args) => lab.spawn(place, [process.execPath, peerProgram, ...args]),
    async remove() {
      const running = [...processes]
      removeNow()
      process.off('exit', removeNow)
      await Promise.all(running.map((each) => each.ended))
    },
  }

  try {
    for (const place of places) {
      await run(['ip', 'netns', 'add', names[place]])
      forgetRunFiles(paths[place])
    }
    for (const place of places) await lab.exec(place, ['sh', '-c', `${quiet}${place === 'router' ? forwarding : ''}`])
    const lines = wiring(names)
    for (const place of ['router', 'client', 'server'] as const) await run(['ip', '-n', names[place], '-batch', '-'], { input: lines[place] })
    await Promise.all(places.map((place) => untilLinked(names[place], place === 'router' ? 2 : 1)))
  } catch (error) {
    await lab.remove()
    throw error
  }
  return lab
}

/** The kernel gives a dead namespace's number to the next one at once: what a killed helper left there (under its number) is not the new one's. */
function forgetRunFiles(path: string): void {
  for (const end of ['json', 'json.new', 'lock']) rmSync(`/run/sluice/${String(statSync(path).ino)}.${end}`, { force: true })
}

/** No duplicate address detection, so that an address is usable at once; no router advertisements; where br_netfilter is there, bridges as if it were not. */
const quiet = 'for p in all default; do echo 0 > /proc/sys/net/ipv6/conf/$p/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/$p/accept_ra; done; for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do if [ -e $f ]; then echo 0 > $f; fi; done;'
const forwarding = 'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding;'

/** Until so many interfaces have the link-local address that the kernel gives them when it has seen their link: before that nobody can note how everything was. */
async function untilLinked(name: string, count: number): Promise<void> {
  await until(`${name} has its link-local addresses`, async () => (await run(['ip', '-n', name, '-6', '-o', 'addr', 'show', 'scope', 'link'])).stdout, (listed) => listed.split('\n').length > count)
}

/**
 * Lines for `ip -batch`, one text for each namespace; the router's comes first, as it makes both links. Its ends have numbers that no other end has: where both ends have the same
 * one, the kernel takes them for no pair and looks at their link up to a second later.
 */
function wiring({ client, server }: Readonly<Record<Place, string>>): Record<Place, string> {
  const { ipv4, ipv6 } = labAddresses
  const address = (device: string, v4: string, v6: string): string => `addr add ${v4}/24 dev ${device}\naddr add ${v6}/64 dev ${device} nodad\nlink set ${device} up\n`
  const end = (v4: string, v6: string, gateway4: string, gateway6: string): string => `link set lo up\n${address('up0', v4, v6)}route add default via ${gateway4}\nroute add default via ${gateway6}\n`
  return {
    router:
      `link set lo up\nlink add cl0 index 101 type veth peer name up0 netns ${client}\nlink add sv0 index 102 type veth peer name up0 netns ${server}\n` +
      address('cl0', ipv4.routerToClient, ipv6.routerToClient) + address('sv0', ipv4.routerToServer, ipv6.routerToServer),
    client: end(ipv4.client, ipv6.client, ipv4.routerToClient, ipv6.routerToClient),
    server: end(ipv4.server, ipv6.server, ipv4.routerToServer, ipv6.routerToServer),
  }
}

/** Takes one of our namespaces away with whatever still runs in it (a guard in a session of its own, say). Synchronous: it must work while this process ends. */
function removeNamespace(name: string): void {
  if (!existsSync(`/run/netns/${name}`)) return
  try {
    const inside = execFileSync('ip', ['netns', 'pids', name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    for (const pid of inside.split('\n').map(Number).filter((each) => each > 1)) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // ended meanwhile
      }
    }
    execFileSync('ip', ['netns', 'del', name], { stdio: 'ignore' })
  } catch {
    // taken away by somebody else meanwhile
  }
}

/** Laboratories of processes that were killed before they could tidy up. */
function sweepDead(): void {
  if (!existsSync('/run/netns')) return
  for (const name of readdirSync('/run/netns')) {
    const pid = /^sluicelab-([0-9]+)-/.exec(name)?.[1]
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) removeNamespace(name)
  }
}

async function run(argv: readonly string[], options: { readonly input?: string; readonly reject?: boolean; readonly env?: NodeJS.ProcessEnv } = {}): Promise<LabResult> {
  const [command = '', ...args] = argv
  return new Promise((resolve, reject) => {
    const child = execFile(command, args, { encoding: 'utf8', maxBuffer: 64 << 20, ...(options.env === undefined ? {} : { env: options.env }) }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1
      if (code !== 0 && options.reject !== false) reject(new Error(`${argv.join(' ')} ended with ${code}: ${stderr.trim()}`))
      else resolve({ stdout, stderr, code })
    })
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(options.input ?? '')
  })
}
