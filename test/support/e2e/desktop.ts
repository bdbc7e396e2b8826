import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'

import { run } from './run.ts'

/** A screen and a session bus of our own, and, if wished, a panel that shows tray icons. */
export interface Desktop {
  readonly display: string
  readonly bus: string
  readonly home: string
  readonly env: Record<string, string>
  startPanel(): Promise<void>
  /** The whole screen as PNG. */
  screenshot(path: string): Promise<void>
  stop(): Promise<void>
}

const size = { width: 1440, height: 900 }

export async function startDesktop(): Promise<Desktop> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-e2e-'))
  const home = join(folder, 'home')
  const runtime = join(folder, 'run')
  mkdirSync(home)
  mkdirSync(runtime, { mode: 0o700 })
  const children: ChildProcess[] = []
  const start = (program: string, args: readonly string[], options: { env?: NodeJS.ProcessEnv; fd3?: boolean } = {}): ChildProcess => {
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'ignore', ...(options.fd3 === true ? (['pipe'] as const) : [])], env: options.env ?? process.env })
    children.push(child)
    return child
  }

  // Xvfb picks a number nobody uses and says which.
  const screen = start('Xvfb', ['-displayfd', '3', '-screen', '0', `${size.width}x${size.height}x24`, '-nolisten', 'tcp', '-ac'], { fd3: true })
  const display = `:${await firstLine(screen, screen.stdio[3] as Readable)}`
  const socket = join(runtime, 'bus')
  writeFileSync(
    join(folder, 'bus.conf'),
    `<busconfig><type>session</type><listen>unix:path=${socket}</listen><auth>EXTERNAL</auth><policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy></busconfig>\n`,
  )
  const bus = start('dbus-daemon', [`--config-file=${join(folder, 'bus.conf')}`, '--nofork', '--nopidfile', '--print-address=3'], { fd3: true })
  await firstLine(bus, bus.stdio[3] as Readable)

  const env = {
    DISPLAY: display,
    DBUS_SESSION_BUS_ADDRESS: `unix:path=${socket}`,
    HOME: home,
    XDG_RUNTIME_DIR: runtime,
    XDG_CONFIG_HOME: join(home, '.config'),
    XDG_CACHE_HOME: join(home, '.cache'),
    XDG_STATE_HOME: join(home, '.local', 'state'),
    XDG_DATA_HOME: join(home, '.local', 'share'),
    // No accessibility bus: it would be started by activation and outlive us.
    NO_AT_BRIDGE: '1',
    GSETTINGS_BACKEND: 'memory',
    LANG: 'C.UTF-8',
  }
  return {
    display,
    bus: env.DBUS_SESSION_BUS_ADDRESS,
    home,
    env,
    async startPanel() {
      const config = join(home, '.config', 'xfce4', 'xfconf', 'xfce-perchannel-xml')
      mkdirSync(config, { recursive: true })
      writeFileSync(join(config, 'xfce4-panel.xml'), panelConfig)
      const panelEnv = { ...process.env, ...env }
      start('/usr/lib/x86_64-linux-gnu/xfce4/xfconf/xfconfd', [], { env: panelEnv })
      await waitForName(env, 'org.xfce.Xfconf')
      start('xfce4-panel', ['--disable-wm-check'], { env: panelEnv })
      await waitForName(env, 'org.kde.StatusNotifierWatcher')
    },
    async screenshot(path) {
      await run('import', ['-display', display, '-window', 'root', path])
    },
    async stop() {
      for (const child of children.reverse()) {
        if (child.exitCode !== null || child.signalCode !== null) continue
        const gone = new Promise((resolve) => child.once('exit', resolve))
        child.kill('SIGTERM')
        const timer = setTimeout(() => child.kill('SIGKILL'), 3000)
        await gone
        clearTimeout(timer)
      }
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
    },
  }
}

/** The first line a program writes; fails when it ends before. */
function firstLine(child: ChildProcess, stream: Readable): Promise<string> {
  return new Promise((resolve, reject) => {
    createInterface({ input: stream }).once('line', resolve)
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`${child.spawnfile} ended with ${String(code)}`)))
  })
}

/** Until somebody on the bus owns a name. */
export async function waitForName(env: Record<string, string>, name: string): Promise<void> {
  await run('gdbus', ['wait', '--session', '--timeout', '20', name], { env: { ...process.env, ...env } })
}

const panelConfig = `<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-panel" version="1.0">
  <property name="configver" type="int" value="2"/>
  <property name="panels" type="array">
    <value type="int" value="1"/>
    <property name="dark-mode" type="bool" value="true"/>
    <property name="panel-1" type="empty">
      <property name="position" type="string" value="p=6;x=0;y=0"/>
      <property name="length" type="uint" value="100"/>
      <property name="position-locked" type="bool" value="true"/>
      <property name="icon-size" type="uint" value="22"/>
      <property name="size" type="uint" value="30"/>
      <property name="plugin-ids" type="array"><value type="int" value="1"/><value type="int" value="2"/><value type="int" value="3"/><value type="int" value="4"/></property>
    </property>
  </property>
  <property name="plugins" type="empty">
    <property name="plugin-1" type="string" value="tasklist"/>
    <property name="plugin-2" type="string" value="separator"><property name="expand" type="bool" value="true"/><property name="style" type="uint" value="0"/></property>
    <property name="plugin-3" type="string" value="systray"><property name="square-icons" type="bool" value="true"/></property>
    <property name="plugin-4" type="string" value="clock"/>
  </property>
</channel>
`
