import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { join } from 'node:path'

import { actionFileName } from '#core/contract/actionLog.ts'

import { sudoPerson } from './sessionFolder.ts'

/** A helper gone mad must not fill the person's disk. */
const limit = 4 << 20
const patience = 2000

/**
 * The record of what was done as root, in the session it was done for. Written by a child with the person's rights alone (under sudo we are root, and
 * root opens nothing in a folder of theirs). A record that cannot be written disturbs nothing.
 */
export class ActionRecord {
  readonly #folder: string
  #child: ChildProcess | undefined
  #gone: Promise<void> = Promise.resolve()
  #room = limit

  constructor(folder: string) {
    this.#folder = folder
  }

  write(text: string): void {
    this.#room -= text.length
    if (this.#room < 0) return
    this.#start().stdin?.write(text)
  }

  /** Resolves when everything is written, or cannot be. Idempotent. */
  async end(): Promise<void> {
    this.#room = 0
    this.#child?.stdin?.end()
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), patience)
    await this.#gone
    clearTimeout(timer)
  }

  #start(): ChildProcess {
    if (this.#child !== undefined) return this.#child
    const owner = sudoPerson()
    // Its umask is the shell's to set; the path is an argument and never part of the script.
    const child = spawn('/bin/sh', ['-c', 'umask 077; exec cat >> "$0"', join(this.#folder, actionFileName)], {
      stdio: ['pipe', 'ignore', 'ignore'],
      env: { PATH: '/usr/bin:/bin' },
      cwd: '/',
      // Ctrl-C is for the app to answer, and what happens after it is to be recorded, too.
      detached: true,
      ...(owner === undefined ? {} : { uid: owner.uid, gid: owner.gid }),
    })
    child.stdin.on('error', () => undefined)
    this.#gone = new Promise((resolve) => {
      child.once('close', () => resolve())
      child.once('error', () => resolve())
    })
    this.#child = child
    return child
  }
}
