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
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ['*.config.ts', 'renderer/*.config.ts'] }, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
    },
  },
  ...svelte.configs.recommended,
  { files: ['**/*.svelte', '**/*.svelte.ts'], languageOptions: { parserOptions: { parser: tseslint.parser } } },
  ...Object.entries(rooms).map(([room, allowed]) => wall([`electron/${room}/**/*.ts`], [room, ...allowed])),
  wall(['renderer/**/*.ts', 'renderer/**/*.svelte'], ['core', 'ui']),
)
