import { startHelper } from '#elevate/startHelper.ts'
import type { Command } from './command.ts'
import { parseOptions, takePositionals } from './parseOptions.ts'
import { printable } from './printable.ts'

export const cleanupCommand: Command = {
  name: 'cleanup',
  summary: 'takes back whatever a crash left',
  usage: `sluice cleanup [--json]

Takes back rules, routes and files that a killed Sluice left in this network namespace; never what a living one holds.

  --json           one object: removed, a list of lines`,
  async run(args, output) {
    const { values, positionals } = parseOptions(args, { json: { type: 'boolean' } })
    takePositionals(positionals)
    const helper = await startHelper()
    try {
      const { removed } = await helper.request('cleanup', {})
      if (values.json === true) await output.json({ removed })
      else if (removed.length === 0) await output.line('Nothing was left.')
      else for (const line of removed) await output.line(`removed ${printable(line)}`)
      return 0
    } finally {
      await helper.end()
    }
  },
}
