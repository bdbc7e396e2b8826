// What the set-up scripts share: running programs with their output shown, asking what is installed, telling progress. Plain JavaScript
// without dependencies, because it runs before npm has installed any.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync, mkdirSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createInterface } from 'node:readline/promises'

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')

export class SetupError extends Error {}

/** One line of progress. */
export function say(text) {
  process.stderr.write(`sluice: ${text}\n`)
}

/** Ends the script with one line and exit 1 when a SetupError was thrown; anything else keeps its stack. */
export async function main(work) {
  try {
    const code = await work()
    if (typeof code === 'number') process.exitCode = code
  } catch (error) {
    if (error instanceof SetupError) {
      process.stderr.write(`sluice: ${error.message}\n`)
      process.exitCode = 1
    } else throw error
  }
}

/** Runs a program, output shown; resolves to its exit code. Interrupts reach it because it shares the terminal. */
export function run(program, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'inherit', cwd: root, ...options })
    child.on('error', (error) => reject(new SetupError(`cannot start ${program}: ${error.message}`)))
    child.on('exit', (code, signal) => resolve(signal ? 128 : (code ?? 1)))
  })
}

/** Runs quietly; on failure shows what it printed. `timeoutMinutes` bounds it. */
export async function runQuietly(title, program, args, options = {}) {
  const { timeoutMinutes = 15, ...rest } = options
  const started = Date.now()
  const output = []
  const code = await new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: root, ...rest })
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMinutes * 60_000)
    const tick = process.stderr.isTTY
      ? setInterval(() => process.stderr.write(`\rsluice: ${title} … ${Math.round((Date.now() - started) / 1000)} s`), 1000)
      : undefined
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => output.push(data))
    child.on('error', (error) => {
      clearTimeout(timer)
      clearInterval(tick)
      reject(new SetupError(`cannot start ${program}: ${error.message}`))
    })
    child.on('close', (status, signal) => {
      clearTimeout(timer)
      clearInterval(tick)
      if (tick) process.stderr.write('\r')
      resolve(signal ? 128 : (status ?? 1))
    })
  })
  if (code !== 0) {
    process.stderr.write(Buffer.concat(output).toString())
    throw new SetupError(`${title} failed (exit ${code}); what it printed stands above`)
  }
  say(`${title}: done in ${((Date.now() - started) / 1000).toFixed(1)} s`)
}

export function isDebianLike() {
  return existsSync('/usr/bin/dpkg-query') && existsSync('/usr/bin/apt-get')
}

/** Which of these Debian packages are not installed. */
export function missingPackages(names) {
  const found = spawnSync('/usr/bin/dpkg-query', ['-W', '-f', '${Package} ${db:Status-Status}\n', ...names], { encoding: 'utf8' })
  const installed = new Set(
    found.stdout
      .split('\n')
      .filter((line) => line.endsWith(' installed'))
      .map((line) => line.split(' ')[0]),
  )
  return names.filter((name) => !installed.has(name))
}

/**
 * Installs what is missing: at once when root, after asking on a terminal otherwise (through sudo). `need` says what for.
 */
export async function ensurePackages(names, need) {
  if (!isDebianLike()) {
    say(`this is no Debian-like system; ${need} wants what Debian calls: ${names.join(' ')}`)
    return
  }
  const missing = missingPackages(names)
  if (missing.length === 0) return
  const asRoot = process.getuid() === 0
  if (!asRoot) {
    const command = `sudo apt-get install --no-install-recommends ${missing.join(' ')}`
    if (!process.stdin.isTTY) throw new SetupError(`${need} wants Debian packages that are not installed; run: ${command}`)
    const terminal = createInterface({ input: process.stdin, output: process.stderr })
    const answer = await terminal.question(`${need} wants ${missing.join(', ')}. Run "${command}" now? [Y/n] `)
    terminal.close()
    if (/^n/i.test(answer.trim())) throw new SetupError(`not installed; run it yourself: ${command}`)
  }
  const elevated = (args) => (asRoot ? [args[0], args.slice(1)] : ['sudo', args])
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  say(`installing Debian packages for ${need}: ${missing.join(' ')}`)
  const install = ['apt-get', 'install', '-y', '-qq', '--no-install-recommends', ...missing]
  const [program, args] = elevated(install)
  const first = spawnSync(program, args, { env, stdio: ['inherit', 'ignore', 'pipe'], encoding: 'utf8' })
  if (first.status === 0) return
  // Lists may be old or absent (a fresh machine): refresh them and try once more.
  await runQuietly('refreshing the package lists', ...elevated(['apt-get', 'update', '-qq']), { env })
  await runQuietly('installing Debian packages', program, args, { env })
}

/** npm packages as the lock file says; does nothing when the lock file was installed already. */
export async function ensureModules() {
  const lock = readFileSync(join(root, 'package-lock.json'))
  const stamp = join(root, 'node_modules', '.sluice-installed')
  const wanted = createHash('sha256').update(lock).update(process.version).digest('hex')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return
  await runQuietly('installing npm packages', 'npm', ['ci', '--no-audit', '--no-fund'], {
    env: { ...process.env, ELECTRON_SKIP_BINARY_DOWNLOAD: '1' },
  })
  writeFileSync(stamp, wanted)
}

/** Every file below these folders or files (relative to the root), sorted. */
export function filesBelow(paths) {
  const files = []
  const visit = (path) => {
    const full = join(root, path)
    if (!existsSync(full)) return
    if (statSync(full).isDirectory()) {
      for (const name of readdirSync(full).sort()) {
        if (name === 'node_modules' || name === 'build' || name.startsWith('build-')) continue
        visit(join(path, name))
      }
    } else files.push(path)
  }
  for (const path of paths) visit(path)
  return files
}

/** A digest of the content of these files: what a build was made from. */
export function digestOf(paths) {
  const hash = createHash('sha256')
  for (const file of filesBelow(paths)) hash.update(file).update('\0').update(readFileSync(join(root, file))).update('\0')
  return hash.digest('hex')
}

/** Runs `work` unless the stamp says it was done for the same sources and `results` are there. */
export async function unlessDone(name, sources, results, work) {
  const folder = join(root, 'build')
  mkdirSync(folder, { recursive: true })
  const stamp = join(folder, `.stamp-${name}`)
  const digest = digestOf(sources)
  const done = existsSync(stamp) && readFileSync(stamp, 'utf8') === digest && results.every((path) => existsSync(join(root, path)))
  if (done) return false
  await work()
  writeFileSync(stamp, digest)
  return true
}

export function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds))
}
