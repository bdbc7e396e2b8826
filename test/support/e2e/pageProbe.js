// Evaluated in the page: everything a page that was taken over would try first. The value is what became of each attempt.
;(async () => {
  const attempt = async (work) => {
    try {
      return String(await work())
    } catch (error) {
      return `refused: ${error.name}`
    }
  }
  const script = () =>
    new Promise((resolve) => {
      document.addEventListener('securitypolicyviolation', (event) => resolve(`refused: ${event.violatedDirective}`), { once: true })
      const element = document.createElement('script')
      element.append('globalThis.escaped = true')
      document.body.append(element)
      resolve(globalThis.escaped === true ? 'ran' : 'refused')
    })
  return {
    globals: ['require', 'process', 'module', 'Buffer', 'ipcRenderer'].filter((name) => name in globalThis),
    bridge: Object.keys(globalThis.sluice).sort(),
    html: await attempt(() => document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(1)>')),
    script: await attempt(script),
    file: await attempt(() => fetch('file:///etc/passwd').then((answer) => answer.text())),
    web: await attempt(() => fetch('http://203.0.113.2/').then((answer) => answer.text())),
    above: await attempt(() => fetch('sluice://app/../../package.json').then((answer) => answer.status)),
    escaped: await attempt(() => fetch('sluice://app/%2e%2e/%2e%2e/package.json').then((answer) => answer.status)),
    otherHost: await attempt(() => fetch('sluice://other/index.html').then((answer) => answer.status)),
    popup: await attempt(() => globalThis.open('sluice://app/index.html')),
    permission: await attempt(() => navigator.mediaDevices.getUserMedia({ audio: true })),
    policy: await fetch('sluice://app/index.html').then((answer) => answer.headers.get('content-security-policy')),
  }
})()
