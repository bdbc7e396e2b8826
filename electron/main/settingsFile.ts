import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, statSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import * as v from 'valibot'

import type { Settings } from '#core/contract/bridge.ts'
import { settingsShape } from '#core/contract/bridgeArguments.ts'
import { defaultChoice } from '#core/plan/gateChoice.ts'

export const defaultSettings: Settings = {
  theme: 'system',
  choice: defaultChoice,
  recentPorts: [],
}

const whole = v.pipe(v.number(), v.safeInteger())
const placeShape = v.object({
  x: whole,
  y: whole,
  width: v.pipe(whole, v.minValue(200), v.maxValue(20_000)),
  height: v.pipe(whole, v.minValue(200), v.maxValue(20_000)),
  maximized: v.boolean(),
})
/** Where the window was, in pixels of the screen. */
export type WindowPlace = v.InferOutput<typeof placeShape>

const fileShape = v.object({ format: v.literal(2), settings: settingsShape, window: v.optional(placeShape) })
type File = v.InferOutput<typeof fileShape>

const mostBytes = 1 << 20

/**
 * The app's settings, kept in one JSON file that is only ever replaced whole (a crash leaves the old or the new one, never half of one).
 * A file that cannot be understood is put aside under another name, never overwritten: somebody may want it back.
 */
export class SettingsFile {
  readonly #path: string
  #file: File
  /** Where a damaged file was put. */
  readonly setAside: string | undefined
  /** Told about a write that failed; the settings go on living in memory. */
  onWriteError: (error: Error) => void = () => undefined

  constructor(path: string) {
    this.#path = path
    const read = readFile(path)
    this.#file = read.file
    this.setAside = read.setAside
  }

  get settings(): Settings {
    return this.#file.settings
  }
  get window(): WindowPlace | undefined {
    return this.#file.window
  }

  change(part: Partial<Settings>): Settings {
    const settings = v.parse(settingsShape, { ...this.#file.settings, ...part })
    this.#keep({ ...this.#file, settings })
    return settings
  }

  keepWindow(window: WindowPlace): void {
    this.#keep({ ...this.#file, window })
  }

  #keep(file: File): void {
    if (JSON.stringify(file) === JSON.stringify(this.#file)) return
    this.#file = file
    try {
      writeWhole(this.#path, `${JSON.stringify(file, null, 2)}\n`)
    } catch (error) {
      this.onWriteError(error instanceof Error ? error : new Error(String(error)))
    }
  }
}

function readFile(path: string): { file: File; setAside?: string } {
  const fresh: File = v.parse(fileShape, { format: 2, settings: defaultSettings })
  let text: string
  try {
    const facts = statSync(path)
    if (!facts.isFile() || facts.size > mostBytes) return { file: fresh, ...putAside(path) }
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { file: fresh }
    return { file: fresh, ...putAside(path) }
  }
  try {
    return { file: v.parse(fileShape, fromOlder(JSON.parse(text))) }
  } catch {
    return { file: fresh, ...putAside(path) }
  }
}

const format1Shape = v.object({
  format: v.literal(1),
  settings: v.object({ theme: v.unknown(), choice: v.looseObject({ tcp: v.string() }), recentPorts: v.unknown() }),
  window: v.optional(placeShape),
})
const format2Shape = v.looseObject({ format: v.literal(2), settings: v.looseObject({ choice: v.looseObject({}) }) })
/** What an older one wrote is taken over: 0.1 knew TCP alone and less to narrow it by, and choices come to be added. Anything else passes as it is. */
function fromOlder(value: unknown): unknown {
  const known = v.safeParse(format2Shape, value)
  if (known.success) return { ...known.output, settings: { ...known.output.settings, choice: { ...defaultChoice, ...known.output.settings.choice } } }
  const old = v.safeParse(format1Shape, value)
  if (!old.success) return value
  const { settings: { choice: { tcp, ...choice }, ...settings }, ...file } = old.output
  return { ...file, format: 2, settings: { ...settings, choice: { ...defaultChoice, ...choice, ports: tcp } } }
}

function putAside(path: string): { setAside?: string } {
  const aside = `${path}.damaged-${new Date().toISOString().replace(/[:.]/g, '')}`
  try {
    renameSync(path, aside)
    return { setAside: aside }
  } catch {
    return {}
  }
}

function writeWhole(path: string, text: string): void {
  const draft = `${path}.new`
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  rmSync(draft, { force: true })
  const file = openSync(draft, 'wx', 0o600)
  try {
    writeSync(file, text)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
  renameSync(draft, path)
}
