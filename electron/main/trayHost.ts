import { execFile } from 'node:child_process'
import { accessSync, constants } from 'node:fs'

const watcher = 'org.kde.StatusNotifierWatcher'
const property = 'IsStatusNotifierHostRegistered'
/** Programs that can ask the session bus; one of them comes with every desktop. */
const askers: readonly (readonly string[])[] = [
  ['/usr/bin/gdbus', 'call', '--session', '--timeout', '2', '--dest', watcher, '--object-path', '/StatusNotifierWatcher', '--method', 'org.freedesktop.DBus.Properties.Get', watcher, property],
  ['/usr/bin/busctl', '--user', '--timeout=2', 'get-property', watcher, '/StatusNotifierWatcher', watcher, property],
  ['/usr/bin/dbus-send', '--session', '--print-reply', '--reply-timeout=2000', `--dest=${watcher}`, '/StatusNotifierWatcher', 'org.freedesktop.DBus.Properties.Get', `string:${watcher}`, `string:${property}`],
]

/**
 * Whether a desktop shows tray icons just now (freedesktop StatusNotifierItem). Asked each time it matters, for panels come and go. False
 * when nobody can be asked: then the window is not hidden where nobody finds it again.
 */
export function hasTrayHost(): Promise<boolean> {
  for (const [program = '', ...args] of askers) {
    try {
      accessSync(program, constants.X_OK)
    } catch {
      continue
    }
    return new Promise((resolve) => {
      execFile(program, args, { timeout: 3000, encoding: 'utf8' }, (error, output) => resolve(error === null && /\btrue\b/.test(output)))
    })
  }
  return Promise.resolve(false)
}
