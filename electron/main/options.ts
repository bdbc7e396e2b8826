import { resolve } from 'node:path'

/** What the app understands on its command line; everything else (Chromium's and Electron's own switches) is passed over. */
export interface AppOptions {
  /** Told by the start script: the app runs inside the laboratory. */
  readonly demo: boolean
  /** Folder new sessions are made in; undefined: the person's own. */
  readonly sessions?: string
  readonly userData?: string
  /** A session folder to show at the start. */
  readonly open?: string
  readonly version: boolean
}

/**
 * @param argv as process.argv, the program first
 * @param folder what relative paths are relative to
 */
export function parseOptions(argv: readonly string[], folder: string): AppOptions {
  let sessions: string | undefined
  let userData: string | undefined
  let open: string | undefined
  const valueOf = (word: string, index: number, name: string): string | undefined => {
    if (word.startsWith(`${name}=`)) return word.slice(name.length + 1)
    const next = argv[index + 1]
    return word === name && next !== undefined && !next.startsWith('--') ? next : undefined
  }
  for (let index = 1; index < argv.length; index++) {
    const word = argv[index] ?? ''
    sessions = valueOf(word, index, '--sessions') ?? sessions
    userData = valueOf(word, index, '--user-data-dir') ?? userData
    if (/\.sluice\/*$/.test(word) && !word.startsWith('-') && argv[index - 1] !== '--sessions') open = word
  }
  const path = (text: string | undefined): string | undefined => (text === undefined || text === '' ? undefined : resolve(folder, text))
  const [sessionsPath, userDataPath, openPath] = [path(sessions), path(userData), path(open)]
  return {
    demo: argv.includes('--demo'),
    version: argv.includes('--version'),
    ...(sessionsPath === undefined ? {} : { sessions: sessionsPath }),
    ...(userDataPath === undefined ? {} : { userData: userDataPath }),
    ...(openPath === undefined ? {} : { open: openPath }),
  }
}
