import { join } from 'node:path'
import { execa } from 'execa'

import { findPlaces } from '#probe/places.ts'

/** The load generator, built once per source. Its path. */
export async function buildLoad(): Promise<string> {
  const native = join(findPlaces().root, 'native')
  await execa('cmake', ['--preset', 'release'], { cwd: native })
  await execa('cmake', ['--build', 'build', '--target', 'sluice-load'], { cwd: native })
  return join(native, 'build', 'sluice-load')
}
