import { fileURLToPath } from 'node:url'

import { Failure, toFailureReport } from '#core/contract/failure.ts'

import { logAction, logFor } from './actionLog.ts'
import { findPlaces } from '#probe/places.ts'

import { cleanUp } from './cleanUp.ts'
import { runInNamespace } from './enterNamespace.ts'
import { findPerson, personUid } from './findPerson.ts'
import { runGuard } from './guard.ts'
import { previewChange } from './previewChange.ts'
import { serveHelper } from './helperService.ts'
import { installPermission, removePermission } from './installPermission.ts'
import { OpenGate } from './openGate.ts'
import { toolEnvironment } from './runTool.ts'

/** Root's process: the helper itself (with `--netns` that of another network namespace, as `--entered`), with `--guard` its guard, with `--install` and `--uninstall` the one-off jobs. Everything else it is told comes by lines. */
async function runHelper(): Promise<number> {
  const uid = personUid(process.env, process.getuid?.() ?? -1)
  standClean()
  // Signals that mean "end": everything back first. Ctrl-C reaches the whole foreground group at once, and it is for the app to say whether that means
  // draining; its end ends us by the end of input. SIGUSR1 would open Node's debugger.
  for (const signal of ['SIGINT', 'SIGUSR1', 'SIGPIPE'] as const) process.on(signal, () => undefined)
  if (process.geteuid?.() !== 0) throw new Failure('no-privilege', 'the helper must run as root')
  const person = await findPerson(uid)
  logFor(person)
  const program = fileURLToPath(import.meta.url)
  const service = serveHelper({
    input: process.stdin,
    output: process.stdout,
    person,
    makeGate: (emit) => new OpenGate({ person, emit, program }),
    cleanup: cleanUp,
    preview: previewChange,
  })
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => service.stop())
  return service.ended
}

/** Nothing of the caller's surroundings: folder, file modes, environment. */
function standClean(): void {
  process.chdir('/')
  process.umask(0o077)
  // eslint-disable-next-line @typescript-eslint/no-dynamic-delete -- the environment itself must lose them, and their names are the caller's
  for (const name of Object.keys(process.env)) delete process.env[name]
  Object.assign(process.env, toolEnvironment)
}

/** A one-off job. What came of it stands in the log, as everything that was done as root. */
async function changePermission(what: string, job: () => readonly string[]): Promise<number> {
  const uid = personUid(process.env, process.getuid?.() ?? -1)
  standClean()
  // Only for the log: a number that nobody bears is told as it is.
  logFor(await findPerson(uid).catch(() => ({ uid, user: String(uid) })))
  try {
    const paths = job()
    logAction({ result: 'ok', text: `${what}: ${paths.length === 0 ? 'nothing was there' : paths.join(', ')}` })
    process.stdout.write(paths.map((path) => `${path}\n`).join(''))
    return 0
  } catch (error) {
    const { message, detail } = toFailureReport(error)
    logAction({ result: 'failed', text: what, said: `${message}${detail === undefined ? '' : `: ${detail}`}` })
    throw error
  }
}

async function run(): Promise<number> {
  switch (process.argv[2]) {
    case '--netns': {
      // Who the person is must be known inside as it was outside.
      const uid = String(personUid(process.env, process.getuid?.() ?? -1))
      standClean()
      process.on('SIGINT', () => undefined)
      if (process.geteuid?.() !== 0) throw new Failure('no-privilege', 'the helper must run as root')
      const runtime: Record<string, string> = findPlaces().runtimeIsElectron ? { ELECTRON_RUN_AS_NODE: '1' } : {}
      return runInNamespace(process.argv[3] ?? '', fileURLToPath(import.meta.url), { ...toolEnvironment, ...runtime, SUDO_UID: uid })
    }
    case '--entered':
    case undefined:
      return runHelper()
    case '--install':
      return changePermission('installed the permission', installPermission)
    case '--uninstall':
      return changePermission('removed the permission', removePermission)
    default:
      throw new Failure('usage', 'the helper takes no such argument')
  }
}

if (process.argv[2] === '--guard') runGuard()
else {
  // Whatever an error nobody foresaw is, the guard takes everything back when this process ends.
  const status = await run().catch((error: unknown) => {
    const { message } = toFailureReport(error)
    process.stderr.write(`sluice-helper: ${message}\n`)
    return 1
  })
  // What was written last must still reach the app; it may be gone, so not for long.
  const leave = (): never => process.exit(status)
  setTimeout(leave, 1000).unref()
  if (process.stdout.writableLength === 0) leave()
  else process.stdout.end(leave)
}
