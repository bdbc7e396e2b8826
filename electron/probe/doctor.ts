import type { DoctorRow } from '#core/contract/bridge.ts'
import { checkConfinement, checkFileLimit, checkPrivilege, checkPrograms } from './doctorOurs.ts'
import { checkFirewall, checkForeignProxies, checkLeftovers } from './doctorRules.ts'
import { checkBridges, checkForwarding, checkNetworkd, checkPolicyRules, checkSourceMark } from './doctorRouting.ts'
import { checkTools } from './doctorTools.ts'
import { readMachine } from './doctorFacts.ts'

/**
 * Asks everything that decides whether the gate opens here and works: looks, and tries in namespaces of its own; changes nothing. Rows in the order a
 * person would mend them; `fail`: the gate cannot open, `warn`: something will be missing or slower. Never rejects.
 */
export async function runDoctor(): Promise<DoctorRow[]> {
  const machine = await readMachine()
  const checks = [
    checkPrograms, checkTools, checkPrivilege, checkLeftovers, checkPolicyRules, checkFirewall, checkSourceMark, checkBridges, checkNetworkd,
    checkForeignProxies, checkForwarding, checkFileLimit, checkConfinement,
  ]
  const rows = await Promise.all(checks.map(async (check): Promise<readonly DoctorRow[]> => {
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
