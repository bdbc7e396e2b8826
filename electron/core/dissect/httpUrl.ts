import type { RequestLine } from './httpHead.ts'
import type { Endpoint } from '../flow/flow.ts'
import { hostOfAuthority } from '../flow/hostName.ts'

/** What may stand in a URL as it is; everything else is percent-encoded as UTF-8. */
function encodeUnusual(text: string): string {
  return text.replace(/[^!-~]+|["<>\\^`{|}]+/gu, (piece) => {
    try {
      return encodeURIComponent(piece)
    } catch {
      return '%EF%BF%BD'
    }
  })
}

/** Absolute URL of a request in the clear: absolute target as it is, else Host, else the server's own address. */
export function httpUrl(line: RequestLine, host: string | undefined, server: Endpoint): string {
  if (/^[a-z][a-z0-9+.-]{0,20}:\/\//i.test(line.target)) return encodeUnusual(line.target)
  // A zone as RFC 6874 writes it, which is what curl reads.
  const literal = server.address.includes(':') ? `[${server.address.replace('%', '%25')}]` : server.address
  const own = server.port === 80 ? literal : `${literal}:${String(server.port)}`
  if (line.method === 'CONNECT') return `http://${hostOfAuthority(line.target) === undefined ? own : line.target}`
  const authority = host !== undefined && hostOfAuthority(host) !== undefined ? host.trim().toLowerCase() : own
  const path = line.target === '*' ? '/' : line.target.startsWith('/') ? line.target : `/${line.target}`
  return `http://${authority}${encodeUnusual(path)}`
}
