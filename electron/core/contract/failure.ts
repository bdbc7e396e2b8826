import * as v from 'valibot'

/** Every way Sluice says no. One table (`failureAdvice`) maps each to what to do; a missing row is a type error. */
export const failureCodes = [
  'bad-ports', 'bad-interface', 'bad-user', 'bad-cgroup', 'bad-cidr', 'bad-plan', 'nothing-to-intercept', 'unknown-interface', 'unknown-cgroup', 'unknown-namespace',
  'no-backend', 'backend-missing', 'no-tproxy', 'no-privilege', 'elevation-refused', 'elevation-unavailable', 'already-open', 'not-open', 'cannot-change',
  'relay-missing', 'relay-failed', 'relay-died', 'port-taken', 'rules-failed', 'routes-failed', 'rules-taken', 'marks-taken', 'table-taken', 'digest-mismatch', 'protocol',
  'cancelled', 'disk-full', 'cannot-write', 'session-exists', 'session-unreadable', 'session-missing', 'flow-unknown', 'bad-filter', 'bad-format',
  'inspector-died', 'helper-died', 'usage', 'internal',
] as const
export type FailureCode = (typeof failureCodes)[number]

/** What crosses process borders when something failed. `message` is one line for a person; `detail` what a tool or errno said, if anything. */
export interface FailureReport {
  readonly code: FailureCode
  readonly message: string
  readonly detail?: string
}

export const failureShape = v.object({
  code: v.picklist(failureCodes),
  message: v.pipe(v.string(), v.maxLength(2000)),
  detail: v.optional(v.pipe(v.string(), v.maxLength(8000))),
})

/** A failure as an exception; `report()` is what crosses borders. */
export class Failure extends Error {
  readonly code: FailureCode
  readonly detail: string | undefined
  constructor(code: FailureCode, message: string, detail?: string) {
    super(message)
    this.name = 'Failure'
    this.code = code
    this.detail = detail
  }
  report(): FailureReport {
    return this.detail === undefined ? { code: this.code, message: this.message } : { code: this.code, message: this.message, detail: this.detail }
  }
}

/** Any thrown thing as a report; what is not a Failure is `internal`. */
export function toFailureReport(error: unknown): FailureReport {
  if (error instanceof Failure) return error.report()
  return { code: 'internal', message: error instanceof Error ? error.message : String(error) }
}

/** A report that crossed a border, as an exception again. */
export function fromFailureReport(report: FailureReport): Failure {
  return new Failure(report.code, report.message, report.detail)
}
