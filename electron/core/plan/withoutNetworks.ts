import { holdsCidr, mergeCidrs, parseCidr } from './parseCidr.ts'
import type { Cidr } from './parseCidr.ts'

/**
 * The addresses of `networks` that are not in `cut`, canonical: a network of which a part goes becomes the networks round that part (at most one for each bit between the two lengths).
 * @throws Failure `bad-cidr`
 */
export function withoutNetworks(networks: readonly string[], cut: readonly string[]): string[] {
  let left = networks.map(parseCidr)
  for (const hole of mergeCidrs(cut.map(parseCidr))) left = left.flatMap((network) => cutOne(network, hole))
  return mergeCidrs(left).map(({ text }) => text)
}

function cutOne(network: Cidr, hole: Cidr): Cidr[] {
  if (holdsCidr(hole, network)) return []
  if (!holdsCidr(network, hole)) return [network]
  const left: Cidr[] = []
  for (let length = network.length + 1; length <= hole.length; length++) left.push(sibling(hole, length))
  return left
}

/** The other half of the network of `length - 1` in which `cidr` lies. */
function sibling(cidr: Cidr, length: number): Cidr {
  const bytes = [...cidr.bytes]
  const at = (length - 1) >> 3
  bytes[at] = (bytes[at] ?? 0) ^ (0x80 >> ((length - 1) & 7))
  const address = cidr.family === 'ipv4' ? bytes.join('.') : Array.from({ length: 8 }, (_, word) => (((bytes[2 * word] ?? 0) << 8) | (bytes[2 * word + 1] ?? 0)).toString(16)).join(':')
  return parseCidr(`${address}/${String(length)}`)
}
