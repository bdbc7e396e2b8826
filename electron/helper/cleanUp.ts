import { Failure } from '#core/contract/failure.ts'
import type { CleanupResult } from '#core/contract/helperProtocol.ts'

import { acquireLock } from './acquireLock.ts'
import { networkNamespace, readJournal, removeJournal } from './runFolder.ts'
import { takeBack } from './takeBack.ts'

/** Takes back what a crash left in this network namespace, with or without a journal. What a living Sluice holds is no left-over: then nothing is done. */
export async function cleanUp(): Promise<CleanupResult> {
  const namespace = networkNamespace()
  try {
    const lock = await acquireLock(namespace)
    try {
      const removed = await takeBack(readJournal(namespace))
      if (removeJournal(namespace)) removed.push('journal of a Sluice that ended')
      return { removed }
    } finally {
      lock.release()
    }
  } catch (error) {
    if (error instanceof Failure && error.code === 'already-open') return { removed: [] }
    throw error
  }
}
