import { open } from 'node:fs/promises'

import { actionLogPath, parseActions, type Action } from '#core/contract/actionLog.ts'
import { Failure } from '#core/contract/failure.ts'

const mostBytes = 512 << 10
const mostActions = 500

/**
 * The end of root's log, oldest first. None while nothing was ever done here.
 * @throws Failure `internal` when it is there and cannot be read.
 */
export async function readActions(path = actionLogPath): Promise<readonly Action[]> {
  try {
    const file = await open(path, 'r')
    try {
      const { size } = await file.stat()
      const from = Math.max(0, size - mostBytes)
      const buffer = Buffer.alloc(size - from)
      const { bytesRead } = await file.read(buffer, 0, buffer.length, from)
      return parseActions(buffer.toString('utf8', 0, bytesRead)).slice(-mostActions)
    } finally {
      await file.close()
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw new Failure('internal', 'the log of what was done as root cannot be read', error instanceof Error ? error.message : String(error))
  }
}
