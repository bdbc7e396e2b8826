import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'

import type { Host } from './host.ts'

/** One real program doing one real thing. Its result must be the same with the gate open as without. */
export interface Journey {
  readonly name: string
  /** `forwarded`: from the client, through the router. `local`: a program of the router itself. */
  readonly scope: 'forwarded' | 'local'
  /** Port whose flow must be in the record. */
  readonly port: number
  run(): Promise<string>
}
export interface TrafficOptions {
  readonly client: Host
  readonly router: Host
  readonly server: { readonly ipv4: string; readonly ipv6: string }
  /** For clones, browser profiles. */
  readonly folder: string
  /** The services' certificate. */
  readonly certificate: string
}

const sha256 = (data: Buffer | string): string => createHash('sha256').update(data).digest('hex')

/** What Chromium must not do here: speak to anybody but the laboratory. */
const quietBrowser = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--disable-default-apps', '--disable-extensions', '--disable-features=Translate,OptimizationHints,MediaRouter', '--no-pings', '--metrics-recording-only',
]

export function makeJourneys({ client, router, server, folder, certificate }: TrafficOptions): readonly Journey[] {
  const v4 = server.ipv4
  const v6 = `[${server.ipv6}]`
  const curl = (host: Host, ...args: string[]) => async (): Promise<string> => {
    const { code, output, errors } = await host.run(['/usr/bin/curl', '-sS', '--noproxy', '*', '--max-time', '60', ...args])
    if (code !== 0) throw new Error(`curl ended with ${code}: ${errors.trim()}`)
    return sha256(output)
  }
  const clone = (host: Host, where: string) => async (): Promise<string> => {
    const parent = mkdtempSync(join(folder, 'clone-'))
    try {
      const env = { PATH: '/usr/bin:/bin', HOME: parent, GIT_CONFIG_NOSYSTEM: '1', GIT_TERMINAL_PROMPT: '0' }
      const cloned = await host.run(['/usr/bin/git', 'clone', '-q', `http://${where}/git/project.git`, join(parent, 'project')], { env })
      if (cloned.code !== 0) throw new Error(`git clone ended with ${cloned.code}: ${cloned.errors.trim()}`)
      const tree = await host.run(['/usr/bin/git', '-C', join(parent, 'project'), 'log', '--format=%H %T'], { env })
      const check = await host.run(['/usr/bin/git', '-C', join(parent, 'project'), 'fsck', '--full', '--strict'], { env })
      if (tree.code !== 0 || check.code !== 0) throw new Error(`the clone is damaged: ${check.errors.trim()}`)
      return sha256(tree.output)
    } finally {
      rmSync(parent, { recursive: true, force: true })
    }
  }
  const redis = (host: Host, where: string) => async (): Promise<string> => {
    const { code, output, errors } = await host.run(['/usr/bin/redis-cli', '-h', where], { input: `SET word ${'well'.repeat(2000)}\nGET word\nINCRBY never 0\nPING\n` })
    if (code !== 0) throw new Error(`redis-cli ended with ${code}: ${errors.trim()}`)
    return sha256(output)
  }
  const browse = (host: Host, where: string) => async (): Promise<string> => {
    const profile = mkdtempSync(join(folder, 'browser-'))
    mkdirSync(join(profile, 'home'))
    try {
      const { code, output, errors } = await host.run(
        ['/usr/bin/chromium', ...quietBrowser, `--user-data-dir=${profile}/data`, '--virtual-time-budget=4000', '--dump-dom', `http://${where}/index.html`],
        { env: { PATH: '/usr/bin:/bin', HOME: join(profile, 'home'), LANG: 'C.UTF-8' }, seconds: 60 },
      )
      if (code !== 0) throw new Error(`the browser ended with ${code}: ${errors.slice(-300)}`)
      const dom = output.toString()
      if (!dom.includes('data says well')) throw new Error('the page did not come to its end in the browser')
      return sha256(dom)
    } finally {
      rmSync(profile, { recursive: true, force: true })
    }
  }
  const ask = (host: Host, where: string, ...words: string[]) => async (): Promise<string> => {
    const { code, output, errors } = await host.run(['/usr/bin/dig', '+tries=1', '+time=20', '+noall', '+answer', '+comments', '+nocmd', `@${where}`, ...words])
    if (code !== 0) throw new Error(`dig ended with ${code}: ${errors.trim()}`)
    // Each question has a number of its own.
    return sha256(output.toString().replace(/, id: \d+/, ''))
  }
  const http3 = (host: Host, where: string) => async (): Promise<string> => {
    const got = mkdtempSync(join(folder, 'http3-'))
    try {
      const { code, output, errors } = await host.run(['/usr/bin/gtlsclient', '--quiet', '--exit-on-all-streams-close', '--download', got, where, '443', 'https://server.test/random.bin'], { seconds: 60 })
      if (code !== 0) throw new Error(`gtlsclient ended with ${code}: ${errors.trim()} ${output.toString().slice(-300)}`)
      return sha256(readFileSync(join(got, 'random.bin')))
    } finally {
      rmSync(got, { recursive: true, force: true })
    }
  }
  const tls = ['--cacert', certificate, '--resolve', `server.test:443:${v4}`]
  const order = ['-X', 'POST', '-H', 'Content-Type: application/json', '-d', '{"article":"lamp","count":2}']
  return [
    { name: 'curl, 8 MiB, IPv4', scope: 'forwarded', port: 80, run: curl(client, `http://${v4}/random.bin`) },
    { name: 'curl, 8 MiB, IPv6', scope: 'forwarded', port: 80, run: curl(client, `http://${v6}/random.bin`) },
    { name: 'curl, 8 MiB, IPv4', scope: 'local', port: 80, run: curl(router, `http://${v4}/random.bin`) },
    { name: 'curl, 8 MiB, IPv6', scope: 'local', port: 80, run: curl(router, `http://${v6}/random.bin`) },
    { name: 'curl, POST of JSON', scope: 'forwarded', port: 8080, run: curl(client, ...order, `http://${v4}:8080/api/orders`) },
    { name: 'curl, POST of JSON', scope: 'local', port: 8080, run: curl(router, ...order, `http://${v4}:8080/api/orders`) },
    { name: 'curl, two requests on one connection', scope: 'forwarded', port: 80, run: curl(client, `http://${v4}/hello`, `http://${v4}/data.json`) },
    { name: 'curl, redirect followed', scope: 'forwarded', port: 80, run: curl(client, '-L', `http://${v4}/moved`) },
    { name: 'curl, 404', scope: 'local', port: 80, run: curl(router, `http://${v4}/missing`) },
    { name: 'curl, gzip', scope: 'forwarded', port: 80, run: curl(client, '--compressed', `http://${v4}/data.json`) },
    { name: 'curl, TLS 1.3', scope: 'forwarded', port: 443, run: curl(client, ...tls, 'https://server.test/random.bin') },
    { name: 'curl, TLS 1.2', scope: 'local', port: 443, run: curl(router, ...tls, '--tls-max', '1.2', 'https://server.test/hello') },
    { name: 'git clone', scope: 'forwarded', port: 80, run: clone(client, v4) },
    { name: 'git clone, IPv6', scope: 'local', port: 80, run: clone(router, v6) },
    { name: 'redis-cli', scope: 'forwarded', port: 6379, run: redis(client, v4) },
    { name: 'redis-cli', scope: 'local', port: 6379, run: redis(router, server.ipv6) },
    { name: 'dig, an address', scope: 'forwarded', port: 53, run: ask(client, v4, 'server.test', 'A') },
    { name: 'dig, a name that is not there, IPv6', scope: 'forwarded', port: 53, run: ask(client, server.ipv6, 'nowhere.test', 'A') },
    { name: 'dig, an IPv6 address', scope: 'local', port: 53, run: ask(router, v4, 'server.test', 'AAAA') },
    { name: 'HTTP/3, 8 MiB', scope: 'forwarded', port: 443, run: http3(client, v4) },
    { name: 'HTTP/3, 8 MiB, IPv6', scope: 'local', port: 443, run: http3(router, server.ipv6) },
    { name: 'a browser loads a page', scope: 'forwarded', port: 80, run: browse(client, v4) },
    { name: 'a browser loads a page', scope: 'local', port: 80, run: browse(router, v4) },
  ]
}
