/** What random tests begin with: the same for everybody, so that a failure belongs to what was changed; SEED=number is another one, SEED=random any. */
export const seed = process.env['SEED'] === 'random' ? Math.floor(Math.random() * 1e9) : Number(process.env['SEED'] ?? 1)
