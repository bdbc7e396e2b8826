import type { DoctorRow } from '#core/contract/bridge.ts'
import { checkKernelOptions } from './doctorKernel.ts'
import { checkBuffers, checkConntrack, checkFileLimit, checkLocalPorts } from './doctorLoad.ts'
import { checkCgroups, checkConfinement, checkDisk, checkPrivilege, checkPrograms } from './doctorOurs.ts'
import { checkFirewall, checkForeignProxies, checkLeftovers, checkManagers } from './doctorRules.ts'
import { checkBridges, checkForwarding, checkNetworkd, checkPolicyRules, checkReversePath, checkSourceMark } from './doctorRouting.ts'
import { checkTools } from './doctorTools.ts'
import { readMachine } from './doctorFacts.ts'
import type { Check } from './doctorFacts.ts'

/** What is the machine's and the person's, whatever network namespace is looked at. */
const here: readonly Check[] = [checkPrograms, checkPrivilege, checkDisk, checkCgroups, checkFileLimit, checkBuffers, checkConfinement]
/** What a network namespace and the kernel's rules in it say. */
const network: readonly Check[] = [
  checkTools, checkKernelOptions, checkLeftovers, checkPolicyRules, checkFirewall, checkReversePath, checkSourceMark, checkBridges, checkNetworkd, checkManagers, checkForeignProxies, checkForwarding, checkConntrack, checkLocalPorts,
]
const whole: readonly Check[] = [checkPrograms, checkTools, checkKernelOptions, checkPrivilege, ...network.filter((check) => check !== checkTools && check !== checkKernelOptions), ...here.filter((check) => check !== checkPrograms && check !== checkPrivilege)]
const parts = { whole, here, network }

export interface DoctorWish {
  /** Where sessions go; default: where we are. */
  readonly folder?: string
  /** `network`: for a helper in another network namespace, with `here` for who asks it. Default: all of it. */
  readonly part?: keyof typeof parts
}

/**
 * Asks everything that decides whether the gate opens here and works: looks, and tries in namespaces of its own; changes nothing. Rows in the order a
 * person would mend them; `fail`: the gate cannot open, `warn`: something will be missing or slower. Never rejects.
 */
export async function runDoctor({ folder = process.cwd(), part = 'whole' }: DoctorWish = {}): Promise<DoctorRow[]> {
  const machine = await readMachine(folder)
  const rows = await Promise.all(parts[part].map(async (check): Promise<readonly DoctorRow[]> => {
    try {
      return await check(machine)
    } catch (error) {
      // A question that cannot be asked is no verdict about the machine.
      const fact = `could not be asked: ${error instanceof Error ? error.message : String(error)}`
      const id = check.name.replace(/^check/, '').toLowerCase()
      return [{ id, title: check.name.replace(/^check/, ''), verdict: 'warn', fact }]
    }
  }))
  return rows.flat()
}
