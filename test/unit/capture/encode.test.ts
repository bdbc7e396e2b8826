import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'

import { parseAddress } from '#core/capture/addresses.ts'
import { decodePacket } from '#core/capture/decodePacket.ts'
import { encodeInterface, encodePacketBlock, encodeSectionHeader } from '#core/capture/encodeBlocks.ts'
import { encodeDatagram, encodePacket, fillChecksum } from '#core/capture/encodePacket.ts'
import { buildCapture } from '#test/support/captureFixture.ts'

const tshark = '/usr/bin/tshark'

test.skipIf(!existsSync(tshark))('tshark reads a fixture without complaint', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-encode-'))
  try {
    const capture = buildCapture()
    capture.exchange('GET / HTTP/1.1\r\nHost: example.test\r\n\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi')
    capture.exchange('GET /six HTTP/1.1\r\nHost: six.test\r\n\r\n', 'HTTP/1.1 204 No Content\r\n\r\n', {
      client: { address: '2001:db8:1::2', port: 4000 }, server: { address: '2001:db8:2::2', port: 80 },
    })
    const id = capture.opened()
    capture.process(id).connected(id).data(id, 'up', new Uint8Array(200_000).fill(65)).closed(id, 'server-reset', 'server')
    writeFileSync(join(folder, 'x.pcapng'), capture.bytes())
    const fields = ['-e', 'tcp.stream', '-e', 'http.host', '-e', 'tcp.analysis.flags', '-e', '_ws.malformed', '-e', 'ip.checksum.status']
    const text = execFileSync(tshark, ['-r', join(folder, 'x.pcapng'), '-o', 'ip.check_checksum:TRUE', '-T', 'fields', ...fields], {
      encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'],
    })
    // Custom blocks are frames too for tshark, without fields.
    const rows = text.trimEnd().split('\n').map((line) => line.split('\t')).filter((row) => row[0] !== '')
    expect(new Set(rows.map((row) => row[0]))).toEqual(new Set(['0', '1', '2']))
    expect(rows.flatMap((row) => (row[1] === '' ? [] : [row[1]]))).toEqual(['example.test', 'six.test'])
    expect(rows.filter((row) => row[2] !== '' || row[3] !== '')).toEqual([])
    expect(new Set(rows.map((row) => row[4]))).toEqual(new Set(['1', '']))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('a filled checksum makes the pseudo header and segment sum to zero', () => {
  for (const [from, to] of [['198.51.100.2', '203.0.113.9'], ['2001:db8::1', '2001:db8::2']] as const) {
    for (const length of [0, 1, 2, 77, 65_480]) {
      const payload = Uint8Array.from({ length }, (_, index) => (index * 7) & 255)
      const segment = { from: parseAddress(from)!, fromPort: 1, to: parseAddress(to)!, toPort: 2, sequence: 5, acknowledgement: 6, flags: 24, payload }
      const packet = encodePacket(segment, false)
      const header = from.includes(':') ? 40 : 20
      expect([packet[header + 16], packet[header + 17]]).toEqual([0, 0])
      expect(fillChecksum(packet)).toBe(true)
      let sum = 6 + packet.length - header
      for (const bytes of [segment.from, segment.to, packet.subarray(header)]) for (let at = 0; at < bytes.length; at += 2) sum += (bytes[at]! << 8) | (bytes[at + 1] ?? 0)
      while (sum > 0xffff) sum = Math.floor(sum / 65_536) + (sum % 65_536)
      expect(sum).toBe(0xffff)
    }
  }
  expect(fillChecksum(new Uint8Array(10))).toBe(false)
})

test.skipIf(!existsSync(tshark))('tshark finds the checksums of exported datagrams right, of IPv4 and IPv6', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-encode-'))
  try {
    const parts = [encodeSectionHeader('Sluice 0.1.0', 'Linux'), encodeInterface()]
    for (const [from, to] of [['198.51.100.2', '203.0.113.9'], ['2001:db8::1', '2001:db8::2']] as const) {
      for (const length of [0, 1, 2, 1200, 65_507]) {
        const payload = Uint8Array.from({ length }, (_, index) => (index * 7) & 255)
        parts.push(encodePacketBlock(encodeDatagram({ from: parseAddress(from)!, fromPort: 4000, to: parseAddress(to)!, toPort: 5000, payload }, true), 1n, 'up'))
      }
    }
    writeFileSync(join(folder, 'x.pcapng'), Buffer.concat(parts))
    const text = execFileSync(tshark, ['-r', join(folder, 'x.pcapng'), '-o', 'udp.check_checksum:TRUE', '-T', 'fields', '-e', 'udp.length', '-e', 'udp.checksum.status', '-e', '_ws.malformed'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    expect(text.trimEnd().split('\n').map((line) => line.split('\t').slice(0, 2).join(' '))).toEqual([8, 9, 10, 1208, 65_515, 8, 9, 10, 1208, 65_515].map((length) => `${length} 1`))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('a datagram is read back as it was written; cut or lying ones are none', () => {
  for (const [from, to] of [['198.51.100.2', '203.0.113.9'], ['2001:db8::1', '2001:db8::2']] as const) {
    const block = (packet: Uint8Array) => ({ type: 6, offset: 100, body: encodePacketBlock(packet, 5n, 'down').subarray(8, -4), bytes: encodePacketBlock(packet, 5n, 'down') })
    const packet = encodeDatagram({ from: parseAddress(from)!, fromPort: 53, to: parseAddress(to)!, toPort: 4000, payload: Uint8Array.of(1, 2, 3) }, false)
    expect(decodePacket(block(packet))).toMatchObject({ transport: 'udp', fromPort: 53, toPort: 4000, direction: 'down', flags: 0, payload: Uint8Array.of(1, 2, 3) })
    for (let length = 0; length < packet.length; length++) expect(decodePacket(block(packet.subarray(0, length)))).toBeNull()
    const lying = packet.slice()
    lying[(from.includes(':') ? 40 : 20) + 5]!++
    expect(decodePacket(block(lying))).toBeNull()
  }
})
