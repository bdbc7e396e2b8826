// Bundles for Node (helper, inspector, command) and for Electron (main as ESM, preload as CJS, which a sandboxed page needs).
// What has native parts (libsql) or is Electron itself stays outside; everything else goes in.
import { builtinModules } from 'node:module'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { defineConfig } from 'vite'

const root = join(import.meta.dirname, '..', '..')
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const outside = ['electron', 'libsql', ...builtinModules, ...builtinModules.map((name) => `node:${name}`)]
const kinds = {
  node: {
    folder: 'build/node',
    format: 'es',
    ending: 'mjs',
    input: { cli: 'electron/cli/main.ts', inspector: 'electron/session/main.ts', demo: 'test/lab/demo/main.ts', bench: 'test/bench/main.ts', soak: 'test/bench/soak.ts', cost: 'test/bench/cost.ts' },
  },
  // One file, whatever it shares with others: it can be copied to a folder of root's.
  helper: { folder: 'build/node', format: 'es', ending: 'mjs', input: { helper: 'electron/helper/main.ts' } },
  main: { folder: 'build/main', format: 'es', ending: 'js', input: { main: 'electron/main/main.ts' } },
  preload: { folder: 'build/main', format: 'cjs', ending: 'cjs', input: { preload: 'electron/preload/preload.ts' } },
}

export default defineConfig(({ mode }) => {
  const kind = kinds[mode]
  const input = Object.fromEntries(
    Object.entries(kind.input)
      .map(([name, path]) => [name, join(root, path)])
      .filter(([, path]) => existsSync(path)),
  )
  return {
    root,
    configFile: false,
    publicDir: false,
    define: { __SLUICE_VERSION__: JSON.stringify(version) },
    ssr: { noExternal: true, external: ['electron', 'libsql'], target: 'node' },
    build: {
      ssr: true,
      target: 'node20',
      outDir: join(root, kind.folder),
      // A running Sluice may still read the old files.
      emptyOutDir: false,
      minify: false,
      sourcemap: true,
      rollupOptions: {
        input,
        external: outside,
        output: {
          format: kind.format,
          entryFileNames: `[name].${kind.ending}`,
          chunkFileNames: `shared-[name].${kind.ending}`,
          ...(mode === 'node' || mode === 'main' ? {} : { codeSplitting: false }),
        },
      },
    },
  }
})
