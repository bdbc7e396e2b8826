import { readFile } from 'node:fs/promises'

/** "80/tcp" -> "http", of services(5); the first name of a port wins. */
export function parseServices(text: string): Map<string, string> {
  const names = new Map<string, string>()
  for (const line of text.split('\n')) {
    const match = /^([^\s#]+)\s+(\d+)\/(tcp|udp)\b/.exec(line)
    if (match === null) continue
    const key = `${match[2] as string}/${match[3] as string}`
    if (!names.has(key)) names.set(key, match[1] as string)
  }
  return names
}

let known: Promise<Map<string, string>> | undefined

/** Well-known name of a port by /etc/services, read once. */
export async function serviceName(port: number, transport: 'tcp' | 'udp'): Promise<string | undefined> {
  known ??= readFile('/etc/services', 'utf8').then(parseServices, () => new Map<string, string>())
  return (await known).get(`${port}/${transport}`)
}
