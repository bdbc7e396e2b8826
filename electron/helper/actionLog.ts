import { closeSync, constants, fchmodSync, fstatSync, lstatSync, mkdirSync, openSync, renameSync, writeSync } from 'node:fs'

import { actionLogFolder, actionLogPath as path, formatAction } from '#core/contract/actionLog.ts'
import type { Action } from '#core/contract/actionLog.ts'

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
    append(text)
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

function append(text: string): void {
  mkdirSync(actionLogFolder, { recursive: true, mode: 0o755 })
  const folder = lstatSync(actionLogFolder)
  if (!folder.isDirectory() || folder.uid !== 0) return
  const file = openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o644)
  try {
    const facts = fstatSync(file)
    if (!facts.isFile()) return
    fchmodSync(file, 0o644)
    // One write: entries of several helpers do not mix.
    writeSync(file, text)
    if (facts.size > sizeLimit) renameSync(path, `${path}.1`)
  } finally {
    closeSync(file)
  }
}
