import { execFile } from 'node:child_process'

/** Runs a program to its end; rejects with what it said when it fails. */
export function run(program: string, args: readonly string[], options: { readonly env?: NodeJS.ProcessEnv; readonly timeout?: number } = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { encoding: 'utf8', timeout: options.timeout ?? 30_000, maxBuffer: 64 << 20, env: options.env ?? process.env }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout)
      else reject(new Error(`${program} ${args.join(' ')}: ${error.message} ${stderr}`))
    })
  })
}
