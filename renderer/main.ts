import { mount } from 'svelte'

import './styles/tokens.css'
import './styles/base.css'
import './styles/controls.css'
import App from './App.svelte'
import { makeClient } from './bridge/client.ts'
import { AppState } from './state/app.svelte.ts'
import type { Bridge } from '#core/contract/bridge.ts'

const target = document.getElementById('app')
if (target === null) throw new Error('index.html has no #app')

const app = new AppState(makeClient((window as unknown as { sluice: Bridge }).sluice))
// The last line of defence: whatever nobody caught still ends in a sentence a person can read.
window.addEventListener('unhandledrejection', (event) => {
  event.preventDefault()
  app.notices.fail(event.reason)
})
window.addEventListener('error', (event) => {
  app.notices.fail(event.error ?? event.message)
})

mount(App, { target, props: { app } })
void app.start()
