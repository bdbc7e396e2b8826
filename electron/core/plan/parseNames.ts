import { Failure } from '../contract/failure.ts'

/**
 * An interface's name, or a beginning with `*` (`veth*`). Narrower than the kernel's own rule (dev_valid_name: at most 15 bytes, no slash, colon or
 * white space) because it goes into rule text: what nft or iptables could read as syntax (quotes, `+`, a leading dash) is refused.
 * @throws Failure `bad-interface`
 */
export function parseInterface(name: string): string {
  const shown = JSON.stringify(name.slice(0, 40))
  if (name.length > 15) throw new Failure('bad-interface', `${shown} is longer than an interface's name can be (15 characters)`)
  if (!/^[A-Za-z0-9_.@][A-Za-z0-9_.@-]*\*?$/.test(name) || name === '.' || name === '..') throw new Failure('bad-interface', `${shown} is no name of an interface`)
  if (name === 'lo') throw new Failure('bad-interface', 'lo carries this computer\'s own traffic: choose the scope "local" for it')
  return name
}

/**
 * A cgroup v2 path below the hierarchy's root, slashes at its ends taken off. systemd escapes what is odd as `\x2d`, so letters, digits and `_ . @ : - \`
 * are all that occurs.
 * @throws Failure `bad-cgroup`
 */
export function parseCgroup(path: string): string {
  const shown = JSON.stringify(path.slice(0, 80))
  const trimmed = path.replace(/^\/sys\/fs\/cgroup(?=\/)/, '').replace(/^\/+|\/+$/g, '')
  if (trimmed === '') throw new Failure('bad-cgroup', `${shown} is the root of all cgroups: leave the choice out to mean every program`)
  for (const segment of trimmed.split('/')) {
    if (segment.length > 255 || segment === '.' || segment === '..' || !/^[A-Za-z0-9_.@:\\-]+$/.test(segment)) throw new Failure('bad-cgroup', `${shown} is no cgroup path like user.slice/user-1000.slice`)
  }
  return trimmed
}
