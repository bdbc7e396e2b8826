import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Duplex } from 'node:stream'

export interface RelayOptions {
  /** Words that bring a program into the router. */
  readonly enter: readonly string[]
  readonly program: string
  readonly folder: string
  readonly threads: number
  readonly payload: boolean
  readonly port: number
  /** UDP too. */
  readonly udp?: boolean
  /** Seconds of silence that end a flow of UDP. Default: 60, DNS 10. */
  readonly udpIdle?: number
  /** Of payload kept in all; none: as much as comes. */
  readonly maxBytes?: number
}
export interface RunningProxy {
  readonly pid: number
  readonly port: number
  /** Resolves when no flow is active any more, nor any of UDP silent but known. */
  quiet(): Promise<void>
  stop(): Promise<void>
}

/** The relay alone, driven as the helper drives it (ARCHITECTURE.md, "Relay control"). */
export async function startRelay(options: RelayOptions): Promise<RunningProxy> {
  const [program, ...args] = [...options.enter, options.program]
  const child: ChildProcess = spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit', 'pipe'] })
  const control = child.stdio[3] as Duplex
  control.on('error', () => undefined)
  const lines = createInterface({ input: control })
  const ready = new Promise<{ port: number; pid: number }>((resolve, reject) => {
    lines.on('line', (line) => {
      const message = JSON.parse(line) as { type: string; port?: number; pid?: number; message?: string }
      if (message.type === 'ready') resolve({ port: message.port ?? 0, pid: message.pid ?? child.pid ?? 0 })
      // A relay that sheds or refuses is not measured unnoticed.
      if (message.type === 'warning') process.stderr.write(`the relay: ${message.message ?? ''}\n`)
      if (message.type === 'failed') reject(new Error(`the relay: ${message.message ?? 'failed'}`))
    })
    child.on('exit', (code) => reject(new Error(`the relay ended with ${String(code)}`)))
  })
  const ended = new Promise<void>((resolve) => child.on('exit', () => resolve()))
  const start = {
    type: 'start', uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0, groups: [], port: options.port, portTries: 20, ipv6: true, threads: options.threads,
    uplinkMark: 0x8000_0000, capture: { folder: options.folder, payload: options.payload, maxBytesPerFlow: null, maxBytes: options.maxBytes ?? null }, attribute: true, maxFlows: 16_384, version: 'bench',
    ...(options.udp === true ? { udp: true, udpIdle: { dns: options.udpIdle ?? 10, quic: options.udpIdle ?? 60, other: options.udpIdle ?? 60 } } : {}),
  }
  control.write(`${JSON.stringify(start)}\n`)
  const { port, pid } = await ready
  let udpFlows = 0
  lines.on('line', (line) => {
    const message = JSON.parse(line) as { type: string; udpFlows?: number }
    if (message.type === 'flows') udpFlows = message.udpFlows ?? 0
  })
  return {
    pid,
    port,
    quiet: () => new Promise((resolve) => {
      lines.on('line', (line) => {
        const message = JSON.parse(line) as { type: string; active?: number }
        if (message.type !== 'pong') return
        if (message.active === 0 && (options.udpIdle === undefined || udpFlows === 0)) resolve()
        else setTimeout(ask, 50)
      })
      const ask = (): void => void control.write('{"type":"ping","id":1}\n')
      // Nobody speaks any more, so there is no need to be silent for as long.
      if (options.udpIdle !== undefined) control.write('{"type":"udp","udpIdle":{"dns":1,"quic":1,"other":1},"refuse":[]}\n')
      ask()
    }),
    async stop() {
      control.write('{"type":"quit"}\n')
      await ended
    },
  }
}
