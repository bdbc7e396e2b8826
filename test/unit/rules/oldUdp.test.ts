import { expect, test } from 'vitest'

import { oldUdpIn } from '#probe/udpBefore.ts'

const head = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n'
const line = (local: string, remote: string, state: string): string => `  1: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000     0        0 12345 2 0000000000000000 0\n`
const plan = { udp: [{ from: 53, to: 53 }, { from: 4000, to: 4010 }] }

test('sockets with a peer count when the peer is on a chosen port, those without by their port', () => {
  const v4 = head
    + line('010200C0:9C40', '076433C6:0035', '01') // 192.0.2.1:40000 to 198.51.100.7:53
    + line('010200C0:9C40', '076433C6:0035', '01') // the same four, shared
    + line('010200C0:9C41', '076433C6:0036', '01') // to a port nobody chose
    + line('00000000:14E9', '00000000:0000', '07') // *:5353
    + line('0100007F:0000', '00000000:0000', '07') // not bound yet
  const v6 = head
    + line('B80D0120000000000000000001000000:9C42', 'B80D0120000000000000000007000000:0FA5', '01') // [2001:db8::1]:40002 to [2001:db8::7]:4005
    + line('0000000000000000FFFF0000010200C0:9C43', '0000000000000000FFFF0000076433C6:0035', '01') // IPv4 in a socket of IPv6
    + line('00000000000000000000000000000000:0035', '00000000000000000000000000000000:0000', '07') // *:53
  expect(oldUdpIn([v4, v6], plan)).toEqual({
    connected: [
      { family: 'ipv4', local: { address: '192.0.2.1', port: 40_000 }, remote: { address: '198.51.100.7', port: 53 } },
      { family: 'ipv6', local: { address: '2001:db8::1', port: 40_002 }, remote: { address: '2001:db8::7', port: 4005 } },
      { family: 'ipv4', local: { address: '192.0.2.1', port: 40_003 }, remote: { address: '198.51.100.7', port: 53 } },
    ],
    ports: [53, 5353],
  })
})

test('nothing there, or nothing that can be read, is nothing', () => {
  expect(oldUdpIn([], plan)).toEqual({ connected: [], ports: [] })
  expect(oldUdpIn(['', 'junk\nmore junk\n', `${head}x`], plan)).toEqual({ connected: [], ports: [] })
})
