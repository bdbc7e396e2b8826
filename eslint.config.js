import svelte from 'eslint-plugin-svelte'
import tseslint from 'typescript-eslint'

// Which room may import which (ARCHITECTURE.md). A breach is an error, so the map stays true.
const rooms = {
  core: [],
  probe: ['core'],
  helper: ['core', 'probe'],
  elevate: ['core', 'probe'],
  gate: ['core', 'probe', 'elevate'],
  session: ['core', 'probe'],
  main: ['core', 'probe', 'elevate', 'gate', 'session'],
  cli: ['core', 'probe', 'elevate', 'gate', 'session'],
}
const everyRoom = [...Object.keys(rooms), 'ui', 'test']

function wall(files, allowed) {
  const forbidden = everyRoom.filter((room) => !allowed.includes(room))
  return {
    files,
    rules: { 'no-restricted-imports': ['error', { patterns: forbidden.map((room) => ({ group: [`#${room}/*`, `#${room}/**`], message: `ARCHITECTURE.md: this room does not know ${room}` })) }] },
  }
}

export default tseslint.config(
  { ignores: ['build/**', 'dist/**', 'native/**', 'node_modules/**', 'test-results/**', 'playwright-report/**'] },
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      // `return this.set(…)` out of a function that itself answers nothing is the short way to say "and that is all".
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true, ignoreVoidReturningFunctions: true }],
      // Parsers check a length once and then read by place; noUncheckedIndexedAccess, which is on, makes each of these reads an `undefined` to be
      // waved away. The `!` after a checked length says so in one sign; an `if` for each would be a branch that no test can reach.
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', ignoreRestSiblings: true }],
    },
  },
  ...svelte.configs.recommended,
  {
    files: ['**/*.svelte', '**/*.svelte.ts'],
    languageOptions: { parserOptions: { parser: tseslint.parser } },
    // keep={'\t'} is a tab; keep="\t" would be a backslash and a t.
    rules: { 'svelte/no-useless-mustaches': ['error', { ignoreStringEscape: true }] },
  },
  ...Object.entries(rooms).map(([room, allowed]) => wall([`electron/${room}/**/*.ts`], [room, ...allowed])),
  wall(['renderer/**/*.ts', 'renderer/**/*.svelte'], ['core', 'ui']),
)
