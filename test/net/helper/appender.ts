import { createInterface } from 'node:readline'

import { appendTurning } from '#helper/appendTurning.ts'

// A process that appends so many entries each time it is told to, and says how it went.
const [path = '', name = '', limit = '', count = ''] = process.argv.slice(2)
createInterface({ input: process.stdin }).on('line', (round) => {
  try {
    for (let entry = 1; entry <= Number(count); entry += 1) appendTurning(path, `entry ${name} ${round} ${String(entry)}\n`, Number(limit))
    process.stdout.write(`done ${round}\n`)
  } catch (error) {
    process.stdout.write(`failed ${round} ${error instanceof Error ? error.message : String(error)}\n`)
  }
})
