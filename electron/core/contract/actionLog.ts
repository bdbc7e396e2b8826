/** Where a person finds what was done as root, on every machine. Written by helper and guard alone, readable by all. */
export const actionLogPath = '/var/log/sluice/actions.log'

/** One thing that was done to the machine as root, or a note about the gate. */
export interface Action {
  /** ISO 8601, UTC. */
  readonly time: string
  /** For whom: `name(uid)`. */
  readonly person: string
  /** Process id of the helper or guard that did it. */
  readonly pid: number
  /** Inode of the network namespace it was done in. */
  readonly namespace: string
  /** `ok`, `failed` with the exit status, or `note`: nothing was changed. */
  readonly result: 'ok' | 'failed' | 'note'
  /** Program and arguments, or the note. */
  readonly text: string
  /** What the program was given to read, bounded. */
  readonly input?: string
  /** What it said when it failed, bounded. */
  readonly said?: string
}

/** In a session folder: what was done for it, written with the person's rights. */
export const actionFileName = 'actions.log'

const inputLimit = 64 << 10
const saidLimit = 4000

/**
 * A line a person can read with any pager, and under it what the program was given (`  > `) and what it answered (`  ! `). Control characters
 * are written as `\xNN`, so that nothing in it can pass for a line of its own.
 */
export function formatAction(action: Action): string {
  const head = `${action.time} net:${action.namespace} ${String(action.pid)} for ${plain(action.person)} ${action.result}: ${plain(action.text)}\n`
  return head + block('  > ', action.input, inputLimit) + block('  ! ', action.said, saidLimit)
}

function block(sign: string, text: string | undefined, limit: number): string {
  if (text === undefined || text.trim() === '') return ''
  return (text.length > limit ? cut(text, limit) : text).replace(/\n$/, '').split('\n').map((line) => `${sign}${plain(line)}\n`).join('')
}

/** The line it is cut in says so, or an address or a port would look as if it ended there. */
function cut(text: string, limit: number): string {
  const kept = text.slice(0, limit)
  const isWithinLine = !kept.endsWith('\n') && text[limit] !== '\n'
  return `${kept.replace(/\n$/, '')}${isWithinLine ? '… [cut]' : ''}\n… and ${String(text.length - limit)} characters more`
}

function plain(text: string): string {
  return text.replace(/[\0-\x1f\x7f-\x9f\u2028\u2029]/g, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

/** The log's text as actions, oldest first. Lines that are none (cut at the log's turning, written by hand) are passed over. */
export function parseActions(text: string): Action[] {
  const actions: { -readonly [Key in keyof Action]: Action[Key] }[] = []
  for (const line of text.split('\n')) {
    const last = actions.at(-1)
    if (line.startsWith('  > ') && last !== undefined) last.input = join(last.input, line.slice(4))
    else if (line.startsWith('  ! ') && last !== undefined) last.said = join(last.said, line.slice(4))
    else {
      const head = /^(\d{4}-\d\d-\d\dT[\d:.]+Z) net:(\d+) (\d+) for (\S+) (ok|failed|note): (.*)$/.exec(line)
      if (head === null) continue
      const [, time = '', namespace = '', pid = '', person = '', result = '', what = ''] = head
      actions.push({ time, namespace, pid: Number(pid), person, result: result as Action['result'], text: what })
    }
  }
  return actions
}

function join(before: string | undefined, line: string): string {
  return before === undefined ? line : `${before}\n${line}`
}
