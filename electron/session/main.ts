import * as v from 'valibot'

import { Inspector } from './inspector.ts'
import { LineReader } from './lineReader.ts'
import { inspectorRequestShape } from '#core/contract/inspectorProtocol.ts'

/** The inspector process: one JSON object a line on standard input and output (core/contract/inspectorProtocol.ts). End of input: it exits. */
const lineLimit = 64 * 1024

const inspector = new Inspector((message) => { process.stdout.write(`${JSON.stringify(message)}\n`) })
const lines = new LineReader(lineLimit)

function take(line: string | null): void {
  if (line === '') return
  let data: unknown
  try {
    data = line === null ? undefined : JSON.parse(line)
  } catch {
    data = undefined
  }
  const parsed = v.safeParse(inspectorRequestShape, data)
  if (parsed.success) {
    void inspector.handle(parsed.output)
    return
  }
  const id = typeof data === 'object' && data !== null ? (data as Record<string, unknown>)['id'] : undefined
  const answerable = typeof id === 'number' && Number.isSafeInteger(id) && id >= 0
  const error = { code: 'protocol', message: 'a request this inspector does not know' }
  process.stdout.write(`${JSON.stringify({ id: answerable ? id : 0, ok: false, error })}\n`)
}

async function leave(code: number): Promise<never> {
  await inspector.close().catch(() => undefined)
  process.exit(code)
}

process.stdin.on('data', (piece: Buffer) => { for (const line of lines.push(piece)) take(line) })
process.stdin.on('end', () => { void leave(0) })
process.stdin.on('error', () => { void leave(0) })
process.stdout.on('error', () => { void leave(0) }) // nobody listens any more
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => { void leave(0) })
