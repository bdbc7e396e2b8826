import type { Readable, Writable } from 'node:stream'

import * as v from 'valibot'

import { Failure, toFailureReport } from '#core/contract/failure.ts'
import { helperLineLimit, helperProtocolVersion, helperRequestShape } from '#core/contract/helperProtocol.ts'
import type { ChangeResult, CleanupResult, HelloResult, HelperEvent, HelperRequest, OpenResult, PreviewResult, ScopeResult } from '#core/contract/helperProtocol.ts'

import { runDoctor } from '#probe/doctor.ts'
import { probeMachine } from '#probe/probeMachine.ts'

import type { Person } from './findPerson.ts'
import { readLines } from './readLines.ts'
import { makeRunScope, removeRunScopes } from './runScope.ts'

/** A gate as the service needs it; OpenGate is the real one. */
export interface ServedGate {
  readonly closed: boolean
  open(request: Extract<HelperRequest, { type: 'open' }>): Promise<OpenResult>
  change(request: Extract<HelperRequest, { type: 'change' }>): Promise<ChangeResult>
  resume(): Promise<void>
  drain(): Promise<void>
  close(): Promise<void>
}

export interface ServiceOptions {
  readonly input: Readable
  readonly output: Writable
  readonly person: Person
  readonly makeGate: (emit: (event: HelperEvent) => void) => ServedGate
  readonly cleanup: () => Promise<CleanupResult>
  readonly preview: (plan: unknown) => Promise<PreviewResult>
}

/** So much unread output, and events that only count or record are left out. A person's frozen app must not grow root's memory. */
const unreadLimit = 1 << 20

/**
 * Answers requests until the input ends, then takes everything back. Resolves to the exit status: 0 after an orderly end, 1 when the input was no protocol.
 * A line that is no JSON object with an id, or is too long, is garbage: one failure with id 0, everything back, goodbye. A known id with a wrong request is only refused.
 */
export function serveHelper({ input, output, person, makeGate, cleanup, preview }: ServiceOptions): { readonly ended: Promise<number>; stop(): void } {
  let gate: ServedGate | undefined
  let greeted = false
  let scoped = false
  let cleaning: Promise<unknown> = Promise.resolve()
  let over = false
  let resolveEnded: (status: number) => void
  const ended = new Promise<number>((resolve) => (resolveEnded = resolve))

  const finish = (status: number): void => {
    if (over) return
    over = true
    void (async () => {
      await gate?.close().catch(() => undefined)
      await cleaning
      if (scoped) await removeRunScopes().catch(() => undefined)
      resolveEnded(status)
    })()
  }
  output.on('error', () => finish(0))

  const send = (message: object): void => {
    if (!output.destroyed && output.writable) output.write(`${JSON.stringify(message)}\n`)
  }
  const emit = (event: HelperEvent): void => {
    if ((event.event === 'flows' || event.event === 'action') && output.writableLength > unreadLimit) return
    send(event)
  }
  const garbage = (): void => {
    send({ id: 0, ok: false, error: new Failure('protocol', 'the helper was sent something that is no request').report() })
    finish(1)
  }

  /** Half of a cleaning up would leave its lock behind, so the end waits for it. */
  const cleanInOrder = (): Promise<CleanupResult> => {
    const work = cleanup()
    cleaning = Promise.allSettled([cleaning, work])
    return work
  }

  const answer = async (request: HelperRequest): Promise<unknown> => {
    if (request.type === 'hello') {
      greeted = true
      return { protocol: helperProtocolVersion, uid: person.uid, user: person.user, pid: process.pid } satisfies HelloResult
    }
    if (!greeted) throw new Failure('protocol', 'the first request must be hello')
    switch (request.type) {
      case 'open': {
        if (gate !== undefined && !gate.closed) throw new Failure('already-open', 'the gate is open already')
        gate = makeGate(emit)
        return gate.open(request)
      }
      case 'change':
        if (gate === undefined || gate.closed) throw new Failure('not-open', 'the gate is not open')
        return gate.change(request)
      case 'resume':
        if (gate === undefined || gate.closed) throw new Failure('not-open', 'the gate is not open')
        await gate.resume()
        return null
      case 'drain':
        if (gate === undefined || gate.closed) throw new Failure('not-open', 'the gate is not open')
        await gate.drain()
        return null
      case 'close':
        await gate?.close()
        return null
      case 'facts':
        return probeMachine({ privileged: true })
      case 'doctor':
        return runDoctor({ part: 'network' })
      case 'preview':
        return preview(request.plan)
      case 'scope':
        scoped = true
        return { cgroup: await makeRunScope(request.pid, person) } satisfies ScopeResult
      case 'cleanup':
        // What this helper itself holds is no left-over.
        return gate !== undefined && !gate.closed ? ({ removed: [] } satisfies CleanupResult) : cleanInOrder()
    }
  }

  readLines(input, helperLineLimit, {
    line: (text) => {
      if (over) return
      let value: unknown
      try {
        value = JSON.parse(text)
      } catch {
        return garbage()
      }
      const id = typeof value === 'object' && value !== null && 'id' in value ? value.id : undefined
      if (typeof id !== 'number' || !Number.isInteger(id) || id < 0) return garbage()
      const parsed = v.safeParse(helperRequestShape, value)
      if (!parsed.success) {
        const where = v.getDotPath(parsed.issues[0])
        send({ id, ok: false, error: new Failure('protocol', `not a request${where === null ? '' : `: ${where.slice(0, 200)}`}`).report() })
        return
      }
      answer(parsed.output).then(
        (result) => send({ id, ok: true, result }),
        (error: unknown) => send({ id, ok: false, error: toFailureReport(error) }),
      )
    },
    tooLong: garbage,
    end: () => finish(0),
  })
  return { ended, stop: () => finish(0) }
}
