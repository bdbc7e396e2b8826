import { writeExport } from './export.ts'
import { Session } from './session.ts'
import { Failure } from '#core/contract/failure.ts'
import type { FailureReport } from '#core/contract/failure.ts'
import { toFailureReport } from '#core/contract/failure.ts'
import type { InspectorEvent, InspectorRequest, InspectorResults } from '#core/contract/inspectorProtocol.ts'

export type InspectorReply =
  | { readonly id: number; readonly ok: true; readonly result: unknown }
  | { readonly id: number; readonly ok: false; readonly error: FailureReport }

const eventFlows = 1000

/** Answers requests about one session at a time. Knows no streams: `send` takes replies and events. */
export class Inspector {
  private session: Session | null = null
  private readonly exports = new Map<number, AbortController>()
  private readonly send: (message: InspectorReply | InspectorEvent) => void

  constructor(send: (message: InspectorReply | InspectorEvent) => void) {
    this.send = send
  }

  async handle(request: InspectorRequest): Promise<void> {
    try {
      this.send({ id: request.id, ok: true, result: await this.answer(request) })
    } catch (error) {
      const report = toFailureReport(error)
      this.send({ id: request.id, ok: false, error: { ...report, message: report.message.slice(0, 2000) } })
    }
  }

  async close(): Promise<void> {
    for (const abort of this.exports.values()) abort.abort()
    await this.session?.close()
    this.session = null
  }

  private async answer(request: InspectorRequest): Promise<InspectorResults[InspectorRequest['type']]> {
    if (request.type === 'open') return this.open(request.folder, request.live)
    if (request.type === 'cancel') {
      this.exports.get(request.request)?.abort()
      return null
    }
    const { session } = this
    if (session === null) throw new Failure('session-missing', 'no session is open')
    switch (request.type) {
      case 'finish': return session.finish()
      case 'flows': return session.flowPage(request, request.offset, request.limit)
      case 'position': return session.position(request, request.flow)
      case 'flow': return session.details(request.flow, request.exchangeOffset, request.exchangeLimit)
      case 'stream': return session.streamPage(request.flow, request.direction, request.offset, request.limit)
      case 'body': return session.bodyPage(request.flow, request.exchange, request.part, request.decoded, request.offset, request.limit)
      case 'export': return this.export(session, request)
    }
  }

  private async open(folder: string, live: boolean): Promise<InspectorResults['open']> {
    await this.close()
    this.session = Session.open(folder, live, {
      changed: (revision, flows, summary) => {
        const some: number[] = []
        for (const flow of flows) if (some.push(flow) === eventFlows) break
        this.send({ event: 'changed', revision, flows: some, more: flows.size > some.length, summary })
      },
    })
    return this.session.summary()
  }

  private async export(session: Session, request: Extract<InspectorRequest, { type: 'export' }>): Promise<InspectorResults['export']> {
    const abort = new AbortController()
    this.exports.set(request.id, abort)
    try {
      const { format, path, filter, overwrite, id } = request
      return await writeExport(session, {
        format, path, filter, overwrite, signal: abort.signal,
        onProgress: (done, of) => { this.send({ event: 'progress', request: id, done, of }) },
      })
    } finally {
      this.exports.delete(request.id)
    }
  }
}
