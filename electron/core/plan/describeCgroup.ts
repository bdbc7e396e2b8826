/** `missing`: when the gate opens or a choice is looked at. `ended` and `back`: while it is open. */
export type CgroupNews = 'missing' | 'ended' | 'back'

/** Whose cgroup it is, in a person's words: systemd, Docker, Podman, CRI-O, containerd and LXC write it into the last part of the path. */
export function nameOfCgroup(path: string): { readonly kind: 'unit' | 'container' | 'cgroup'; readonly name: string; readonly byId: boolean } {
  const segments = path.split('/')
  const last = segments.at(-1) ?? ''
  const id = /^(?:docker|libpod|crio|cri-containerd)-([0-9a-f]{12,64})\.scope$/.exec(last)?.[1] ?? /^(?:libpod-)?([0-9a-f]{64})$/.exec(last)?.[1]
  if (id !== undefined) return { kind: 'container', name: id.slice(0, 12), byId: true }
  const named = /^lxc\.payload\.(.+)$/.exec(last)?.[1] ?? /^machine-(.+)\.scope$/.exec(last)?.[1] ?? /^systemd-nspawn@(.+)\.service$/.exec(last)?.[1]
  if (named !== undefined) return { kind: 'container', name: named, byId: false }
  if (/\.(?:service|scope|slice|socket|mount|swap)$/.test(last)) return { kind: 'unit', name: last, byId: false }
  return { kind: 'cgroup', name: path, byId: false }
}

/** A sentence for a person about a chosen cgroup that is not there, or is there again. */
export function saidOfCgroup(path: string, news: CgroupNews): string {
  const { kind, name, byId } = nameOfCgroup(path)
  if (kind === 'cgroup') {
    return news === 'back' ? `There is a cgroup ${name} again: what runs in it is taken.` : `${news === 'ended' ? `The cgroup ${name} is gone` : `There is no cgroup ${name}`}: nothing of it is taken until it is made${news === 'ended' ? ' again' : ''}.`
  }
  const who = `${kind === 'unit' ? 'Unit' : 'Container'} ${name}`
  if (news === 'back') return `${who} has started: it is taken.`
  // Which id one made anew has only its daemon knows; who chose it asks (probe/containerWatch.ts), by what name is not said here.
  return `${who} ${news === 'ended' ? 'has ended' : 'is not running'}: nothing of it is taken until it starts${news === 'ended' ? ' again' : ''}${byId ? '; one made anew has another id, and is taken if it was chosen by its name' : ''}.`
}
