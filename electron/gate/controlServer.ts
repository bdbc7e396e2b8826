import { rmSync } from 'node:fs'
import { createServer } from 'node:net'
import type { Server, Socket } from 'node:net'

import * as v from 'valibot'

import { controlLineLimit, controlRequestShape } from '#core/contract/controlProtocol.ts'
import type { ControlReply, ControlRequest, ControlStatus, FoundContainers } from '#core/contract/controlProtocol.ts'
import { Failure, toFailureReport } from '#core/contract/failure.ts'
import type { PlanDifference } from '#core/plan/planDifference.ts'

import { giveToPerson, makeControlPath, sweepControlPaths } from './controlPlaces.ts'
import type { Gate } from './gate.ts'

const mostConnections = 16
/** A connection that says nothing for so long is closed, milliseconds. */
const patience = 30_000

export interface ControlServerOptions {
  readonly gate: Gate
  /** Session folder, absolute. */
  readonly session: string
  readonly version: string
  /** Told of each change somebody made. */
  readonly onChange?: (difference: PlanDifference) => void
  /** Told, after such a change, of the containers among what was added. */
  readonly onContainers?: (containers: FoundContainers) => void
}

export interface ControlServer {
  /** Where it listens. */
  readonly path: string
  /** Ends all connections and takes the socket away. Idempotent. */
  close(): void
}

/**
 * Lets the person's other programs (`sluice change`) see and change an open gate. Never fails: undefined when there is no place to listen at, and the gate works without.
 */
export async function startControlServer(options: ControlServerOptions): Promise<ControlServer | undefined> {
  const path = makeControlPath()
  if (path === undefined) return undefined
  const connections = new Set<Connection>()
  const server = createServer((socket) => serve(socket, options, connections))
  server.maxConnections = mostConnections
  try {
    await listen(server, path)
    giveToPerson(path)
  } catch {
    server.close()
    return undefined
  }
  // It must not keep a process alive whose gate is closed.
  server.unref()
  server.on('error', () => undefined)
  await sweepControlPaths(path).catch(() => undefined)
  let over = false
  return {
    path,
    close: () => {
      if (over) return
      over = true
      server.close()
      for (const connection of connections) connection.end()
      rmSync(path, { force: true })
    },
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.once('listening', resolve)
    // The socket is made in this very call, so for nobody else for any moment.
    const before = process.umask(0o177)
    try {
      server.listen(path)
    } finally {
      process.umask(before)
    }
  })
}

interface Connection {
  /** After what was asked is answered. */
  end(): void
}

function serve(socket: Socket, options: ControlServerOptions, connections: Set<Connection>): void {
  const connection: Connection = { end: () => void work.finally(() => socket.destroySoon()) }
  connections.add(connection)
  socket.once('close', () => connections.delete(connection))
  socket.on('error', () => socket.destroy())
  socket.setTimeout(patience, () => socket.destroy())
  socket.setEncoding('utf8')
  let unread = ''
  let work = Promise.resolve()
  let waiting = 0
  let refused = false
  const reply = (message: ControlReply): void => {
    if (socket.writable) socket.write(`${JSON.stringify(message)}\n`)
  }
  // Nothing that comes after it is heard or kept; it is read, since closing on what is unread would take the answer along.
  const refuse = (message: string): void => {
    refused = true
    unread = ''
    reply({ ok: false, error: new Failure('protocol', message).report() })
    socket.end()
    setTimeout(() => socket.destroy(), patience).unref()
  }
  const hear = (line: string): void => {
    if (refused) return
    let request: ControlRequest
    try {
      request = v.parse(controlRequestShape, JSON.parse(line))
    } catch {
      return refuse('not a request')
    }
    waiting++
    // A change may take longer than a silence may.
    socket.setTimeout(0)
    work = work.then(async () => {
      try {
        reply({ ok: true, status: await answer(request, options) })
      } catch (error) {
        reply({ ok: false, error: toFailureReport(error) })
      }
      if (--waiting === 0) socket.setTimeout(patience)
    })
  }
  socket.on('data', (text: string) => {
    if (refused) return
    unread += text
    const lines = unread.split('\n')
    unread = lines.pop() ?? ''
    if (unread.length > controlLineLimit || waiting + lines.length > mostConnections) return refuse('too much at once')
    for (const line of lines) hear(line)
  })
}

async function answer(request: ControlRequest, options: ControlServerOptions): Promise<ControlStatus> {
  const { gate, onChange, onContainers } = options
  let difference: PlanDifference | undefined
  switch (request.type) {
    case 'status':
      break
    case 'edit':
      difference = await gate.edit(request.edit, request.duration === null ? {} : { duration: request.duration })
      if (request.containers.length > 0) onContainers?.(request.containers)
      onChange?.(difference)
      break
    case 'close-after':
      gate.closeAfter(request.duration)
      break
    case 'drain':
      if (gate.state().phase !== 'open' && gate.state().phase !== 'draining') throw new Failure('not-open', 'the gate is not open')
      // Not waited for: flows may run for days.
      void gate.drain().catch(() => undefined)
      break
    case 'resume':
      await gate.resume()
      break
    case 'close':
      await gate.close()
  }
  return statusOf(options, difference)
}

function statusOf({ gate, session, version }: ControlServerOptions, difference: PlanDifference | undefined): ControlStatus {
  const { phase, plan, backend, openedAt, ends, active, total, bytes, recording } = gate.state()
  // Through JSON: what is read-only here is the reader's own there.
  return JSON.parse(JSON.stringify({ pid: process.pid, version, session, phase, plan, backend, openedAt, ends, active, total, bytes, recording, difference })) as ControlStatus
}
