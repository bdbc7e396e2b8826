#!/usr/bin/env node
// The command, from a checkout or an installed package: runs build/node/cli.mjs in this process. In a checkout it is built first where sources changed.
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
const bundle = join(root, 'build', 'node', 'cli.mjs')

/** One line and status 1: no stack for a person. */
function fail(text) {
  process.stderr.write(`sluice: ${text}\n`)
  process.exit(1)
}

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major < 20 || (major === 20 && minor < 19)) fail(`Node 20.19 or newer is needed, this is ${process.versions.node}`)

// A package has no sources and nothing to build.
if (existsSync(join(root, 'electron', 'cli', 'main.ts')) && existsSync(join(root, 'resources', 'setup', 'build.mjs'))) {
  try {
    const { ensureModules } = await import('../setup/lib.mjs')
    const { buildNative, buildNode } = await import('../setup/build.mjs')
    await ensureModules()
    await buildNode()
    // Only a recording needs the relay.
    if (['capture', 'run'].includes(process.argv[2])) await buildNative()
  } catch (error) {
    const why = String(error?.message ?? error).split('\n', 1)[0]
    // Another person's checkout, or a read-only one: what was built last still runs.
    if (existsSync(bundle) && ['EACCES', 'EROFS', 'EPERM'].includes(error?.code)) process.stderr.write(`sluice: it may be older than its sources, which cannot be built here (${error.code})\n`)
    else fail(`it could not be built: ${why}`)
  }
}
if (!existsSync(bundle)) fail(`${bundle} is missing`)
await import(pathToFileURL(bundle).href)
