import { run } from './run.ts'

/** One entry of a tray menu as the desktop sees it. */
export interface TrayEntry {
  readonly id: number
  readonly label: string
  readonly enabled: boolean
  readonly checked: boolean
  readonly separator: boolean
  readonly children: readonly TrayEntry[]
}

/**
 * The app's tray as a desktop speaks with it: StatusNotifierItem and com.canonical.dbusmenu over the session bus. No mouse, no pixels.
 */
export class TrayClient {
  readonly #env: NodeJS.ProcessEnv
  constructor(env: Record<string, string>) {
    this.#env = { ...process.env, ...env }
  }

  #call(dest: string, path: string, method: string, ...args: readonly string[]): Promise<string> {
    return run('gdbus', ['call', '--session', '--timeout', '10', '--dest', dest, '--object-path', path, '--method', method, ...args], { env: this.#env })
  }

  /** Items registered with the desktop, as "NAME/PATH". */
  async items(): Promise<string[]> {
    const answer = await this.#call('org.kde.StatusNotifierWatcher', '/StatusNotifierWatcher', 'org.freedesktop.DBus.Properties.Get', 'org.kde.StatusNotifierWatcher', 'RegisteredStatusNotifierItems')
    return [...answer.matchAll(/'([^']+)'/g)].map((match) => match[1] ?? '')
  }

  async #item(): Promise<{ dest: string; path: string }> {
    const [item] = await this.items()
    if (item === undefined) throw new Error('no tray item is registered')
    const slash = item.indexOf('/')
    return slash < 0 ? { dest: item, path: '/StatusNotifierItem' } : { dest: item.slice(0, slash), path: item.slice(slash) }
  }

  async property(name: string): Promise<string> {
    const { dest, path } = await this.#item()
    return this.#call(dest, path, 'org.freedesktop.DBus.Properties.Get', 'org.kde.StatusNotifierItem', name)
  }

  async #menu(): Promise<{ dest: string; path: string }> {
    const { dest } = await this.#item()
    const answer = await this.property('Menu')
    const path = /'([^']+)'/.exec(answer)?.[1] ?? '/com/canonical/dbusmenu'
    return { dest, path }
  }

  async entries(): Promise<readonly TrayEntry[]> {
    const { dest, path } = await this.#menu()
    const answer = await this.#call(dest, path, 'com.canonical.dbusmenu.GetLayout', '0', '--', '-1', '@as []')
    return parseLayout(answer).children
  }

  /** Clicks the entry whose label matches, in submenus too. */
  async click(label: RegExp): Promise<void> {
    const { dest, path } = await this.#menu()
    const all = flatten(await this.entries())
    const entry = all.find((each) => label.test(each.label))
    if (entry === undefined) throw new Error(`no entry ${String(label)} among ${all.map((each) => each.label).join(' | ')}`)
    await this.#call(dest, path, 'com.canonical.dbusmenu.Event', String(entry.id), 'clicked', '<int32 0>', '0')
  }

  async labels(): Promise<string[]> {
    return flatten(await this.entries())
      .filter((entry) => !entry.separator)
      .map((entry) => entry.label)
  }
}

export function flatten(entries: readonly TrayEntry[]): TrayEntry[] {
  return entries.flatMap((entry) => [entry, ...flatten(entry.children)])
}

/** Reads GVariant's text of (u(ia{sv}av)), as far as GetLayout needs. */
function parseLayout(text: string): TrayEntry {
  let at = text.indexOf('(', 1)
  const skip = (): void => {
    while (/[\s,]/.test(text[at] ?? '')) at++
  }
  const expect = (mark: string): void => {
    skip()
    if (!text.startsWith(mark, at)) throw new Error(`expected ${mark} at ${text.slice(at, at + 60)}`)
    at += mark.length
  }
  const peek = (): string => {
    skip()
    return text[at] ?? ''
  }
  const quoted = (): string => {
    skip()
    const quote = text[at]
    let value = ''
    for (at++; at < text.length && text[at] !== quote; at++) {
      if (text[at] === '\\') at++
      value += text[at] ?? ''
    }
    at++
    return value
  }
  /** A value inside <…>, as raw text or string. */
  const variant = (): string => {
    expect('<')
    let value = ''
    if (peek() === "'" || peek() === '"') value = quoted()
    else {
      for (let depth = 1; ; at++) {
        const letter = text[at]
        if (letter === undefined) throw new Error('cut')
        if (letter === '<') depth++
        if (letter === '>' && --depth === 0) break
        value += letter
      }
    }
    expect('>')
    return value
  }
  const entry = (): TrayEntry => {
    expect('(')
    skip()
    const id = /^-?\d+|^int32 -?\d+/.exec(text.slice(at))?.[0] ?? ''
    at += id.length
    skip()
    const properties = new Map<string, string>()
    if (text.startsWith('@a{sv} ', at)) at += 7
    expect('{')
    while (peek() !== '}') {
      const key = quoted()
      expect(':')
      properties.set(key, variant())
    }
    expect('}')
    skip()
    if (text.startsWith('@av ', at)) at += 4
    expect('[')
    const children: TrayEntry[] = []
    while (peek() !== ']') {
      expect('<')
      children.push(entry())
      expect('>')
    }
    expect(']')
    expect(')')
    return {
      id: Number(id.replace('int32 ', '')),
      label: (properties.get('label') ?? '').replaceAll('__', '_'),
      enabled: properties.get('enabled') !== 'false',
      checked: /\b1$/.test(properties.get('toggle-state') ?? ''),
      separator: properties.get('type') === 'separator',
      children,
    }
  }
  return entry()
}
