export const transports = ['tcp', 'udp'] as const
export type Transport = (typeof transports)[number]
