import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import * as v from 'valibot'

import { ownFolders } from './indexPlace.ts'
import { LineReader } from './lineReader.ts'
import { Failure, fromFailureReport } from '#core/contract/failure.ts'
import { inspectorEventShape, inspectorReplyShape } from '#core/contract/inspectorProtocol.ts'
import type { InspectorEvent, InspectorRequest, InspectorResults } from '#core/contract/inspectorProtocol.ts'
import { findPlaces } from '#probe/places.ts'

type RequestType = InspectorRequest['type']
export type InspectorArguments<T extends RequestType> = Omit<Extract<InspectorRequest, { type: T }>, 'id' | 'type'>

export interface InspectorClient {
  /** Rejects with a Failure; 'inspector-died' when the process went. `open` starts a process (again) for that folder. */
  request<T extends RequestType>(type: T, args: InspectorArguments<T>): Promise<InspectorResults[T]>
  /** The id `request` will give to its next call: what `cancel` and progress events name. */
  nextId(): number
  /** Returns the function that takes the listener off again. */
  onEvent(listener: (event: InspectorEvent) => void): () => void
  /** The process went, asked or not. */
  onExit(listener: (died: boolean) => void): () => void
  /** Ends the process in good order; resolves when it is gone. */
  stop(): Promise<void>
}

/** A line an inspector may answer with: a page of a mebibyte in base64, escaped, with room. */
const lineLimit = 64 * 1024 * 1024
const stopTime = 5000

interface Pending {
  readonly resolve: (result: unknown) => void
  readonly reject: (error: Failure) => void
}

/** One inspector process: confined to writing beneath `writable`, where the confine program is built. */
class InspectorProcess {
  private readonly child: ChildProcess
  private readonly pending = new Map<number, Pending>()
  private readonly lines = new LineReader(lineLimit)
  private readonly gone: Promise<void>
  private dead = false
  private stopping = false
  private readonly onEvent: (event: InspectorEvent) => void

  constructor(writable: readonly string[], onEvent: (event: InspectorEvent) => void, onExit: (died: boolean) => void) {
    this.onEvent = onEvent
    const places = findPlaces()
    const command = [places.runtime, places.inspector]
    const confined = existsSync(places.confine)
    const argv = confined ? [places.confine, ...writable.flatMap((folder) => ['--write', folder]), '--', ...command] : command
    this.child = spawn(argv[0]!, argv.slice(1), {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: environment(places.runtimeIsElectron),
      cwd: '/',
    })
    this.gone = new Promise((resolve) => {
      const end = (): void => {
        if (this.dead) return
        this.dead = true
        for (const { reject } of this.pending.values()) reject(new Failure('inspector-died', 'the inspector has ended unexpectedly'))
        this.pending.clear()
        resolve()
        onExit(!this.stopping)
      }
      this.child.once('error', end)
      this.child.once('close', end)
    })
    this.child.stdin!.on('error', () => undefined) // its end is told by 'close'
    this.child.stdout!.on('data', (piece: Buffer) => { for (const line of this.lines.push(piece)) this.take(line) })
  }

  request(id: number, type: RequestType, args: object): Promise<unknown> {
    if (this.dead || this.stopping) return Promise.reject(new Failure('inspector-died', 'the inspector is not running'))
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject })
      this.child.stdin!.write(`${JSON.stringify({ ...args, id, type })}\n`)
    })
  }

  async stop(): Promise<void> {
    this.stopping = true
    if (!this.dead) this.child.stdin!.end()
    const timer = setTimeout(() => { this.child.kill('SIGKILL') }, stopTime)
    await this.gone
    clearTimeout(timer)
  }

  private take(line: string | null): void {
    let data: unknown
    try {
      data = JSON.parse(line ?? '')
    } catch {
      return
    }
    const event = v.safeParse(inspectorEventShape, data)
    if (event.success) {
      this.onEvent(event.output)
      return
    }
    const reply = v.safeParse(inspectorReplyShape, data)
    if (!reply.success) return
    const pending = this.pending.get(reply.output.id)
    if (pending === undefined) return
    this.pending.delete(reply.output.id)
    if (reply.output.ok) pending.resolve(reply.output.result)
    else pending.reject(fromFailureReport({ code: reply.output.error.code, message: reply.output.error.message, ...(reply.output.error.detail === undefined ? {} : { detail: reply.output.error.detail }) }))
  }
}

/** Nothing of the caller's environment but what the inspector needs; PATH is never searched. */
function environment(electron: boolean): NodeJS.ProcessEnv {
  const kept: NodeJS.ProcessEnv = { LC_ALL: 'C.UTF-8' }
  for (const name of ['HOME', 'XDG_STATE_HOME', 'XDG_CACHE_HOME', 'TMPDIR', 'NODE_V8_COVERAGE']) if (process.env[name] !== undefined) kept[name] = process.env[name]
  if (electron) kept['ELECTRON_RUN_AS_NODE'] = '1'
  return kept
}

/** Makes what the process may write in, as it cannot do that itself; what cannot be made is left out. */
function writableFolders(session: string): string[] {
  const { state, cache } = ownFolders()
  const folders = existsSync(session) ? [session] : []
  for (const folder of [state, cache]) {
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 })
      folders.push(folder)
    } catch {
      // A home that cannot be written: the index goes into the temporary folder or nowhere.
    }
  }
  return folders
}

class Client implements InspectorClient {
  private main: InspectorProcess | null = null
  private folder: string | null = null
  private lastId = 0
  private readonly exports = new Map<number, AbortController>()
  private readonly eventListeners = new Set<(event: InspectorEvent) => void>()
  private readonly exitListeners = new Set<(died: boolean) => void>()

  nextId(): number {
    return this.lastId + 1
  }

  async request<T extends RequestType>(type: T, args: InspectorArguments<T>): Promise<InspectorResults[T]> {
    const id = ++this.lastId
    if (type === 'export') return (await this.export(id, args as unknown as InspectorArguments<'export'>)) as InspectorResults[T]
    if (type === 'cancel') {
      const { request } = args as unknown as InspectorArguments<'cancel'>
      this.exports.get(request)?.abort()
      return null as InspectorResults[T]
    }
    if (type === 'open') {
      const { folder, live } = args as unknown as InspectorArguments<'open'>
      await this.main?.stop()
      this.folder = resolve(folder)
      this.main = new InspectorProcess(writableFolders(this.folder), (event) => { this.tell(event) }, (died) => { for (const listener of this.exitListeners) listener(died) })
      return (await this.main.request(id, 'open', { folder: this.folder, live })) as InspectorResults[T]
    }
    if (this.main === null) throw new Failure('session-missing', 'no session is open')
    return (await this.main.request(id, type, args)) as InspectorResults[T]
  }

  onEvent(listener: (event: InspectorEvent) => void): () => void {
    this.eventListeners.add(listener)
    return () => { this.eventListeners.delete(listener) }
  }

  onExit(listener: (died: boolean) => void): () => void {
    this.exitListeners.add(listener)
    return () => { this.exitListeners.delete(listener) }
  }

  async stop(): Promise<void> {
    for (const stop of this.exports.values()) stop.abort()
    await this.main?.stop()
    this.main = null
  }

  private tell(event: InspectorEvent): void {
    for (const listener of this.eventListeners) listener(event)
  }

  private async export(id: number, args: InspectorArguments<'export'>): Promise<InspectorResults['export']> {
    if (this.folder === null) throw new Failure('session-missing', 'no session is open')
    const stop = new AbortController()
    this.exports.set(id, stop)
    try {
      return await exportSession({ ...args, folder: this.folder, signal: stop.signal, onProgress: (done, of) => { this.tell({ event: 'progress', request: id, done, of }) } })
    } finally {
      this.exports.delete(id)
    }
  }
}

export interface ExportWish extends InspectorArguments<'export'> {
  readonly folder: string
  readonly signal?: AbortSignal
  readonly onProgress?: (done: number, of: number) => void
}

/**
 * Exports a session by an inspector of its own, which may write in the target's folder: one that lives long never may. Rejects as the export does, and with
 * `cancelled` after the signal.
 */
export async function exportSession({ folder, signal, onProgress, ...args }: ExportWish): Promise<InspectorResults['export']> {
  const session = resolve(folder)
  const path = resolve(args.path)
  const exporter = new InspectorProcess(
    [...writableFolders(session), ...(existsSync(dirname(path)) ? [dirname(path)] : [])],
    (event) => { if (event.event === 'progress') onProgress?.(event.done, event.of) },
    () => undefined,
  )
  // Before the export itself began there is nothing on the disk to be taken back, so the process is simply ended.
  let exporting = false
  const cancel = (): void => {
    if (exporting) void exporter.request(3, 'cancel', { request: 2 }).catch(() => undefined)
    else void exporter.stop()
  }
  signal?.addEventListener('abort', cancel, { once: true })
  try {
    await exporter.request(0, 'open', { folder: session, live: false })
    await exporter.request(1, 'finish', {})
    exporting = true
    return (await exporter.request(2, 'export', { ...args, path })) as InspectorResults['export']
  } catch (error) {
    if (signal?.aborted === true) throw new Failure('cancelled', 'the export was cancelled')
    throw error
  } finally {
    signal?.removeEventListener('abort', cancel)
    await exporter.stop()
  }
}

/** A client without a process yet: `open` starts it, confined to that session's folder. */
export function startInspector(): InspectorClient {
  return new Client()
}
