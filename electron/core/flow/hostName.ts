/**
 * A server's name as it may be shown and filtered by: letters, digits, dots, hyphens and underscores (RFC 1123 and what is seen in the wild),
 * or an address literal; lower case, at most 253 characters, no dot at the end. Undefined for anything else: a name that needs escaping is none.
 */
export function cleanHostName(text: string): string | undefined {
  if (text.length > 256) return undefined
  const name = text.toLowerCase().replace(/\.$/, '')
  if (name.length === 0 || name.length > 253) return undefined
  if (/^[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?$/.test(name) && !name.includes('..')) return name
  return /^\[?[0-9a-f:.]*:[0-9a-f:.]*\]?$/.test(name) ? name.replace(/^\[|\]$/g, '') : undefined
}

/** The host of an HTTP Host header or authority ("example.test:8080", "[2001:db8::1]:80"), cleaned. */
export function hostOfAuthority(text: string): string | undefined {
  const match = /^(\[[^\]]{1,64}\]|[^:[\]]{1,255})(:[0-9]{0,5})?$/.exec(text.trim().slice(0, 300))
  return match === null ? undefined : cleanHostName(match[1]!)
}
