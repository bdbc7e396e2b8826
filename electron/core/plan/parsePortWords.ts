import { Failure } from '../contract/failure.ts'
import { parsePorts } from './parsePorts.ts'
import type { PortRange } from './portRange.ts'
import { transports, type Transport } from './transport.ts'

export type PortWords = { readonly [Key in Transport]: readonly PortRange[] }

/**
 * Ports of both transports in one list, with commas or white space between: `443, 8443/udp 5000-5100/tcp`. Without an ending they are of `usual`.
 * @throws Failure `bad-ports`, one line naming the word that is wrong.
 */
export function parsePortWords(text: string, usual: Transport = 'tcp'): PortWords {
  if (text.length > 65_536) throw new Failure('bad-ports', 'The list of ports is too long')
  // Spaces around a dash or a slash belong to one word for a person.
  const words = text.trim().replace(/\s*([-/])\s*/g, '$1').split(/\s*,\s*|\s+/)
  if (words.length === 1 && words[0] === '') throw new Failure('bad-ports', 'No ports given: write for example 80, 443, 53/udp')
  const found: { [Key in Transport]: string[] } = { tcp: [], udp: [] }
  for (const word of words) {
    if (word === '') throw new Failure('bad-ports', 'The list of ports has nothing between two commas')
    const [, ports = '', ending = usual] = /^([^/]+)(?:\/([^/]*))?$/.exec(word) ?? []
    const transport = transports.find((one) => one === ending.toLowerCase())
    if (ports === '' || transport === undefined) throw new Failure('bad-ports', `${JSON.stringify(word.slice(0, 40))} is no port: write 443, 8000-8100 or 53/udp`)
    found[transport].push(ports)
  }
  return { tcp: found.tcp.length === 0 ? [] : parsePorts(found.tcp.join(',')), udp: found.udp.length === 0 ? [] : parsePorts(found.udp.join(',')) }
}
