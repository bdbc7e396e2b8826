import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { labAddresses } from '#test/lab/makeLab.ts'
import type { Lab } from '#test/lab/makeLab.ts'
import { untilListening } from '../handOver/support.ts'
import type { ProxyLooks } from './verdicts.ts'

// Real proxies on the router: microsocks on port 1080, and HAProxy for the PROXY protocol on 8888 and in TPROXY mode on 8889.

/** By which HAProxy alone reaches servers, so that they know it: nobody else chooses an address that is deprecated, or the second of its network. */
const own = { ipv4: '203.0.113.240', ipv6: '2001:db8:2::f0' }

/** In a laboratory of which nothing is asked yet. */
export async function startProxies(lab: Lab, folder: string): Promise<void> {
  await lab.exec('router', ['sh', '-ec', `ip addr add ${own.ipv4}/24 dev sv0; ip addr add ${own.ipv6}/64 dev sv0 nodad preferred_lft 0`])
  const config = join(folder, 'haproxy.cfg')
  writeFileSync(config, `defaults
  mode tcp
  timeout connect 10s
  timeout client 120s
  timeout server 120s
frontend f
  bind 127.0.0.1:8888 accept-proxy
  bind 127.0.0.1:8889 transparent
  bind [::1]:8889 transparent
  use_backend ipv6 if { dst -m sub : }
  default_backend ipv4
backend ipv4
  server orig 0.0.0.0 source ${own.ipv4}
backend ipv6
  server orig 0.0.0.0 source ${own.ipv6}:0
`)
  lab.spawn('router', ['haproxy', '-db', '-f', config])
  lab.spawn('router', ['microsocks', '-i', '127.0.0.1', '-p', '1080'])
  for (const port of [1080, 8888, 8889]) await untilListening(lab, `127.0.0.1:${String(port)}`)
}

const byHaproxy: ProxyLooks[number] = ({ family }) => `seen as ${own[family]}`

export const proxyLooks: ProxyLooks = {
  // It has the address of the interface by which it reaches the server, as programs here have.
  1080: ({ who, family, server }) => (who.place === 'router' ? 'relayed' : `seen as ${server === labAddresses[family].routerToClient ? server : labAddresses[family].routerToServer}`),
  1081: () => 'ECONNRESET',
  8888: byHaproxy,
  8889: byHaproxy,
}
