import { Failure, toFailureReport } from '#core/contract/failure.ts'
import type { FailureCode } from '#core/contract/failure.ts'

/** The command itself was wrong: status 2. Everything else that fails: status 1. */
const wrongCommand: ReadonlySet<FailureCode> = new Set<FailureCode>([
  'usage', 'bad-ports', 'bad-interface', 'bad-user', 'bad-cgroup', 'bad-cidr', 'bad-plan', 'nothing-to-intercept', 'bad-filter', 'bad-format',
])

/** What to do, as a command line says it; only where the message does not. */
const advice: Partial<Record<FailureCode, string>> = {
  'no-backend': 'install nftables or iptables, and see sluice doctor',
  'backend-missing': 'leave out --backend, or see sluice doctor',
  'no-tproxy': 'see sluice doctor',
  'no-privilege': 'run it with sudo',
  'elevation-refused': 'run it again and allow it, or use sudo',
  'already-open': 'close that one first',
  'relay-missing': 'build or reinstall Sluice',
  'relay-failed': 'see sluice doctor',
  'rules-failed': 'nothing was left behind; see sluice doctor',
  'routes-failed': 'nothing was left behind; see sluice doctor',
  'session-exists': 'choose another name',
  'helper-died': 'the rules are taken back; sluice cleanup makes sure',
}

export function statusOf(error: unknown): 1 | 2 {
  return error instanceof Failure && wrongCommand.has(error.code) ? 2 : 1
}

/** One line: "sluice: message: detail (what to do)". */
export function failureLine(error: unknown): string {
  const { code, message, detail } = toFailureReport(error)
  const flat = (text: string): string => text.replace(/\s+/g, ' ').trim()
  const first = flat(message)
  const more = detail === undefined ? '' : flat(detail).slice(0, 300)
  const said = more === '' || first.includes(more) || code === 'usage' ? '' : `: ${more}`
  const hint = advice[code]
  const hinted = hint === undefined || `${first}${said}`.includes(hint) ? '' : ` (${hint})`
  return `sluice: ${first}${said}${hinted}`
}
