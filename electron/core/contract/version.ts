declare const __SLUICE_VERSION__: string | undefined

/** Put in by the bundler from package.json; sources run by tests say so. */
export const version: string = typeof __SLUICE_VERSION__ === 'string' ? __SLUICE_VERSION__ : '0.0.0-source'
