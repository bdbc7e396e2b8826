import type { ChildProcess } from 'node:child_process'

import * as v from 'valibot'

import type { DoctorRow } from '#core/contract/bridge.ts'
import { Failure, fromFailureReport } from '#core/contract/failure.ts'
import { helperEventShape, helperLineLimit, helperReplyShape } from '#core/contract/helperProtocol.ts'
import type { ChangeResult, CleanupResult, HelloResult, HelperEvent, HelperRequest, OpenResult, PreviewResult, ScopeResult } from '#core/contract/helperProtocol.ts'
import type { MachineFacts } from '#core/rules/machineFacts.ts'

export interface HelperResults {
  hello: HelloResult
  open: OpenResult
  change: ChangeResult
  resume: null
  drain: null
  close: null
  facts: MachineFacts
  doctor: readonly DoctorRow[]
  preview: PreviewResult
  scope: ScopeResult
  cleanup: CleanupResult
}
type DeepReadonly<T> = T extends object ? { readonly [Key in keyof T]: DeepReadonly<T[Key]> } : T
export type HelperArguments<Type extends keyof HelperResults> = DeepReadonly<Omit<Extract<HelperRequest, { type: Type }>, 'id' | 'type'>>

/** The app's end of a helper. Its life is the lease: when it ends, the helper takes everything back. */
export interface HelperConnection {
  /** Rejects with the helper's Failure, or `helper-died` when it ended first. */
  request<Type extends keyof HelperResults>(type: Type, args: HelperArguments<Type>): Promise<HelperResults[Type]>
  onEvent(listener: (event: HelperEvent) => void): void
  /** Told once, at once when it has ended already. */
  onEnd(listener: (end: HelperEnd) => void): void
  /** Closes the helper's input; resolves when it has taken everything back and is gone. Idempotent. */
  end(): Promise<void>
}
export interface HelperEnd {
  readonly code: number | undefined
  /** What it last printed on standard error. */
  readonly stderr: string
}

/** Speaks the helper protocol over a child's standard input and output. What the child says is validated; nonsense ends the connection. */
export function connectHelper(child: ChildProcess): HelperConnection {
  const waiting = new Map<number, { resolve: (result: never) => void; reject: (error: Failure) => void }>()
  const eventListeners: ((event: HelperEvent) => void)[] = []
  const endListeners: ((end: HelperEnd) => void)[] = []
  let next = 1
  let stderr = ''
  let ended: HelperEnd | undefined
  let unread = ''

  child.stdin?.on('error', () => undefined)
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr = (stderr + text).slice(-4000)))
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    unread += text
    const lines = unread.split('\n')
    unread = lines.pop() ?? ''
    if (unread.length > helperLineLimit) child.stdin?.end()
    for (const line of lines) hear(line)
  })
  const gone = new Promise<void>((resolve) => {
    const finish = (code: number | null, error?: Error): void => {
      if (ended !== undefined) return
      ended = { code: code ?? undefined, stderr: error === undefined ? stderr : error.message }
      for (const each of waiting.values()) each.reject(new Failure('helper-died', 'the helper ended', stderr || undefined))
      waiting.clear()
      for (const listener of endListeners) listener(ended)
      resolve()
    }
    // `close`, not `exit`: what it wrote last is still to be read.
    child.once('close', (code) => finish(code))
    child.once('error', (error) => finish(null, error))
  })

  function hear(line: string): void {
    let value: unknown
    try {
      value = JSON.parse(line)
    } catch {
      child.stdin?.end()
      return
    }
    const event = v.safeParse(helperEventShape, value)
    if (event.success) {
      for (const listener of eventListeners) listener(event.output)
      return
    }
    const reply = v.safeParse(helperReplyShape, value)
    if (!reply.success) {
      child.stdin?.end()
      return
    }
    const asked = waiting.get(reply.output.id)
    waiting.delete(reply.output.id)
    if (reply.output.ok) asked?.resolve(reply.output.result as never)
    else asked?.reject(fromFailureReport(withoutUndefined(reply.output.error)))
  }

  return {
    request: (type, args) =>
      new Promise((resolve, reject) => {
        if (ended !== undefined || child.stdin?.writable !== true) return reject(new Failure('helper-died', 'the helper ended', stderr || undefined))
        const id = next++
        waiting.set(id, { resolve, reject })
        child.stdin.write(`${JSON.stringify({ ...args, id, type })}\n`)
      }),
    onEvent: (listener) => void eventListeners.push(listener),
    onEnd: (listener) => {
      if (ended === undefined) endListeners.push(listener)
      else listener(ended)
    },
    end: () => {
      child.stdin?.end()
      return gone
    },
  }
}

function withoutUndefined(error: { code: Failure['code']; message: string; detail?: string | undefined }): { code: Failure['code']; message: string; detail?: string } {
  return error.detail === undefined ? { code: error.code, message: error.message } : { code: error.code, message: error.message, detail: error.detail }
}
