import { Failure } from '../contract/failure.ts'
import { mergePorts } from './mergePorts.ts'
import { parsePorts } from './parsePorts.ts'
import type { PortRange } from './portRange.ts'
import type { Transport } from './transport.ts'

/**
 * Ports of both transports in one list: `443,8443/udp,5000-5100/tcp`. Without an ending they are of `usual`.
 * @throws Failure `bad-ports`, one line naming the word that is wrong.
 */
export function parsePortWords(text: string, usual: Transport = 'tcp'): { readonly [Key in Transport]: readonly PortRange[] } {
  if (text.length > 65_536) throw new Failure('bad-ports', 'The list of ports is too long')
  const found: { [Key in Transport]: PortRange[] } = { tcp: [], udp: [] }
  for (const word of text.split(',')) {
    const [, ports = '', transport = usual] = /^([^/]*)(?:\/(tcp|udp))?$/i.exec(word.trim()) ?? []
    if (ports === '' && word.trim() !== '') throw new Failure('bad-ports', `${JSON.stringify(word.trim().slice(0, 40))} is no port: write 443, 8000-8100, or 53/udp`)
    found[transport.toLowerCase() as Transport].push(...parsePorts(ports))
  }
  return { tcp: mergePorts(found.tcp), udp: mergePorts(found.udp) }
}
