import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Har } from 'har-format'

import type { Host } from './host.ts'
import type { Services } from './services.ts'
import type { Journey } from './traffic.ts'
import type { LabProcess } from '../labProcess.ts'

export interface HeadlessOptions {
  readonly router: Host
  readonly client: Host
  readonly services: Services
  readonly journeys: readonly Journey[]
  readonly server: { readonly ipv4: string; readonly ipv6: string }
  /** Where session, HAR and pcapng are left. */
  readonly out: string
  /** The command: argv in front of its own words. */
  readonly command: readonly string[]
  /** Also a 1 GiB download around opening and closing. */
  readonly big: boolean
  readonly say: (text: string) => void
}

/** The main job from end to end, each step judged. Resolves to the number of things that were wrong. */
export async function runHeadless(options: HeadlessOptions): Promise<number> {
  const { router, client, services, journeys, out, command, say } = options
  let right = 0
  let wrong = 0
  const judge = (holds: boolean, what: string, detail = ''): void => {
    if (holds) right += 1
    else wrong += 1
    say(`${holds ? '  right' : '  WRONG'}  ${what}${holds || detail === '' ? '' : `: ${detail}`}`)
  }
  const sluice = (...words: string[]) => router.run([...command, ...words])
  const session = join(out, 'demo.sluice')
  mkdirSync(out, { recursive: true })
  for (const name of ['demo.sluice', 'demo.har', 'demo.pcapng', 'demo.ndjson']) rmSync(join(out, name), { recursive: true, force: true })

  say('without the gate')
  const before = new Map<Journey, string>()
  for (const journey of journeys) {
    try {
      before.set(journey, await journey.run())
    } catch (error) {
      judge(false, `${journey.name}, ${journey.scope}, without the gate`, message(error))
    }
  }
  const rulesBefore = await rulesOf(router)
  const servedBefore = services.requests().length

  const early = options.big ? startDownload(client, options.server.ipv4) : undefined
  if (early) await early.begun

  say('opening the gate on 80, 443, 6379 and 8080 of TCP, 53 and 443 of UDP')
  const ports = ['--tcp', '80,443,6379,8080', '--udp', '53,443', '--udp-idle', '15']
  const capture = router.start([...command, 'capture', ...ports, '--scope', 'local,forwarded', '-o', session])
  try {
    const ready = await capture.line((line) => line.startsWith('READY'), 30_000)
    judge(true, `the gate is open: ${ready}`)
  } catch (error) {
    judge(false, 'the gate opens', message(error))
    await capture.stop('SIGTERM')
    return wrong
  }
  const during = options.big ? startDownload(client, options.server.ipv4) : undefined
  for (const journey of journeys) {
    const what = `${journey.name}, ${journey.scope}: the same bytes as without`
    try {
      const result = await journey.run()
      judge(result === before.get(journey), what, 'the bytes differ')
    } catch (error) {
      judge(false, what, message(error))
    }
  }
  const second = await sluice('capture', ...ports, '-o', join(out, 'second.sluice'), '--for', '1s')
  judge(second.code === 1, 'a second Sluice is told that the gate is open', `exit ${second.code} ${second.errors.trim()}`)

  say('closing')
  await capture.stop('SIGINT')
  const { code } = await capture.ended
  judge(code === 0, 'the gate closed in good order', `exit ${code} ${capture.errors().trim()}`)
  for (const [download, when] of [[early, 'before opening'], [during, 'while open']] as const) {
    if (download) judge(await download.whole(), `a 1 GiB download begun ${when} came whole`)
  }
  if (options.big) judge(await startDownload(client, options.server.ipv4).whole(), 'a 1 GiB download begun after closing came whole')
  judge((await rulesOf(router)) === rulesBefore, 'rules, routes and tables are as they were before')

  say('what the record holds')
  const served = services.requests().slice(servedBefore)
  const own = new Set(['198.51.100.2', '2001:db8:1::2', '203.0.113.1', '2001:db8:2::1'])
  const strangers = served.filter(({ client: address }) => !own.has(address))
  judge(served.length > 0 && strangers.length === 0, `the server saw only the clients' own addresses in ${served.length} requests`, JSON.stringify(strangers[0]))
  judge(served.some((one) => one.client === '198.51.100.2') && served.some((one) => one.client === '2001:db8:1::2'), 'forwarded requests came from the client itself, in both families')

  const flows = await sluice('flows', session, '--json')
  const rows = flows.output.toString().split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Record<string, unknown>)
  judge(flows.code === 0 && rows.length > 0, `sluice flows lists ${rows.length} flows`, flows.errors)
  const named = rows.filter((row) => row['scope'] === 'local' && (row['process'] as { name?: string } | undefined)?.name)
  const local = rows.filter((row) => row['scope'] === 'local')
  judge(named.length === local.length, `the program behind each of the ${local.length} local flows is known`, `${local.length - named.length} are not`)
  judge(rows.filter((row) => row['protocol'] === 'tls').every((row) => row['name'] === 'server.test'), 'TLS flows carry the name asked for')

  const datagrams = rows.filter((row) => row['transport'] === 'udp')
  const asked = datagrams.filter((row) => row['protocol'] === 'dns').map((row) => row['dns'] as { name?: string; rcode?: string } | undefined)
  judge(asked.length === 3 && asked.filter((dns) => dns?.name === 'server.test' && dns.rcode === 'NOERROR').length === 2, 'questions to the name server are listed with their names and answers', JSON.stringify(asked))
  judge(datagrams.filter((row) => row['protocol'] === 'quic' && Number(row['bytesDown']) > 8 << 20).length === 2, 'QUIC flows are known as such, and whole')

  const har = join(out, 'demo.har')
  const exported = await sluice('export', session, '--format', 'har', '-o', har)
  judge(exported.code === 0 && existsSync(har), 'HAR exported', exported.errors.trim())
  if (existsSync(har)) judgeHar(JSON.parse(readFileSync(har, 'utf8')) as Har, options, servedBefore, judge)

  const pcapng = join(out, 'demo.pcapng')
  const copied = await sluice('export', session, '--format', 'pcapng', '-o', pcapng)
  judge(copied.code === 0, 'pcapng exported', copied.errors.trim())
  const shark = await router.run(['/usr/bin/tshark', '-n', '-r', pcapng, '-Y', '_ws.malformed || tcp.analysis.flags || tcp.checksum.status == 0', '-o', 'tcp.check_checksum:TRUE', '-T', 'fields', '-e', 'frame.number'])
  judge(shark.code === 0 && shark.output.toString().trim() === '', 'tshark reads the pcapng without complaint', `${shark.output.toString().slice(0, 200)} ${shark.errors.slice(-300)}`)
  const ndjson = await sluice('export', session, '--format', 'ndjson', '-o', join(out, 'demo.ndjson'))
  judge(ndjson.code === 0, 'NDJSON exported', ndjson.errors.trim())

  say(`${right} right, ${wrong} wrong`)
  if (wrong === 0) say(`left in ${out}: demo.sluice, demo.har, demo.pcapng, demo.ndjson`)
  return wrong
}

/** Every request in the server's log must stand in the HAR as often as there, with its status and body size. */
function judgeHar(har: Har, { services, server }: HeadlessOptions, servedBefore: number, judge: (holds: boolean, what: string, detail?: string) => void): void {
  const count = (keys: readonly string[]): Map<string, number> => {
    const counts = new Map<string, number>()
    for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1)
    return counts
  }
  const wanted = count(
    services
      .requests()
      .slice(servedBefore)
      .filter(({ scheme, target }) => scheme === 'http' && target !== '/big.bin')
      .map(({ method, target, status }) => `${method} ${target} ${status}`),
  )
  const got = count(
    har.log.entries.map(({ request, response }) => {
      const url = new URL(request.url)
      return `${request.method} ${url.pathname}${url.search} ${response.status}`
    }),
  )
  const missing = [...wanted].filter(([key, times]) => (got.get(key) ?? 0) < times).map(([key]) => key)
  judge(missing.length === 0, `each of the server's ${[...wanted.values()].reduce((sum, times) => sum + times, 0)} HTTP requests is in the HAR`, missing.slice(0, 3).join('; '))
  const big = har.log.entries.filter(({ request }) => request.url.endsWith('/random.bin'))
  judge(big.length >= 4 && big.every(({ response }) => response.content.size === 8 << 20), 'the 8 MiB bodies are there whole')
  const browsed = ['/index.html', '/style.css', '/program.js', '/picture.svg', '/data.json'].filter((path) => !har.log.entries.some(({ request }) => request.url === `http://${server.ipv4}${path}`))
  judge(browsed.length === 0, "the browser's page, style, program, picture and data are in the HAR", browsed.join(' '))
}

/** All that a gate could leave behind, as text. Counters are left out. */
async function rulesOf(host: Host): Promise<string> {
  const texts: string[] = []
  for (const argv of [
    ['/usr/sbin/nft', 'list', 'ruleset'],
    ['/usr/sbin/iptables-save'],
    ['/usr/sbin/ip6tables-save'],
    ['/usr/sbin/ip', 'rule'],
    ['/usr/sbin/ip', '-6', 'rule'],
    ['/usr/sbin/ip', 'route', 'show', 'table', 'all'],
    ['/usr/sbin/ip', '-6', 'route', 'show', 'table', 'all'],
  ]) {
    const { output } = await host.run(argv)
    texts.push(output.toString().replace(/^#.*$/gm, '').replace(/ expires \S+/g, ''))
  }
  return texts.join('\n')
}

/** A 1 GiB download, slow enough to span what it is to span; judged by its checksum. */
function startDownload(host: Host, address: string): { readonly begun: Promise<unknown>; whole(): Promise<boolean> } {
  const process: LabProcess = host.start(['/bin/sh', '-c', 'curl -sS --noproxy "*" --limit-rate 150M "$1" | sha256sum', 'sh', `http://${address}/big.bin`])
  return {
    // Established: curl shows in the socket list.
    begun: awaitEstablished(host, address),
    async whole() {
      const line = await process.line((text) => text.length >= 64, 120_000).catch(() => '')
      return line.startsWith(bigFileDigest)
    },
  }
}

/** SHA-256 of 1 GiB of zero bytes. */
const bigFileDigest = '49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14'

async function awaitEstablished(host: Host, address: string): Promise<void> {
  const deadline = Date.now() + 30_000
  while (Date.now() < deadline) {
    const { output } = await host.run(['/usr/bin/ss', '-Htn', 'state', 'established', 'dst', address])
    if (output.toString().trim() !== '') return
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  throw new Error('the download did not begin')
}

const message = (error: unknown): string => (error instanceof Error ? error.message.split('\n')[0] ?? '' : String(error))
