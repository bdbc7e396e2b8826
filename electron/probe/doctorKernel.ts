import { readFile } from 'node:fs/promises'
import { release } from 'node:os'

import type { DoctorRow } from '#core/contract/bridge.ts'
import type { Backend } from '#core/plan/plan.ts'
import type { ToolFacts } from '#core/rules/machineFacts.ts'
import { listCgroups } from './cgroups.ts'
import type { Check } from './doctorFacts.ts'
import { kernelOptions } from './kernelOptions.ts'
import type { KernelOption, OptionTrial } from './kernelOptions.ts'
import { loadInScratch } from './tryBackend.ts'

const trialText = (backend: Backend, { rule, chain, table }: OptionTrial): string =>
  backend === 'nft'
    ? `add table inet trial\nadd chain inet trial one${chain === undefined ? '' : ` { ${chain} }`}\nadd rule inet trial one ${rule}\n`
    : `*mangle\n:TRIAL - [0:0]\n-A ${table ?? 'TRIAL'} ${rule}\nCOMMIT\n`

/** Names of cgroups come from whoever made them; one that would be syntax is not tried. */
const plainPath = /^[A-Za-z0-9_.@-]+(?:\/[A-Za-z0-9_.@-]+)*$/

/** Each ability of the kernel that our rules use, tried one by one by each tool that is there, in a namespace made for it. */
export const checkKernelOptions: Check = async ({ isRoot, facts }) => {
  const tools = facts.tools.filter((tool) => tool.path !== undefined)
  const cgroups = await listCgroups()
  const plain = cgroups?.paths?.find((path) => plainPath.test(path))
  const path = plain === undefined ? undefined : cgroups?.prefix === '' ? plain : `${cgroups?.prefix ?? ''}/${plain}`
  const options = kernelOptions(plain === undefined || path === undefined ? undefined : { plain, path, level: plain.split('/').length })
  const rows = await Promise.all(options.map((option) => tryOption(option, tools, { isRoot, opens: facts.tools.some(({ usable }) => usable) })))
  return rows.filter((row) => row !== undefined)
}

/** `opens`: the gate can be opened all the same, say by redirecting. */
async function tryOption(option: KernelOption, tools: readonly ToolFacts[], { isRoot, opens }: { readonly isRoot: boolean; readonly opens: boolean }): Promise<DoctorRow | undefined> {
  const tried = await Promise.all(tools.map(async ({ backend }) => {
    const trial = backend === 'nft' ? option.nft : option.iptables
    if (trial === undefined) return undefined
    const refusal = await loadInScratch(backend, trialText(backend, trial), isRoot)
    // Old iptables needs a module that only root may load, so without root its refusal proves nothing.
    return refusal === 'no-scratch' || (refusal !== undefined && backend === 'iptables-legacy' && !isRoot) ? undefined : { backend, trial, refusal }
  }))
  const known = tried.filter((each) => each !== undefined)
  if (known.length === 0) return undefined
  const [able, unable] = [known.filter(({ refusal }) => refusal === undefined), known.filter(({ refusal }) => refusal !== undefined)]
  const row = { id: `kernel-${option.id}`, title: option.title }
  const by = able.map(({ backend }) => backend).join(', ')
  const [first] = unable
  if (first === undefined) return { ...row, verdict: 'ok', fact: `tried by ${by}` }
  const lacks = `${unable.map(({ backend }) => backend).join(', ')} cannot: ${first.refusal ?? ''}`
  // What one tool can is enough; the gate is opened by it.
  if (able.length > 0) return { ...row, verdict: 'ok', fact: `tried by ${by}; ${lacks}` }
  return { ...row, verdict: option.need === 'rules' && !opens ? 'fail' : 'warn', fact: `${option.without} (${lacks})`, mend: await mendOf(first.trial) }
}

/** By what this kernel's own lists of modules say: there to be loaded, or of another package or kernel. */
async function mendOf({ module, config }: OptionTrial): Promise<string> {
  const kernel = release()
  const listed = await Promise.all(['modules.dep', 'modules.builtin'].map((name) => readFile(`/lib/modules/${kernel}/${name}`, 'latin1').catch(() => '')))
  const has = (name: string): boolean => listed.some((text) => new RegExp(`/${name}\\.ko`).test(text))
  const modules = module.split(' ')
  if (modules.every(has)) return `sudo modprobe -a ${module}`
  const missing = modules.filter((name) => !has(name)).join(' ')
  return `this kernel (${kernel}) comes without ${missing} (${config}): on Ubuntu sudo apt install linux-modules-extra-${kernel}, else a kernel built with it`
}

