/** Times that window and tray offer for what goes by itself. */
export const timeLimits: readonly { readonly title: string; readonly seconds: number }[] = [
  { title: '10 minutes', seconds: 600 },
  { title: '1 hour', seconds: 3600 },
  { title: '8 hours', seconds: 28_800 },
]
