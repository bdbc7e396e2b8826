import type { DoctorRow } from '#core/contract/bridge.ts'
import { startHelper } from '#elevate/startHelper.ts'
import { runDoctor } from '#probe/doctor.ts'
import type { Command } from './command.ts'
import { counted } from './format.ts'
import { parseOptions, takePositionals } from './parseOptions.ts'
import { printable } from './printable.ts'

const signs = { ok: 'ok  ', warn: 'warn', fail: 'FAIL' } as const

export const doctorCommand: Command = {
  name: 'doctor',
  summary: 'says what this machine can do, what stands in the way, and how to mend it',
  usage: `sluice doctor [--netns NAME|PID] [--json]

Looks and tries; changes nothing. Status 1 when something would keep the gate from opening.

  --netns N        of another network namespace: a name ip netns lists, or a process in it (asks for permission: only root can look there)
  --json           a list of objects: id, title, verdict (ok, warn, fail), fact, mend`,
  async run(args, output) {
    const { values, positionals } = parseOptions(args, { netns: { type: 'string' }, json: { type: 'boolean' } })
    takePositionals(positionals)
    const rows = values.netns === undefined ? await runDoctor() : await rowsInside(values.netns)
    const failed = rows.filter((row) => row.verdict === 'fail').length
    if (values.json === true) {
      await output.json(rows)
      return failed === 0 ? 0 : 1
    }
    const width = Math.max(...rows.map((row) => row.title.length))
    for (const row of rows) {
      await output.line(`${signs[row.verdict]}  ${row.title.padEnd(width)}  ${printable(row.fact)}`)
      if (row.mend !== undefined) await output.line(`${' '.repeat(width + 8)}-> ${printable(row.mend)}`)
    }
    const warned = rows.filter((row) => row.verdict === 'warn').length
    if (failed > 0) output.note(`sluice: ${counted(failed, 'thing')} would keep the gate from opening`)
    else await output.line(warned === 0 ? 'Everything is ready.' : `Ready; ${counted(warned, 'thing')} to know about.`)
    return failed === 0 ? 0 : 1
  },
}

async function rowsInside(netns: string): Promise<readonly DoctorRow[]> {
  const helper = await startHelper({ netns })
  try {
    return [...(await helper.request('doctor', {})), ...(await runDoctor({ part: 'here' }))]
  } finally {
    await helper.end()
  }
}
