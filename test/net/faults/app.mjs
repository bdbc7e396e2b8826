// Stands for the app: starts the helper (its arguments) and holds both ends of the channel, so that the app can be killed or frozen apart from the helper and the test.
import { spawn } from 'node:child_process'

const [command, ...args] = process.argv.slice(2)
const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], detached: true })
child.stdin.on('error', () => undefined)
process.stdout.on('error', () => undefined)
process.stdin.pipe(child.stdin)
child.stdout.pipe(process.stdout)
child.on('close', (code) => process.exit(code ?? 1))
