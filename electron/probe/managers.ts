import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** Programs known to change rules and routes, by the name the kernel has for them (at most 15 characters). */
const managers: Readonly<Record<string, string>> = {
  firewalld: 'firewalld',
  dockerd: 'Docker',
  'systemd-network': 'systemd-networkd',
  NetworkManager: 'NetworkManager',
  tailscaled: 'Tailscale',
  'wg-quick': 'wg-quick',
  charon: 'strongSwan',
  ufw: 'ufw',
  connmand: 'ConnMan',
  mihomo: 'mihomo',
  'sing-box': 'sing-box',
  xray: 'Xray',
  'portmaster-core': 'Portmaster',
  opensnitchd: 'OpenSnitch',
}

/** Which of them run in our network namespace now. Firewalls are Python scripts on some systems, so the command line is looked at, too. */
export function listManagers(): string[] {
  const found = new Set<string>()
  const ours = readLink('/proc/self/ns/net')
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    if (readLink(`/proc/${pid}/ns/net`) !== ours) continue
    const words = [readText(`/proc/${pid}/comm`).trim(), ...readText(`/proc/${pid}/cmdline`).split('\0').slice(0, 2).map((word) => word.split('/').at(-1) ?? '')]
    for (const word of words) {
      const manager = Object.hasOwn(managers, word) ? managers[word] : undefined
      if (manager !== undefined) found.add(manager)
    }
  }
  return [...found].sort()
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}
function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}
