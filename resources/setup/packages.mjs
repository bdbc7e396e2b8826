// Debian packages by what they are for. Named here once, used by start, test, bench and package.

/** To build the relay. */
export const forBuilding = ['g++', 'cmake', 'ninja-build']
/** To run the gate: rules, namespaces, elevation. */
export const forRunning = ['nftables', 'iptables', 'iproute2', 'util-linux', 'procps']
/** What Electron's binary links to. */
export const forElectron = [
  'libgtk-3-0', 'libnss3', 'libasound2', 'libgbm1', 'libxss1', 'libxtst6', 'libdrm2', 'libatk-bridge2.0-0', 'libcups2', 'libnotify4',
  'fonts-dejavu-core',
]
/** The laboratory's real programs. */
export const forDemo = ['curl', 'git', 'nginx-light', 'redis-server', 'redis-tools', 'chromium', 'tshark', 'openssl', 'fcgiwrap', 'bind9-dnsutils', 'dnsmasq-base', 'ngtcp2-client', 'ngtcp2-server']
/** What the tests need besides all that. */
export const forTesting = [
  'xvfb', 'xauth', 'dbus', 'dbus-x11', 'libglib2.0-bin', 'polkitd', 'pkexec', 'xfce4-panel', 'imagemagick', 'x11-utils', 'xdotool', 'socat', 'netcat-openbsd', 'clang-14', 'libclang-rt-14-dev', 'llvm-14',
  'conntrack', 'groff-base', 'haproxy', 'iputils-ping', 'microsocks', 'squid',
  'iperf3', 'openssh-client', 'openssh-server', 'postgresql-15',
]
/** Peers of the benchmark. */
export const forBench = ['haproxy', 'squid', 'mitmproxy']
