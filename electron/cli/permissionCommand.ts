import { Failure } from '#core/contract/failure.ts'
import { installPermission, permissionState, removePermission } from '#elevate/permission.ts'
import type { Command } from './command.ts'
import { parseOptions, takePositionals } from './parseOptions.ts'

export const permissionCommand: Command = {
  name: 'permission',
  summary: 'installs or removes the polkit action that spares asking each time',
  usage: `sluice permission install|remove|show

install: root-owned copies of helper and relay in /usr/lib/sluice and a polkit action of their own, so that the question names Sluice and is
kept for a while once answered. remove takes both away. show says which it is.`,
  async run(args, output) {
    const { positionals } = parseOptions(args, {})
    const [job = ''] = takePositionals(positionals, 'install, remove or show')
    switch (job) {
      case 'install':
        await installPermission()
        await output.line('Installed: polkit now asks for Sluice by name, and keeps the answer for a while.')
        return 0
      case 'remove':
        await removePermission()
        await output.line('Removed.')
        return 0
      case 'show':
        await output.line(permissionState())
        return 0
      default:
        throw new Failure('usage', `permission takes install, remove or show, not "${job}"`)
    }
  },
}
