import type { InterceptionPlan } from '#core/plan/plan.ts'
import { differencesOf } from '#core/rules/backendDifferences.ts'
import { chooseBackend } from '#core/rules/chooseBackend.ts'
import { compileRules } from '#core/rules/compileRules.ts'
import { describeOpening } from '#core/rules/describeOpening.ts'
import { previewRules } from '#core/rules/previewRules.ts'
import { startHelper } from '#elevate/startHelper.ts'
import type { StartedHelper } from '#elevate/startHelper.ts'
import { digestRules } from '#probe/digestRules.ts'
import { probeMachine } from '#probe/probeMachine.ts'
import type { Command } from './command.ts'
import type { Output } from './output.ts'
import { parseOptions, takePositionals } from './parseOptions.ts'
import { planOf, planShapes } from './planOptions.ts'
import { printable, printableLines } from './printable.ts'
import { colourPatch, unifiedPatch } from './unifiedPatch.ts'

export const planCommand: Command = {
  name: 'plan',
  summary: 'says what opening the gate would do, in words and in rules; changes nothing',
  usage: `sluice plan [--tcp PORTS] [--udp PORTS] [--refuse PORTS] [--udp-idle SECONDS] [--send PORTS=PROXY] [--scope SCOPES] [--iface IF] [--user U] [--cgroup PATH] [--exclude CIDR]
            [--no-hold] [--keep-port] [--backend auto|nft|iptables|iptables-legacy] [--port PORT] [--diff] [--json]

Prints what the gate would intercept and the very rules it would load; needs no privilege and changes nothing.

  --tcp PORTS      ports and ranges: 80,443,8000-8100
  --udp PORTS      the same for UDP
  --send P=PROXY   TCP ports that go to a proxy which runs already: 80,8080=proxy2:127.0.0.1:8888 or 443=proxy2:/run/x.sock (PROXY
                   protocol v2), 1080-1090=socks5:[::1]:1080, 80=tproxy:3129 (Squid's "http_port 3129 tproxy", HAProxy's "transparent")
  --refuse PORTS   UDP ports answered with "port unreachable", so that browsers fall back from QUIC to TCP: --refuse 443
  --udp-idle S     seconds of silence that end a UDP flow, or dns=10,quic=60,other=60 (the defaults)
  --scope SCOPES   local: programs of this computer; forwarded: devices, containers and machines routed through it (these two); incoming: whoever
                   speaks to services of this computer itself, to be named with the others: local,forwarded,incoming
  --iface IF       forwarded and incoming flows that come in here, "veth*" for all that begin so (every interface)
  --source CIDR    only clients with these addresses (every client)
  --exclude-source CIDR  clients to leave alone
  --server CIDR    only servers with these addresses (every server)
  --user U         local flows of this user, by name or number (every user)
  --group G        local flows of programs whose group this is, by name or number (every group)
  --cgroup PATH    local flows of this cgroup, below /sys/fs/cgroup (every one)
  --unit NAME      local flows of this systemd service or scope; of one of the system's services also before it starts
  --container C    local flows of this container, by name or id (of a container with a network of its own only with --netns)
  --exclude CIDR   servers to leave alone
  --no-hold        accepts a TCP client before its server has answered: quicker by a little, but a closed port looks open for a moment
  --keep-port      servers see the devices' own ports too, where those are free here (forwarded TCP)
  --backend B      the tool that loads the rules (auto: nft where it can be used)
  --marks F,L,U    bits to mark packets with, if others use the usual ones (0x2000000,0x10000000,0x80000000)
  --table N        routing table (7701)
  --priority P,O,R priorities of the chains in prerouting and output (nft alone) and of the ip rules, or the first of them (50,-150,0)
  --port PORT      first port the relay tries on loopback (50080)
  --netns N        for another network namespace: a name ip netns lists, or a process in it (asks for permission: only root can look there)
  --diff           what opening would change here now, as a unified diff of what nft (or iptables-save) and ip list; still changes nothing, but
                   asks for permission, as only root can see the rules
  --json           one object: plan, backend, description, texts, digest, differences (what another backend would do otherwise); with --diff also diff, a list of title and patch
Lists may be written with commas, or by giving the option again.`,
  async run(args, output) {
    const { values, positionals } = parseOptions(args, { ...planShapes, netns: { type: 'string' }, diff: { type: 'boolean' }, json: { type: 'boolean' } })
    takePositionals(positionals)
    const plan = await planOf(values)
    const helper = values.netns === undefined && values.diff !== true ? undefined : await startHelper(values.netns === undefined ? {} : { netns: values.netns })
    try {
      await show(output, plan, { helper, diff: values.diff === true, json: values.json === true })
      return 0
    } finally {
      await helper?.end()
    }
  },
}

interface Wish {
  /** To look where only root can. */
  readonly helper: StartedHelper | undefined
  readonly diff: boolean
  readonly json: boolean
}

async function show(output: Output, plan: InterceptionPlan, { helper, diff, json }: Wish): Promise<void> {
  const facts = helper === undefined ? await probeMachine({ privileged: process.geteuid?.() === 0 }) : await helper.request('facts', {})
  const backend = chooseBackend(plan, facts)
  const rules = compileRules(plan, facts)
  const preview = { plan, backend, description: describeOpening(plan, facts), texts: previewRules(rules, plan.relayPort, backend), digest: digestRules(rules), differences: differencesOf(backend, plan) }
  const patches = diff && helper !== undefined ? (await helper.request('preview', { plan })).parts.map((part) => ({ title: part.title, patch: unifiedPatch(part) })) : undefined
  if (json) return output.json(patches === undefined ? preview : { ...preview, diff: patches })
  if (patches !== undefined) {
    const shown = patches.map(({ patch }) => printableLines(patch).join('\n')).join('')
    return output.write(output.hasColour ? colourPatch(shown) : shown)
  }
  for (const sentence of preview.description) await output.line(printable(sentence))
  await output.line(`The rules are loaded by ${backend}. Nothing was changed now.`)
  await output.line(`\n# What another backend would do otherwise, and ${backend} does so`)
  for (const { title, text } of preview.differences) await output.line(`${title} ${text}.`)
  for (const { title, text } of preview.texts) await output.write(`\n# ${title}\n${text.trimEnd().split('\n').map(printable).join('\n')}\n`)
}
