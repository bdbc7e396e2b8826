import { join } from 'node:path'
import { Menu, nativeImage, nativeTheme, Tray, type MenuItemConstructorOptions } from 'electron'

import { type TrayAction, type TrayFace, type TrayItem } from './trayMenu.ts'

export interface AppTray {
  show(face: TrayFace): void
  destroy(): void
}

/** The least time between two menus: desktops redraw the whole menu for each. */
const menuInterval = 500

/**
 * The icon near the clock. Where no desktop shows it, making it is harmless.
 * @param icons folder of the icons: tray-STATE-PANEL.png, PANEL being the panel's shade
 */
export function createTray(icons: string, act: (action: TrayAction) => void): AppTray {
  const shade = panelShade()
  const image = (icon: TrayFace['icon']): Electron.NativeImage => nativeImage.createFromPath(join(icons, `tray-${icon}-${shade}.png`))
  let icon: TrayFace['icon'] = 'closed'
  const tray = new Tray(image(icon))
  tray.on('click', () => act({ do: 'show' }))

  let shownItems = ''
  let tooltip = ''
  let waiting: TrayFace | undefined
  let timer: NodeJS.Timeout | undefined
  let lastMenu = 0

  const template = (items: readonly TrayItem[]): MenuItemConstructorOptions[] =>
    items.map((item) => {
      if (item.type === 'separator') return { type: 'separator' }
      const { action } = item
      return {
        label: item.label.replaceAll('&', '&&'),
        enabled: item.enabled ?? true,
        ...(item.type === undefined ? {} : { type: item.type }),
        ...(item.checked === undefined ? {} : { checked: item.checked }),
        ...(item.items === undefined ? {} : { submenu: template(item.items) }),
        ...(action === undefined ? {} : { click: () => act(action) }),
      }
    })
  const setMenu = (face: TrayFace): void => {
    const items = JSON.stringify(face.items)
    if (items === shownItems) return
    shownItems = items
    lastMenu = Date.now()
    tray.setContextMenu(Menu.buildFromTemplate(template(face.items)))
  }
  return {
    show(face) {
      if (face.icon !== icon) {
        icon = face.icon
        tray.setImage(image(icon))
      }
      if (face.tooltip !== tooltip) {
        tooltip = face.tooltip
        tray.setToolTip(tooltip)
      }
      waiting = face
      if (timer !== undefined) return
      const wait = lastMenu + menuInterval - Date.now()
      if (wait <= 0) {
        setMenu(face)
        return
      }
      timer = setTimeout(() => {
        timer = undefined
        if (waiting !== undefined) setMenu(waiting)
      }, wait)
    },
    destroy() {
      clearTimeout(timer)
      tray.destroy()
    },
  }
}

/** GNOME's and Unity's panels are dark in either theme; elsewhere the panel follows the system's. Read before a theme of our own is set. */
function panelShade(): 'dark' | 'light' {
  const desktop = process.env['XDG_CURRENT_DESKTOP'] ?? ''
  return /GNOME|Unity/i.test(desktop) || nativeTheme.shouldUseDarkColors ? 'dark' : 'light'
}

