import type { PlanWish } from '#core/plan/makePlan.ts'
import { second } from './verdicts.ts'

/** One of each kind of choice, and choices that narrow one another. `CGROUP` stands for the laboratory's. */
export const plans: Readonly<Record<string, PlanWish>> = {
  'one port': { tcp: '8080' },
  'another port, local': { tcp: '8081', scope: ['local'] },
  'a range, forwarded': { tcp: '8080-8081', scope: ['forwarded'] },
  'a list with a range': { tcp: '1-79,8080,8999-9010' },
  'two servers left alone': { tcp: '8080-9000', exclude: Object.values(second.server) },
  'one server only': { tcp: '8080', servers: [second.server.ipv4, '2001:db8:2::8/125'] },
  'servers of one family only': { tcp: '8080-8081', servers: ['203.0.113.0/24'] },
  'one client only': { tcp: '8080', sources: Object.values(second.client) },
  'one client left alone': { tcp: '8080,9000', excludeSources: [second.client.ipv4, '2001:db8:1::3'] },
  'this client to that server': { tcp: '8080', sources: [second.client.ipv4], servers: [second.server.ipv4] },
  'one interface': { tcp: '8080', interfaces: ['cl0'], scope: ['forwarded'] },
  'the wrong interface': { tcp: '8080', interfaces: ['sv0'], scope: ['local', 'forwarded'] },
  'one user': { tcp: '8080', users: [4711] },
  'users and a server left alone': { tcp: '8080-9000', users: [0, 4711], exclude: ['203.0.113.9', '2001:db8:2::/127'], scope: ['local'] },
  'one group': { tcp: '8080', groups: [4720], scope: ['local'] },
  'a user who is not in the group': { tcp: '8080', users: [4711], groups: [4720] },
  'one cgroup': { tcp: '8080', cgroups: ['CGROUP'], scope: ['local'] },
  'a thousand ports, and hundreds of networks left alone': {
    tcp: `8080,${Array.from({ length: 1000 }, (_, index) => String(9000 + 2 * index)).join(',')}`,
    exclude: [...Array.from({ length: 230 }, (_, index) => `203.0.113.${String(index + 9)}`), ...Array.from({ length: 270 }, (_, index) => `2001:db8:2::${(index + 9).toString(16)}`)],
  },
  'services of this computer': { tcp: '8080', scope: ['incoming'] },
  'services and devices, but one client': { tcp: '8080-8081', scope: ['forwarded', 'incoming'], interfaces: ['cl0'], excludeSources: Object.values(second.client) },
  'a service at one address only': { tcp: '8080', scope: ['local', 'incoming'], servers: ['198.51.100.1'] },
  'a cgroup and a user': { tcp: '8080,8081', cgroups: ['CGROUP'], users: [0] },
}

/** The same of UDP, and of both. */
export const udpPlans: Readonly<Record<string, PlanWish>> = {
  'a port of UDP': { tcp: '', udp: '8080' },
  'both transports, each its own': { tcp: '8080', udp: '8081,9000' },
  'UDP of devices, but one client': { tcp: '', udp: '8080-8081', scope: ['forwarded'], excludeSources: Object.values(second.client) },
  'UDP of services': { tcp: '8081', udp: '8080,9000', scope: ['incoming'] },
  'UDP of everybody': { tcp: '8080', udp: '8080-9000', scope: ['local', 'forwarded', 'incoming'] },
  'UDP of one user to one server': { tcp: '9000', udp: '8080', users: [4711], servers: Object.values(second.server), scope: ['local'] },
}

/** What of UDP can be chosen anew while a gate is open. */
export const udpChoicePlans: Readonly<Record<string, PlanWish>> = {
  'a port of UDP refused': { tcp: '8080', udp: '8080', refuse: '8081' },
  'refused to devices and at services, others carried on': { tcp: '9000', udp: '9000', refuse: '8081', scope: ['forwarded', 'incoming'] },
  'silence soon over': { tcp: '8080', udp: '8080-9000', udpIdle: { other: 5 } },
}

/** What is chosen once, when a gate is opened. */
export const stances: Readonly<Record<string, Pick<PlanWish, 'keepPort'>>> = {
  'ports of our own': {},
  'devices keep their ports': { keepPort: true },
}

/** How new flows go, chosen anew with each plan. The proxies' ports are those of proxies.ts; on the last one nobody listens. */
export const ways: Readonly<Record<string, Pick<PlanWish, 'hold' | 'send'>>> = {
  'waiting': {},
  'not waiting': { hold: false },
  'waiting, by SOCKS': { send: ['9000=socks5:127.0.0.1:1080'] },
  'not waiting, by PROXY protocol': { hold: false, send: ['9000=proxy2:127.0.0.1:8888'] },
  'waiting, by TPROXY': { send: ['9000=tproxy:8889'] },
  'waiting, to nobody': { send: ['9000=socks5:127.0.0.1:1081'] },
}
