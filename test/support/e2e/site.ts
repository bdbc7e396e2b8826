import { fileURLToPath } from 'node:url'

import type { Lab, Place } from '../../lab/makeLab.ts'

const program = fileURLToPath(new URL('./origin.mjs', import.meta.url))

/** The tests' web server in the laboratory, its control port one beyond. Resolves when it listens. */
export async function startOrigin(lab: Lab, place: Place = 'server', [port, control] = [80, 8081]): Promise<void> {
  const server = lab.spawn(place, [process.execPath, program, String(port), String(control)])
  await server.line((line) => line === 'ready')
}

/** Everything of the router that a gate could leave behind, as text. */
export async function rulesIn(lab: Lab): Promise<string> {
  const parts = await Promise.all(
    [
      ['nft', 'list', 'ruleset'],
      ['ip', 'rule'],
      ['ip', '-6', 'rule'],
      ['ip', 'route', 'show', 'table', 'all'],
      ['ip', '-6', 'route', 'show', 'table', 'all'],
    ].map((argv) => lab.exec('router', argv)),
  )
  return parts.map((part) => part.stdout).join('\n')
}
