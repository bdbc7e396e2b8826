import type { HttpRequest } from '../flow/flow.ts'

/** What was sent as a request's body: its text, or that it is no text (or too long) and has to come from a file. */
export type CurlBody = { readonly text: string } | { readonly file: string }

/** curl says these itself, rightly, from URL and body. */
const own = new Set(['host', 'content-length', 'transfer-encoding', 'connection', 'proxy-connection', 'keep-alive', 'expect'])

/**
 * The request as a curl command line for a POSIX-like shell with `$'…'` (bash, zsh, ksh). Strangers' bytes stand in it: everything is quoted, control
 * characters are escaped, so that pasting it runs curl and nothing else.
 */
export function curlCommand(request: HttpRequest, body?: CurlBody): string {
  const words: string[] = []
  const implied = body === undefined ? 'GET' : 'POST'
  if (request.method === 'HEAD') words.push('--head')
  else if (request.method !== implied) words.push(`-X ${quoteWord(request.method)}`)
  if (/[[\]{}]/.test(request.url.replace(/^https?:\/\/\[[0-9a-f:.]+\]/i, ''))) words.push('--globoff')
  words.push(quoteWord(request.url))
  for (const { name, value } of request.headers) {
    if (own.has(name.toLowerCase())) continue
    // An empty value would take curl's own header away; a semicolon sends it empty.
    words.push(`-H ${quoteWord(value === '' ? `${name};` : `${name}: ${value}`)}`)
  }
  if (request.headers.some(({ name, value }) => name.toLowerCase() === 'accept-encoding' && value !== '')) words.push('--compressed')
  if (body !== undefined) words.push('text' in body ? `--data-raw ${quoteWord(body.text)}` : `--data-binary ${quoteWord(`@${body.file}`)}`)
  return ['curl', ...words].join(' ')
}

/** One word for the shell, whatever it holds. */
export function quoteWord(text: string): string {
  if (/^[\w@%+=:,./-]+$/.test(text)) return text
  if (!/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(text)) return `'${text.replaceAll("'", `'\\''`)}'`
  // An escape takes as many digits as it can get, so each has its full width.
  const escaped = text.replace(/[\\'\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (letter) => {
    const code = letter.codePointAt(0) ?? 0
    if (letter === '\\' || letter === "'") return `\\${letter}`
    if (letter === '\n') return '\\n'
    if (letter === '\t') return '\\t'
    if (letter === '\r') return '\\r'
    return code < 0x80 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`
  })
  return `$'${escaped}'`
}
