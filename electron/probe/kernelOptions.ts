/** How grave it is where a kernel has it not: without it no rules at all, or something is missing. */
export type Need = 'rules' | 'comfort'

/** One ability of the kernel that rules of ours use, and a rule that asks for it alone. */
export interface KernelOption {
  readonly id: string
  readonly title: string
  readonly need: Need
  /** What is missing without it, for a person. */
  readonly without: string
  readonly nft?: OptionTrial
  readonly iptables?: OptionTrial
}
export interface OptionTrial {
  /** Rule text in a chain that nobody enters: of nft without its beginning, of iptables what stands behind `-A CHAIN`. */
  readonly rule: string
  /** Where it belongs; default: a chain without a hook in a table `inet`. */
  readonly chain?: string
  readonly table?: string
  readonly module: string
  readonly config: string
}

/** `cgroup`: one that is there; without, that option cannot be asked. */
export function kernelOptions(cgroup: { readonly path: string; readonly level: number; readonly plain: string } | undefined): KernelOption[] {
  return [
    {
      id: 'tproxy', title: 'Transparent hand-over', need: 'rules', without: 'no flow can be handed to the relay',
      nft: { rule: 'meta l4proto tcp tproxy ip to 127.0.0.1:1 accept', module: 'nft_tproxy', config: 'CONFIG_NFT_TPROXY' },
      iptables: { rule: '-p tcp -j TPROXY --on-ip 127.0.0.1 --on-port 1 --tproxy-mark 0x1/0x1', module: 'xt_TPROXY', config: 'CONFIG_NETFILTER_XT_TARGET_TPROXY' },
    },
    {
      id: 'socket', title: 'Socket match', need: 'rules', without: 'packets of relayed flows cannot be told from others',
      nft: { rule: 'meta l4proto tcp socket transparent 1 accept', module: 'nft_socket', config: 'CONFIG_NFT_SOCKET' },
      iptables: { rule: '-p tcp -m socket --transparent -j ACCEPT', module: 'xt_socket', config: 'CONFIG_NETFILTER_XT_MATCH_SOCKET' },
    },
    {
      id: 'ct', title: 'Connection tracking', need: 'rules', without: 'local flows and UDP cannot be followed',
      nft: { rule: 'ct direction original ct state new ct mark set ct mark | 0x1', module: 'nft_ct', config: 'CONFIG_NFT_CT, CONFIG_NF_CONNTRACK_MARK' },
      iptables: { rule: '-m conntrack --ctdir ORIGINAL -m connmark --mark 0x1/0x1 -j CONNMARK --set-xmark 0x1/0x1', module: 'xt_conntrack xt_connmark', config: 'CONFIG_NETFILTER_XT_MATCH_CONNTRACK, CONFIG_NETFILTER_XT_CONNMARK' },
    },
    {
      id: 'route-type', title: 'Kinds of address', need: 'rules', without: 'this computer’s own addresses cannot be told from others',
      nft: { rule: 'fib daddr type unicast accept', chain: 'type filter hook prerouting priority 0;', module: 'nft_fib_inet', config: 'CONFIG_NFT_FIB_INET' },
      iptables: { rule: '-m addrtype --dst-type UNICAST -j ACCEPT', module: 'xt_addrtype', config: 'CONFIG_NETFILTER_XT_MATCH_ADDRTYPE' },
    },
    {
      id: 'sets', title: 'Lists of ports', need: 'rules', without: 'several ports cannot be asked for at once',
      nft: { rule: 'tcp dport { 80, 443, 8000-8100 } accept', module: 'nf_tables', config: 'CONFIG_NF_TABLES_INET' },
      iptables: { rule: '-p tcp -m multiport --dports 80,443,8000:8100 -j ACCEPT', module: 'xt_multiport', config: 'CONFIG_NETFILTER_XT_MATCH_MULTIPORT' },
    },
    {
      id: 'reject', title: 'Refusal', need: 'rules', without: 'local flows would hang, not be refused, should the relay be gone',
      nft: { rule: 'meta l4proto tcp reject with tcp reset', module: 'nft_reject_inet', config: 'CONFIG_NFT_REJECT_INET' },
    },
    {
      id: 'log', title: 'Packet log', need: 'comfort', without: 'closed ports look open for a moment before they are reset',
      nft: { rule: 'tcp flags & (fin | syn | rst | ack) == syn log group 7 snaplen 160 drop', module: 'nft_log nfnetlink_log', config: 'CONFIG_NFT_LOG, CONFIG_NETFILTER_NETLINK_LOG' },
      iptables: { rule: '-p tcp -m tcp --syn -j NFLOG --nflog-group 7 --nflog-size 160', module: 'xt_NFLOG nfnetlink_log', config: 'CONFIG_NETFILTER_XT_TARGET_NFLOG' },
    },
    {
      id: 'hops', title: 'Hop limit', need: 'comfort', without: 'traceroute by TCP or UDP through this computer sees the server where this computer should be',
      nft: { rule: 'ip ttl < 2 return', module: 'nf_tables', config: 'CONFIG_NF_TABLES' },
      iptables: { rule: '-m ttl --ttl-lt 2 -j RETURN', module: 'xt_hl', config: 'CONFIG_NETFILTER_XT_MATCH_HL' },
    },
    {
      id: 'owner-user', title: 'Users and groups', need: 'comfort', without: '--user and --group cannot be used',
      nft: { rule: 'meta skuid 0 meta skgid 0 accept', chain: 'type route hook output priority 0;', module: 'nft_chain_route', config: 'CONFIG_NF_TABLES' },
      iptables: { rule: '-m owner --uid-owner 0 --gid-owner 0 -j ACCEPT', table: 'OUTPUT', module: 'xt_owner', config: 'CONFIG_NETFILTER_XT_MATCH_OWNER' },
    },
    ...(cgroup === undefined ? [] : [{
      id: 'cgroup', title: 'cgroup match', need: 'comfort', without: '--cgroup, --unit, --container and sluice run cannot be used',
      nft: { rule: `socket cgroupv2 level ${String(cgroup.level)} "${cgroup.path}" accept`, chain: 'type route hook output priority 0;', module: 'nft_socket', config: 'CONFIG_SOCK_CGROUP_DATA (Linux 5.13)' },
      iptables: { rule: `-m cgroup --path ${cgroup.plain} -j ACCEPT`, table: 'OUTPUT', module: 'xt_cgroup', config: 'CONFIG_NETFILTER_XT_MATCH_CGROUP' },
    } satisfies KernelOption]),
  ]
}
