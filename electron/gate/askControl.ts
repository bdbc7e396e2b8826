import { realpathSync } from 'node:fs'
import { connect } from 'node:net'

import * as v from 'valibot'

import { controlLineLimit, controlReplyShape } from '#core/contract/controlProtocol.ts'
import type { ControlRequest, ControlStatus } from '#core/contract/controlProtocol.ts'
import { Failure, fromFailureReport } from '#core/contract/failure.ts'

import { listControlPaths } from './controlPlaces.ts'

/** Compiling, and the kernel's part of it, under load; closing waits for its own bounded steps. */
const patience = 60_000

/** An open gate as its socket tells. */
export interface FoundGate {
  readonly path: string
  readonly status: ControlStatus
}

/** Every gate this person may change. What does not answer, or with nonsense, is none. */
export async function findGates(): Promise<FoundGate[]> {
  const asked = await Promise.allSettled(listControlPaths().map(async (path) => ({ path, status: await askControl(path, { type: 'status' }, 5000) })))
  return asked.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
}

/**
 * The gate of a session, or the only one there is.
 * @throws Failure `not-open`, or `usage` when there are several and none was named.
 */
export async function findGate(folder?: string): Promise<FoundGate> {
  const gates = await findGates()
  if (folder === undefined) {
    const [only, ...others] = gates
    if (only === undefined) throw new Failure('not-open', 'no gate of yours is open')
    if (others.length > 0) throw new Failure('usage', `several gates are open; say which: ${gates.map(({ status }) => status.session).join(', ')}`)
    return only
  }
  const found = gates.find(({ status }) => realPath(status.session) === realPath(folder))
  if (found === undefined) throw new Failure('not-open', `nobody records into ${folder}${gates.length === 0 ? '' : `; open are: ${gates.map(({ status }) => status.session).join(', ')}`}`)
  return found
}

function realPath(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}

/** One request, answered. Rejects with the gate's Failure, or `not-open` when nobody answers. */
export function askControl(path: string, request: ControlRequest, timeout = patience): Promise<ControlStatus> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    let said = ''
    const fail = (message: string): void => {
      socket.destroy()
      reject(new Failure('not-open', message))
    }
    const timer = setTimeout(() => fail('the gate does not answer'), timeout)
    const settle = (line: string): void => {
      try {
        const reply = v.parse(controlReplyShape, JSON.parse(line))
        if (reply.ok) resolve(reply.status)
        else reject(fromFailureReport({ code: reply.error.code, message: reply.error.message, ...(reply.error.detail === undefined ? {} : { detail: reply.error.detail }) }))
      } catch {
        reject(new Failure('protocol', 'the gate is of another version of Sluice'))
      }
      socket.destroy()
    }
    socket.setEncoding('utf8')
    socket.once('connect', () => socket.write(`${JSON.stringify(request)}\n`))
    socket.on('data', (text: string) => {
      said += text
      const end = said.indexOf('\n')
      if (end !== -1) settle(said.slice(0, end))
      else if (said.length > controlLineLimit) fail('the gate answers with too much')
    })
    socket.on('error', () => fail('the gate does not answer'))
    socket.once('close', () => {
      clearTimeout(timer)
      reject(new Failure('not-open', 'the gate was closed meanwhile'))
    })
  })
}
