import { once } from 'node:events'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import { connect, createServer, type ConnectionOptions, type SecureVersion } from 'node:tls'
import type { AddressInfo } from 'node:net'
import { connect as connectPlain } from 'node:net'
import { beforeAll, describe, expect, it } from 'vitest'

import { dissectFlow } from '#test/support/dissectFlow.ts'
import type { Happening } from '#test/support/dissectFlow.ts'

/** A socket that writes down what passes, as the capture does. */
async function recordHandshake(version: SecureVersion, options: ConnectionOptions, alpn: string[]): Promise<Happening[]> {
  const server = createServer({ key, cert, minVersion: version, maxVersion: version, ALPNProtocols: alpn, ciphers: version === 'TLSv1.2' ? 'ECDHE-RSA-AES128-GCM-SHA256' : 'TLS_AES_128_GCM_SHA256' })
  server.on('tlsClientError', () => undefined)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const plain = connectPlain((server.address() as AddressInfo).port, '127.0.0.1')
  await once(plain, 'connect')
  const happenings: Happening[] = []
  const between = new Duplex({
    read: () => undefined,
    write: (bytes: Buffer, _encoding, done) => {
      happenings.push(['up', new Uint8Array(bytes)])
      plain.write(bytes, () => done())
    },
  })
  plain.on('data', (bytes: Buffer) => {
    happenings.push(['down', new Uint8Array(bytes)])
    between.push(bytes)
  })
  plain.on('error', () => undefined)
  plain.on('close', () => between.push(null))
  const secure = connect({ socket: between, rejectUnauthorized: false, ...options })
  await Promise.race([once(secure, 'secureConnect'), once(secure, 'error', { signal: AbortSignal.timeout(20_000) })]).catch(() => undefined)
  secure.destroy()
  plain.destroy()
  server.close()
  return happenings
}

let key: string
let cert: string
let old: Happening[]
let current: Happening[]
let refused: Happening[]
beforeAll(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-tls-'))
  const files = { key: join(folder, 'key.pem'), cert: join(folder, 'cert.pem') }
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', files.key, '-out', files.cert, '-days', '2', '-subj', '/CN=secure.test'], { stdio: 'ignore' })
  key = readFileSync(files.key, 'utf8')
  cert = readFileSync(files.cert, 'utf8')
  rmSync(folder, { recursive: true })
  old = await recordHandshake('TLSv1.2', { servername: 'secure.test', ALPNProtocols: ['h2', 'http/1.1'], maxVersion: 'TLSv1.2' }, ['http/1.1'])
  current = await recordHandshake('TLSv1.3', { servername: 'Secure.Test', ALPNProtocols: ['h2'] }, ['h2'])
  refused = await recordHandshake('TLSv1.3', { maxVersion: 'TLSv1.2' }, [])
})

describe('TLS', () => {
  it('of version 1.2: name, both lists of protocols, cipher', () => {
    expect(dissectFlow(old)).toMatchObject({
      protocol: 'tls', info: 'TLS 1.2 secure.test http/1.1', undecodable: false,
      findings: { name: 'secure.test', tls: { sni: 'secure.test', alpnOffered: ['h2', 'http/1.1'], alpn: 'http/1.1', version: 'TLS 1.2', versionOffered: false, cipher: 'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256' } },
    })
  })
  it('of version 1.3: what the server chose is encrypted but for version and cipher', () => {
    expect(dissectFlow(current)).toMatchObject({
      protocol: 'tls', info: 'TLS 1.3 secure.test h2',
      findings: { name: 'secure.test', tls: { alpnOffered: ['h2'], version: 'TLS 1.3', versionOffered: false, cipher: 'TLS_AES_128_GCM_SHA256' } },
    })
  })
  it('that is refused: the alert stands in the line', () => {
    expect(dissectFlow(refused).info).toBe('TLS 1.2 offered alert protocol_version')
  })
  it('whose server never answers', () => {
    const upOnly = current.filter(([direction]) => direction === 'up').slice(0, 1)
    expect(dissectFlow(upOnly)).toMatchObject({ info: 'TLS 1.3 offered secure.test h2', findings: { tls: { versionOffered: true } } })
  })
  it('says the same however the bytes are cut', () => {
    for (const flow of [old, current, refused]) {
      const whole = dissectFlow(flow)
      for (const size of [1, 2, 3, 5, 7, 61]) {
        const cut = flow.flatMap(([direction, what]): Happening[] => {
          const bytes = what as Uint8Array
          return Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => [direction, bytes.subarray(index * size, (index + 1) * size)])
        })
        expect(dissectFlow(cut)).toMatchObject({ info: whole.info, findings: whole.findings })
      }
    }
  })
  it('finds a hello that lies across several records', () => {
    const hello = current[0]![1] as Uint8Array
    const body = hello.subarray(5)
    const records = [...Array(Math.ceil(body.length / 40)).keys()].map((index) => {
      const part = body.subarray(index * 40, (index + 1) * 40)
      return Buffer.concat([hello.subarray(0, 3), Uint8Array.of(0, part.length), part])
    })
    expect(dissectFlow([['up', Buffer.concat(records)]]).info).toBe('TLS 1.3 offered secure.test h2')
  })
  it('gives up where the hello was not recorded whole, ends early, or claims more than it has', () => {
    const hello = current[0]![1] as Uint8Array
    const half = hello.subarray(0, 60)
    expect(dissectFlow([['up', half], ['up', 10], ['up', hello.subarray(70)]])).toMatchObject({ undecodable: true, error: 'part of the TLS hello was not recorded' })
    expect(dissectFlow([['up', half]])).toMatchObject({ undecodable: true, error: 'its TLS hello never ended' })
    const lying = hello.slice()
    lying[9 + 2 + 32] = 255 // the length of the session id
    expect(dissectFlow([['up', lying]])).toMatchObject({ undecodable: true })
    const endless = Buffer.from([0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff])
    expect(dissectFlow([['up', endless]])).toMatchObject({ undecodable: true, error: 'a TLS hello longer than 64 KiB' })
  })
  it('takes no name that would have to be escaped', () => {
    const hello = Buffer.from(current[0]![1] as Uint8Array)
    const at = hello.indexOf('Secure.Test', 0, 'latin1') === -1 ? hello.indexOf('secure.test', 0, 'latin1') : hello.indexOf('Secure.Test', 0, 'latin1')
    hello.write('se\u0000ure\u001btes', at, 'latin1')
    const found = dissectFlow([['up', new Uint8Array(hello)]])
    expect(found.findings?.name).toBeUndefined()
    expect(found.info).toBe('TLS 1.3 offered h2')
  })
})
