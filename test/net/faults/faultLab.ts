import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import { labAddresses, makeLab } from '#test/lab/makeLab.ts'
import type { Lab } from '#test/lab/makeLab.ts'
import { until } from '#test/lab/until.ts'

import { runFilesOf, snapshot } from '../helper/harness.ts'

const run = promisify(execFile)
const prober = fileURLToPath(new URL('./prober.mjs', import.meta.url))

export interface Answer {
  readonly ok: boolean
  readonly relayed?: boolean
  readonly error?: string
}
export interface Seen {
  readonly pid: number
  readonly parent: number
  readonly name: string
  readonly commandLine: string
}

/** A laboratory that many cases use one after another: each has to leave it as it was. */
export interface FaultLab {
  readonly lab: Lab
  readonly before: string
  ask(place: 'client' | 'router', family: 'ipv4' | 'ipv6', transport?: 'tcp' | 'udp'): Promise<Answer>
  /** A connection that stays until the laboratory goes, or somebody resets it. */
  hold(place: 'client' | 'router', family: 'ipv4' | 'ipv6'): Promise<Answer>
  /** What runs in router and server, but for the laboratory's own. */
  programs(): Promise<Seen[]>
  /** Both transports and families, forwarded and local: each gets through, directly unless `relayed` may be. */
  expectNetwork(mayBeRelayed: boolean): Promise<void>
  /** Rules, routes, processes and files as before. */
  expectClean(): Promise<void>
}

const port = '8080'

export async function makeFaultLab(): Promise<FaultLab> {
  const lab = await makeLab()
  await Promise.all([[], ['--udp']].map((words) => lab.peer('server', 'serve', 'origin', port, ...words).event(({ event }) => event === 'listening')))
  const places = { client: lab.spawn('client', [process.execPath, prober]), router: lab.spawn('router', [process.execPath, prober]) }
  let next = 1
  const tell = async (place: 'client' | 'router', word: string, family: 'ipv4' | 'ipv6', timeout: number): Promise<Answer> => {
    const id = String(next++)
    places[place].write(`${id} ${word} ${labAddresses[family].server} ${port} ${String(timeout)}`)
    const { id: _id, ...answer } = await places[place].event((event) => event['id'] === id, timeout + 20_000)
    return answer as unknown as Answer
  }
  const before = await snapshot(lab)
  const combinations = (['client', 'router'] as const).flatMap((place) => (['ipv4', 'ipv6'] as const).flatMap((family) => (['tcp', 'udp'] as const).map((transport) => [place, family, transport] as const)))
  const self: FaultLab = {
    lab,
    before,
    ask: (place, family, transport = 'tcp') => tell(place, transport === 'tcp' ? 'ask' : 'ask-udp', family, 1500),
    hold: (place, family) => tell(place, 'hold', family, 15_000),
    async programs() {
      const listed = await Promise.all((['router', 'server'] as const).map((place) => run('ip', ['netns', 'pids', lab.names[place]])))
      const seen = await Promise.all(listed.flatMap(({ stdout }) => stdout.split('\n')).filter((line) => line !== '').map(Number).map(look))
      return seen.filter((each): each is Seen => each !== undefined && !/\/(?:prober|peer)\.mjs /.test(`${each.commandLine} `))
    },
    async expectNetwork(mayBeRelayed) {
      await Promise.all(
        combinations.map(([place, family, transport]) =>
          until(`${transport} of ${place} gets through by ${family}${mayBeRelayed ? '' : ' directly'}`, () => self.ask(place, family, transport), ({ ok, relayed }) => ok && (mayBeRelayed || relayed === false)),
        ),
      )
    },
    async expectClean() {
      await until('rules and routes are as before', () => snapshot(lab), (now) => now === before)
      await until('no process is left', async () => (await self.programs()).map(({ commandLine }) => commandLine), (left) => left.length === 0)
      await until('no file is left', () => Promise.resolve(runFilesOf(lab)), (files) => files.length === 0)
    },
  }
  return self
}

async function look(pid: number): Promise<Seen | undefined> {
  try {
    const [commandLine, status] = await Promise.all([readFile(`/proc/${String(pid)}/cmdline`, 'utf8'), readFile(`/proc/${String(pid)}/status`, 'utf8')])
    const field = (name: string): string => new RegExp(`^${name}:\\s+(.*)$`, 'm').exec(status)?.[1] ?? ''
    if (field('State').startsWith('Z')) return undefined
    return { pid, parent: Number(field('PPid')), name: field('Name'), commandLine: commandLine.replaceAll('\0', ' ').trim() }
  } catch {
    return undefined
  }
}
