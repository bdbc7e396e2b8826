import { existsSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { labAddresses, makeLab, type Lab } from '#test/lab/makeLab.ts'

let lab: Lab
beforeAll(async () => {
  lab = await makeLab()
})
afterAll(() => lab.remove())

describe.each(['ipv4', 'ipv6'] as const)('laboratory, %s', (family) => {
  const { client, server, routerToServer } = labAddresses[family]

  test('the server sees the client itself, over the router', async () => {
    const serving = lab.peer('server', 'serve', 'far', '8080', '--host', server)
    await serving.event((event) => event['event'] === 'listening')
    const answer = await lab.peer('client', 'ask', server, '8080', '--send', 'good day').event(() => true)
    expect(answer).toMatchObject({ ok: true, server: 'far', seenAddress: client, echo: 'good day' })
    expect(answer['seenPort']).toBe(answer['localPort'])
    const local = await lab.peer('router', 'ask', server, '8080').event(() => true)
    expect(local).toMatchObject({ ok: true, server: 'far', seenAddress: routerToServer })
    await serving.stop()
  })

  test('a datagram comes back', async () => {
    const serving = lab.peer('server', 'serve', 'far', '5300', '--host', server, '--udp')
    await serving.event((event) => event['event'] === 'listening')
    expect(await lab.peer('client', 'ask', server, '5300', '--udp').event(() => true)).toMatchObject({ ok: true, server: 'far', seenAddress: client, echo: 'hello' })
    await serving.stop()
  })

  test('resets, half-closes and refusals arrive as what they are', async () => {
    const serving = lab.peer('server', 'serve', 'far', '8081', '--host', server)
    await serving.event((event) => event['event'] === 'listening')
    const resetting = lab.peer('client', 'talk', server, '8081')
    await resetting.event((event) => event['event'] === 'line')
    resetting.write('send RESET')
    await resetting.event((event) => event['event'] === 'error' && event['error'] === 'ECONNRESET')
    const half = lab.peer('client', 'talk', server, '8081')
    await half.event((event) => event['event'] === 'line')
    half.write('send END')
    await half.event((event) => event['event'] === 'end')
    half.write('send still heard')
    half.write('end')
    await half.event((event) => event['event'] === 'close')
    await serving.event((event) => event['event'] === 'ended' && event['bytes'] === 'END\nstill heard\n'.length)
    await serving.stop()
    expect(await lab.peer('client', 'ask', server, '8081').event(() => true)).toEqual({ ok: false, error: 'ECONNREFUSED' })
  })
})

test('nothing of a laboratory is left, also of what ran in it', async () => {
  const other = await makeLab()
  const running = other.spawn('router', ['sh', '-c', 'setsid sleep 1000 & echo $!; wait'])
  const pid = Number(await running.line(() => true))
  await other.remove()
  await other.remove()
  expect(Object.values(other.paths).filter((path) => existsSync(path))).toEqual([])
  await expect.poll(() => runs(pid)).toBe(false)
})

/** A process nobody waits for stays as a zombie where process 1 reaps none; it runs no more. */
function runs(pid: number): boolean {
  try {
    return !/^[0-9]+ \(.*\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}
