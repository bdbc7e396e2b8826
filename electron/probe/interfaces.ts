import { readFile } from 'node:fs/promises'

/**
 * Names of this network namespace's interfaces, up or down, sorted. From /proc/net/dev and not /sys/class/net, which goes on showing the namespace it
 * was mounted in (inside `ip netns exec` or `nsenter --net` that is another one).
 */
export async function listInterfaces(): Promise<string[]> {
  // Two header lines, then "  name: counters".
  const lines = (await readFile('/proc/net/dev', 'utf8')).split('\n').slice(2)
  return lines.flatMap((line) => /^\s*([^\s:]+):/.exec(line)?.[1] ?? []).sort()
}
