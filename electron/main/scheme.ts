import { readFile } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { protocol, type Session } from 'electron'

import { contentSecurityPolicy, fileOf } from './pagePolicy.ts'

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.woff2': 'font/woff2',
  '.json': 'application/json; charset=utf-8',
}

/** Before `ready`: Electron's own rule. */
export function registerScheme(): void {
  protocol.registerSchemesAsPrivileged([{ scheme: 'sluice', privileges: { standard: true, secure: true, supportFetchAPI: true } }])
}

/** Serves the built page's folder, and nothing outside it, under sluice://app. */
export function serveScheme(session: Session, folder: string): void {
  session.protocol.handle('sluice', async (request) => {
    const name = request.method === 'GET' ? fileOf(request.url) : undefined
    const type = name === undefined ? undefined : types[extname(name)]
    if (name === undefined || type === undefined) return answer(404, 'text/plain; charset=utf-8', 'not found')
    try {
      return answer(200, type, await readFile(join(folder, name)))
    } catch {
      return answer(404, 'text/plain; charset=utf-8', 'not found')
    }
  })
}

function answer(status: number, type: string, body: string | Buffer): Response {
  return new Response(typeof body === 'string' ? body : new Uint8Array(body), {
    status,
    headers: {
      'content-type': type,
      'content-security-policy': contentSecurityPolicy,
      'x-content-type-options': 'nosniff',
      'cross-origin-opener-policy': 'same-origin',
      'cross-origin-resource-policy': 'same-origin',
      'referrer-policy': 'no-referrer',
      'cache-control': 'no-store',
    },
  })
}
