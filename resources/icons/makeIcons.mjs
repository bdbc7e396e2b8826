// Draws the icons and writes them as PNG: once, by hand, whenever a drawing changes (the PNGs are kept).
//   xvfb-run -a build/electron/runner/electron --no-sandbox resources/icons/makeIcons.mjs
// sluice.svg is the app's; the tray's are drawn here, because they come in four states for two shades of panel.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { app, BrowserWindow } from 'electron'

const folder = import.meta.dirname
const shades = {
  // colours for a dark panel, and for a light one
  dark: { frame: '#f1f3f5', board: '#f1f3f5', water: '#4fc3f7', amber: '#ffb74d', red: '#ff6b6b', mark: '#1b1b1b' },
  light: { frame: '#30363d', board: '#30363d', water: '#0277bd', amber: '#b35900', red: '#c62828', mark: '#ffffff' },
}

/** A gate between two posts, 22 by 22. What is told apart by colour is told apart by shape first. */
function trayDrawing(state, { frame, board, water, amber, red, mark }) {
  const posts = (colour) => `<g fill="${colour}"><rect x="2" y="2" width="3" height="18" rx="1"/><rect x="17" y="2" width="3" height="18" rx="1"/><rect x="2" y="2" width="18" height="2.5" rx="1"/></g>`
  const wave = (y, colour) => `<path d="M6.7 ${y} q1.43 -2.4 2.87 0 t2.87 0 t2.87 0" fill="none" stroke="${colour}" stroke-width="1.8" stroke-linecap="round"/>`
  const drawings = {
    // the board is down: nothing passes
    closed: `${posts(frame)}<g fill="${board}"><rect x="6.2" y="6" width="9.6" height="4"/><rect x="6.2" y="11" width="9.6" height="4"/><rect x="6.2" y="16" width="9.6" height="4"/></g>`,
    // the board is up, water runs below
    open: `${posts(frame)}<rect x="6.2" y="5.6" width="9.6" height="3" fill="${board}"/>${wave(12.4, water)}${wave(15.9, water)}${wave(19.4, water)}`,
    // the board comes down over the last of the water
    draining: `${posts(frame)}<rect x="6.2" y="5.6" width="9.6" height="3.2" fill="${amber}"/><path d="M11 9.4 v5.6 m-3 -2.6 l3 3 l3 -3" fill="none" stroke="${amber}" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/>${wave(19.4, water)}`,
    // a sign in front of the gate
    trouble: `${posts(frame)}<path d="M11 5 L20.6 21 H1.4 Z" fill="${red}" stroke="${red}" stroke-width="1.6" stroke-linejoin="round"/><path d="M11 10.5 v4.6" stroke="${mark}" stroke-width="2.2" stroke-linecap="round"/><circle cx="11" cy="18.4" r="1.3" fill="${mark}"/>`,
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 22 22" width="22" height="22">${drawings[state]}</svg>\n`
}

async function rasterise(page, svg, size) {
  const sized = svg.replace(/<svg ([^>]*?)\s+width="\d+" height="\d+"/, `<svg $1 width="${size}" height="${size}"`)
  const url = `data:image/svg+xml;base64,${Buffer.from(sized).toString('base64')}`
  const data = await page.executeJavaScript(`new Promise((resolve, reject) => {
    const image = new Image()
    image.onload = () => {
      const canvas = document.createElement('canvas')
      canvas.width = canvas.height = ${size}
      canvas.getContext('2d').drawImage(image, 0, 0, ${size}, ${size})
      resolve(canvas.toDataURL('image/png'))
    }
    image.onerror = () => reject(new Error('not drawn'))
    image.src = ${JSON.stringify(url)}
  })`)
  return Buffer.from(data.split(',')[1], 'base64')
}

void app.whenReady().then(async () => {
  const window = new BrowserWindow({ show: false })
  await window.loadURL('about:blank')
  const page = window.webContents
  const svg = readFileSync(join(folder, 'sluice.svg'), 'utf8')
  for (const size of [16, 24, 32, 48, 64, 128, 256, 512]) writeFileSync(join(folder, `sluice-${size}.png`), await rasterise(page, svg, size))
  for (const [shade, colours] of Object.entries(shades)) {
    for (const state of ['closed', 'open', 'draining', 'trouble']) {
      const drawing = trayDrawing(state, colours)
      writeFileSync(join(folder, `tray-${state}-${shade}.svg`), drawing)
      writeFileSync(join(folder, `tray-${state}-${shade}.png`), await rasterise(page, drawing, 22))
      writeFileSync(join(folder, `tray-${state}-${shade}@2x.png`), await rasterise(page, drawing, 44))
    }
  }
  app.exit(0)
})
