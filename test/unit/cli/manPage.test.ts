import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'

import { commands } from '#cli/runCommand.ts'

const path = join(import.meta.dirname, '../../../resources/man/sluice.1')
const source = readFileSync(path, 'utf8')

/** The text of a section or subsection, with its fonts and escapes taken away. */
function section(kind: 'SH' | 'SS', name: string): string {
  const from = source.indexOf(`\n.${kind} ${name}\n`)
  if (from === -1) throw new Error(`the manual page has no ${name}`)
  const rest = source.slice(from + 1)
  const end = rest.slice(1).search(kind === 'SS' ? /\n\.S[HS] / : /\n\.SH /)
  return plain(end === -1 ? rest : rest.slice(0, end + 1))
}
const plain = (text: string): string => text.replaceAll('\\-', '-').replaceAll(/\\f./g, '')
const optionsIn = (text: string): string[] => [...new Set(text.match(/(?<![\w-])--?[a-z](?:[a-z-]*[a-z])?(?![\w-])/g))]

describe('the manual page', () => {
  test.each(commands.map((command) => [command.name, command] as const))('has what `sluice help %s` says', (name, command) => {
    const told = section('SS', name) + (name === 'plan' || name === 'capture' ? section('SH', 'CHOICES') : '')
    const wanted = optionsIn(command.usage)
    expect(wanted.filter((option) => !optionsIn(told).includes(option))).toEqual([])
    // And nothing that is not there: every option of the section is in the help, or a longer spelling of one that is.
    const here = optionsIn(section('SS', name)).filter((option) => !['--output'].includes(option))
    expect(here.filter((option) => !wanted.includes(option))).toEqual([])
  })

  test('names every command in its synopsis, and no other', () => {
    const synopsis = section('SH', 'SYNOPSIS')
    expect([...synopsis.matchAll(/^\.B sluice ([a-z]+)/gm)].map((found) => found[1])).toEqual([...commands.map(({ name }) => name), 'help'])
  })

  test.skipIf(!existsSync('/usr/bin/groff'))('is read by groff without a warning', () => {
    const { stdout, stderr, status } = spawnSync('groff', ['-man', '-ww', '-Tascii', '-rLL=100n', path], { encoding: 'utf8' })
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
    expect(stdout).toContain('show what any port on this machine is saying')
  })
})
