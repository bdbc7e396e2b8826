import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'

import { divertTo } from './divertTo.ts'
import type { Contender } from './figures.ts'
import { startRelay } from './relayDriver.ts'
import type { Lab } from '../lab/makeLab.ts'
import { findPlaces } from '#probe/places.ts'

export interface StartOptions {
  readonly lab: Lab
  /** The contender's own; it may write there. */
  readonly folder: string
  readonly threads: number
  /** The port whose flows are diverted to it. */
  readonly port: number
}
export interface RunningContender {
  readonly pid: number
  stop(): Promise<void>
}

/** Starts one in the laboratory's router and leads the flows of the port to it; undefined for plain forwarding. */
export async function startContender(contender: Contender, options: StartOptions): Promise<RunningContender | undefined> {
  switch (contender) {
    case 'direct': return undefined
    case 'haproxy': return behindTproxy(options, 50_180, await startHaproxy(options, 50_180, true))
    case 'haproxy-plain': return behindTproxy(options, 50_180, await startHaproxy(options, 50_180, false))
    case 'squid': return behindTproxy(options, 50_129, await startSquid(options, 50_129))
    case 'mitmdump': return startMitmdump(options)
    case 'sluice':
    case 'sluice-no-payload': {
      const { lab, folder, threads } = options
      const relay = await startRelay({ enter: lab.enter('router'), program: findPlaces().relay, folder, threads, payload: contender === 'sluice', port: 50_080, udp: true })
      return behindTproxy(options, relay.port, relay, true)
    }
  }
}

/** All need the same diversion. */
async function behindTproxy({ lab, port }: StartOptions, relayPort: number, program: RunningContender, udp = false): Promise<RunningContender> {
  const divert = await divertTo(lab, port, relayPort, udp)
  return {
    pid: program.pid,
    async stop() {
      await divert.undo()
      await program.stop()
    },
  }
}

/** HAProxy as its manual has it for TPROXY: a transparent listener, the destination as it was, the client's own address onward. */
async function startHaproxy({ lab, folder, threads }: StartOptions, listen: number, splice: boolean): Promise<RunningContender> {
  const file = join(folder, 'haproxy.cfg')
  writeFileSync(file, `global
  nbthread ${threads}
  maxconn 7500
${splice ? '' : '  nosplice\n'}defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
${splice ? '  option splice-request\n  option splice-response\n  option splice-auto\n' : ''}listen through
  bind 127.0.0.1:${listen} transparent
  server origin 0.0.0.0 source 0.0.0.0 usesrc clientip
`)
  return started(lab, listen, ['/usr/sbin/haproxy', '-db', '-f', file])
}

/** Squid on a tproxy port, without cache, log or helpers. One process; it has no threads. */
async function startSquid({ lab, folder }: StartOptions, listen: number): Promise<RunningContender> {
  const file = join(folder, 'squid.conf')
  chmodSync(folder, 0o777)  // it gives up root before it writes
  writeFileSync(file, `http_port 127.0.0.1:${listen} tproxy
http_port 127.0.0.1:${listen + 1}
http_access allow all
cache deny all
cache_mem 0
access_log none
cache_log ${join(folder, 'cache.log')}
cache_store_log none
pid_filename none
coredump_dir none
pinger_enable off
netdb_filename none
max_filedescriptors 16384
host_verify_strict off
client_dst_passthru on
via off
forwarded_for delete
shutdown_lifetime 0 seconds
`)
  return started(lab, listen, ['/usr/sbin/squid', '-N', '-f', file])
}

/** mitmdump asks conntrack for the original destination, so its flows are redirected and not sent through TPROXY. One process, one thread. */
async function startMitmdump({ lab, folder, port }: StartOptions): Promise<RunningContender> {
  const listen = 50_190
  const program = await started(lab, listen, [
    '/usr/bin/mitmdump', '--mode', 'transparent', '--listen-port', String(listen), '--quiet', '--set', `confdir=${join(folder, 'mitmproxy')}`, '--set', 'stream_large_bodies=1m',
  ])
  const table = `table ip benchredirect { chain pre { type nat hook prerouting priority dstnat; iifname "cl0" tcp dport ${port} redirect to :${listen}; }; }\n`
  await lab.exec('router', ['/usr/sbin/nft', '-f', '-'], { input: table })
  return {
    pid: program.pid,
    async stop() {
      await lab.exec('router', ['/usr/sbin/nft', 'delete', 'table', 'ip', 'benchredirect'])
      await program.stop()
    },
  }
}

/** Starts a program and waits until it listens. */
async function started(lab: Lab, listen: number, argv: readonly string[]): Promise<RunningContender> {
  const child = lab.spawn('router', argv)
  const state = { over: false }
  void child.ended.then(() => (state.over = true))
  const deadline = Date.now() + 30_000
  for (;;) {
    const { stdout } = await lab.exec('router', ['/usr/bin/ss', '-Hltn'])
    if (stdout.includes(`:${listen} `)) break
    if (state.over || Date.now() > deadline) throw new Error(`${argv[0] ?? ''} did not start: ${child.errors() || child.output()}`)
    await wait(20)
  }
  return { pid: child.pid, stop: () => child.stop('SIGKILL') }
}
