// npm run package: release packages by electron-builder, into dist/.
//   npm run package -- [--dir] [--targets deb,AppImage,tar.gz] [--fallback]
// Releases carry the pinned Electron below. Where its binary cannot be downloaded, `--fallback` packs the Electron that development
// uses, so that the packaging itself can still be tried; such a package is not for release.
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { buildAll } from './build.mjs'
import { findElectron } from './electron.mjs'
import { ensureModules, main, root, say, SetupError } from './lib.mjs'

/** The Electron of release builds. */
export const releaseElectron = '45.4.1'

function config({ electronVersion, electronDist }) {
  return {
    appId: 'org.sluice.Sluice',
    productName: 'Sluice',
    electronVersion,
    ...(electronDist ? { electronDist } : {}),
    directories: { output: 'dist', buildResources: 'resources' },
    npmRebuild: false,
    publish: null,
    asar: true,
    files: [
      'build/main/**', 'build/renderer/**', 'build/node/{cli,helper,inspector}.mjs', 'build/node/shared-*.mjs', 'resources/icons/**', 'resources/polkit/**', 'package.json',
      '!**/*.map', '!node_modules/@libsql/*-musl/**',
    ],
    // Programs that other processes start, and what has native parts, must be real files.
    asarUnpack: ['build/node/**', 'resources/polkit/**', 'node_modules/{libsql,@libsql,@neon-rs,detect-libc}/**'],
    extraResources: ['sluice-relay', 'sluice-confine'].map((name) => ({ from: `native/build/${name}`, to: `bin/${name}` })),
    // runAsNode stays on: helper, inspector and command are Node programs run by this same binary.
    electronFuses: { runAsNode: true, enableNodeOptionsEnvironmentVariable: false, enableNodeCliInspectArguments: false, onlyLoadAppFromAsar: true },
    linux: {
      target: ['deb', 'AppImage', 'tar.gz'],
      category: 'Network',
      icon: 'resources/icons',
      executableName: 'sluice',
      maintainer: 'Sluice <sluice@localhost>',
      synopsis: 'Shows what any port on this machine is saying',
    },
    deb: {
      depends: ['nftables | iptables', 'iproute2', 'util-linux', 'libgtk-3-0', 'libnss3', 'libasound2', 'libgbm1'],
      recommends: ['pkexec | policykit-1'],
      fpm: ['resources/polkit/org.sluice.policy=/usr/share/polkit-1/actions/org.sluice.policy', 'resources/man/sluice.1=/usr/share/man/man1/sluice.1'],
    },
  }
}

await main(async () => {
  const { values } = parseArgs({ options: { dir: { type: 'boolean' }, targets: { type: 'string' }, fallback: { type: 'boolean' } } })
  await ensureModules()
  await buildAll()
  const { build, Platform } = await import('electron-builder')
  let electron = { electronVersion: releaseElectron }
  if (values.fallback) {
    const found = await findElectron({ dist: true })
    electron = { electronVersion: found.version, electronDist: found.dist }
    say(`packing Electron ${found.version} of development, not the pinned ${releaseElectron}: not for release`)
  }
  rmSync(join(root, 'dist'), { recursive: true, force: true })
  const targets = values.dir ? ['dir'] : values.targets?.split(',')
  try {
    const made = await build({ targets: Platform.LINUX.createTarget(targets), config: config(electron), projectDir: root })
    for (const path of made) say(`made ${path.startsWith(root) ? path.slice(root.length + 1) : path}`)
    if (values.dir) say('made dist/linux-unpacked')
  } catch (error) {
    throw new SetupError(`packaging failed: ${error.message}${values.fallback ? '' : ' (no network for Electron? try --fallback)'}`)
  }
})
