import { actionLogPath, formatAction } from '#core/contract/actionLog.ts'
import type { Action } from '#core/contract/actionLog.ts'

import { appendTurning } from './appendTurning.ts'
import { networkNamespace } from './runFolder.ts'

// The log is world-readable: what it says of rules and routes is no secret to whoever shares the machine, and captured bytes are never in it.
/** Then it turns: one older file is kept. */
const sizeLimit = 4 << 20

let person = 'root(0)'
const listeners = new Set<(text: string) => void>()
const lossListeners = new Set<(why: string) => void>()
/** Why the last entry could not be written. */
let loss: string | undefined

/** For whom this process works, from now on. */
export function logFor(who: { readonly user: string; readonly uid: number }): void {
  person = `${who.user.replace(/\s/g, '_')}(${String(who.uid)})`
}

/** Called with each entry's text; the result ends that. */
export function onAction(listener: (text: string) => void): () => void {
  listeners.add(listener)
  return () => void listeners.delete(listener)
}

/** Called when entries begin to be lost (at once, if they are lost already) with the kernel's words for why; the result ends that. */
export function onLogLoss(listener: (why: string) => void): () => void {
  lossListeners.add(listener)
  if (loss !== undefined) listener(loss)
  return () => void lossListeners.delete(listener)
}

/** Appends one entry. A log that cannot be written (full disk, read-only system) stops nothing. */
export function logAction(action: Pick<Action, 'result' | 'text' | 'input' | 'said'>): void {
  const text = formatAction({ time: new Date().toISOString(), person, pid: process.pid, namespace: ownNamespace(), ...action })
  for (const listener of listeners) listener(text)
  try {
    appendTurning(actionLogPath, text, sizeLimit)
    loss = undefined
  } catch (error) {
    const before = loss
    loss = error instanceof Error ? error.message : String(error)
    if (before === undefined) for (const listener of lossListeners) listener(loss)
  }
}

let namespace: string | undefined
function ownNamespace(): string {
  return (namespace ??= networkNamespace())
}
