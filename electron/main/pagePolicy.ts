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

/**
 * The file's name in the page's folder, undefined when the URL names none. Only plain segments pass (no leading dot, no escape,
 * no backslash), so no path can lead out of the folder.
 */
export function fileOf(url: string): string | undefined {
  const match = /^sluice:\/\/app\/((?:[A-Za-z0-9_-][A-Za-z0-9._-]*\/)*[A-Za-z0-9_-][A-Za-z0-9._-]*)?(?:[?#].*)?$/.exec(url)
  if (match === null) return undefined
  return match[1] ?? 'index.html'
}
