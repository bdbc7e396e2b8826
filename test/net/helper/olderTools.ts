import { chmodSync, copyFileSync, realpathSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import type { Backend } from '#core/plan/plan.ts'

/**
 * Words that start a program on a machine whose nft or iptables refuses texts that match `refuses` (an extended regular expression), as an old kernel or one without the
 * module does: in a mount namespace of its own, a script stands in the tool's place and otherwise runs the real one.
 * @param folder where the real tool's copy and the script are put
 * @param first shell words for what somebody does just before such a text comes to the real tool, which then judges it, as often as it comes; they know the real tool as `$real` and by which `$name` it was called
 * @param listing likewise, just before one of nft's tables is listed
 */
export function olderTool(folder: string, tool: Backend, refuses: string, first?: { readonly at: string; readonly words: string }, listing?: string): string[] {
  const path = realpathSync(`/usr/sbin/${{ nft: 'nft', iptables: 'iptables-nft-restore', 'iptables-legacy': 'iptables-legacy-restore' }[tool]}`)
  const [real, script] = [join(folder, `real-${tool}`), join(folder, `older-${tool}`)]
  copyFileSync(path, real)
  chmodSync(real, 0o755)
  // The name it is called by decides what iptables is, hence exec -a.
  writeFileSync(
    script,
    `#!/bin/bash
name=\${0##*/} real=${quote(real)}
case " $name $* " in
  *" --version "*) exec -a "$name" "$real" "$@" ;;
  *" -f - "*|*" --noflush "*|*"-restore"*)
    text=$(cat; echo .); text=\${text%.}
${first === undefined ? '' : `    if grep -qE -- ${quote(first.at)} <<<"$text"; then ${first.words}; fi
`}    if grep -qE -- ${quote(refuses)} <<<"$text"; then echo "Error: Operation not supported" >&2; exit 1; fi
    printf %s "$text" | exec -a "$name" "$real" "$@" ;;
${listing === undefined ? '' : `  *" list table "*) ${listing}; exec -a "$name" "$real" "$@" ;;
`}  *) exec -a "$name" "$real" "$@" ;;
esac
`,
  )
  chmodSync(script, 0o755)
  return inPlaceOf(path, script)
}

/** Words that start a program where `ip` fails to add rules by a batch, as often as the number in the file `failures` says; without it, never. */
export function failingBatches(folder: string): { readonly within: string[]; readonly failures: string } {
  const path = realpathSync('/usr/sbin/ip')
  const [real, script, failures] = [join(folder, 'real-ip'), join(folder, 'failing-ip'), join(folder, 'failures')]
  copyFileSync(path, real)
  chmodSync(real, 0o755)
  writeFileSync(
    script,
    `#!/bin/bash
[[ " $* " == *" -batch "* ]] || exec ${quote(real)} "$@"
text=$(cat)
left=$(cat ${quote(failures)} 2>/dev/null || echo 0)
if [[ $text == *"rule add"* && $left -gt 0 ]]; then echo $((left - 1)) >${quote(failures)}; echo "RTNETLINK answers: No buffer space available" >&2; exit 1; fi
exec ${quote(real)} "$@" <<<"$text"
`,
  )
  chmodSync(script, 0o755)
  return { within: inPlaceOf(path, script), failures }
}

function inPlaceOf(path: string, script: string): string[] {
  return ['unshare', '--mount', '--propagation', 'private', '--', 'sh', '-c', `mount --bind ${quote(script)} ${quote(path)} && exec "$@"`, 'older']
}

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`
}
