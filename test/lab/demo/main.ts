import { existsSync, mkdtempSync, openSync, closeSync, rmSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'

import { labAddresses, makeLab } from '../makeLab.ts'
import { makeHost } from './host.ts'
import { runHeadless } from './headless.ts'
import { startServices } from './services.ts'
import { makeJourneys } from './traffic.ts'
import { runWindowed } from './windowed.ts'
import { findPlaces } from '#probe/places.ts'

/** npm start -- --demo: see resources/setup/start.mjs. Needs root, for the namespaces alone. */
async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { headless: { type: 'boolean', default: false }, big: { type: 'boolean', default: false }, out: { type: 'string' }, electron: { type: 'string' } },
    allowPositionals: false,
  })
  const say = (text: string): void => void process.stdout.write(`${text}\n`)
  const folder = mkdtempSync(join(tmpdir(), 'sluice-demo-'))
  say('making the laboratory: client, router, server')
  const lab = await makeLab()
  // An interrupted demo leaves as clean a machine as a finished one.
  const leave = (): void => {
    void lab.remove().finally(() => {
      rmSync(folder, { recursive: true, force: true })
      process.exit(130)
    })
  }
  process.once('SIGINT', leave)
  process.once('SIGTERM', leave)
  try {
    const [client, router, server] = [makeHost(lab, 'client'), makeHost(lab, 'router'), makeHost(lab, 'server')]
    const addresses = { ipv4: labAddresses.ipv4.server, ipv6: labAddresses.ipv6.server }
    const services = await startServices({ server, folder: join(folder, 'server'), addresses })
    const big = join(folder, 'server', 'www', 'big.bin')
    closeSync(openSync(big, 'w'))
    truncateSync(big, 1 << 30)
    const journeys = makeJourneys({ client, router, server: addresses, folder, certificate: join(folder, 'server', 'cert.pem') })
    if (!values.headless && values.electron !== undefined) {
      return await runWindowed({ lab, journeys, electron: values.electron, say })
    }
    const out = resolve(values.out ?? 'sluice-demo')
    const command = [process.execPath, findPlaces().cli]
    if (!existsSync(command[1] ?? '')) throw new Error('the command is not built: npm run build')
    const wrong = await runHeadless({ router, client, services, journeys, server: addresses, out, command, big: values.big, say })
    return wrong === 0 ? 0 : 1
  } finally {
    process.off('SIGINT', leave)
    process.off('SIGTERM', leave)
    await lab.remove()
    rmSync(folder, { recursive: true, force: true })
  }
}

void main().then(
  (code) => (process.exitCode = code),
  (error: unknown) => {
    process.stderr.write(`sluice: the demo failed: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  },
)
