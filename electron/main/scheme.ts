import { readFile } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { protocol, type Session } from 'electron'

/** The page's own origin. Not file: (which may read other files) and not http: (which would need a port). */
export const pageOrigin = 'sluice://app'
export const pageUrl = `${pageOrigin}/index.html`

/**
 * Nothing but what the app ships: no inline script or style, no connection to anywhere, and strings become HTML nowhere (Trusted Types), as
 * everything the page shows may have been written by an attacker.
 */
export const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  // Svelte makes its own templates through this one policy.
  'trusted-types svelte-trusted-html',
].join('; ')

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

/**
 * The file's name in the page's folder, undefined when the URL names none. Only plain segments pass (no leading dot, no escape,
 * no backslash), so no path can lead out of the folder.
 */
export function fileOf(url: string): string | undefined {
  const match = /^sluice:\/\/app\/((?:[A-Za-z0-9_-][A-Za-z0-9._-]*\/)*[A-Za-z0-9_-][A-Za-z0-9._-]*)?(?:[?#].*)?$/.exec(url)
  if (match === null) return undefined
  return match[1] ?? 'index.html'
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
