import { expect, test } from 'vitest'

import type { Action } from '#core/contract/actionLog.ts'

import { prepared } from './harness.ts'
import { installed, lab } from './stage.ts'

/** The permission installed and removed for real, on a machine whose /usr and log are thrown away afterwards. */

/** pkexec asks a daemon and a person, which a test has not: what stands there gives root's rights to who may take them, and says for whom as pkexec does. */
const pkexec = '#!/bin/sh\nshift\nexport PKEXEC_UID=65534\nexec setpriv --reuid 0 --regid 0 --clear-groups -- "$@"'
const machine = (): string[] => prepared(`mount -t tmpfs none /mnt; mkdir /mnt/up /mnt/work /mnt/log
mount -t overlay overlay -o lowerdir=/usr,upperdir=/mnt/up,workdir=/mnt/work /usr
mount --bind /mnt/log /var/log
rm -f /usr/bin/pkexec; printf '%s\\n' '${pkexec}' > /usr/bin/pkexec; chmod 755 /usr/bin/pkexec`)

async function actions(words: string): Promise<{ readonly actions: readonly Action[]; readonly other: readonly string[] }> {
  const sluice = `${process.execPath} ${installed.cli}`
  // Anybody may read it.
  const script = `${words.replaceAll('SLUICE', sluice)}\nunset SUDO_UID; setpriv --reuid 65533 --regid 65533 --clear-groups -- ${sluice} log --json`
  const { stdout } = await lab.exec('router', [...machine(), 'sh', '-ec', script], { env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/nonexistent' } })
  const lines = stdout.trimEnd().split('\n')
  return { actions: lines.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Action), other: lines.filter((line) => !line.startsWith('{')) }
}

test('installing and removing stand in the log, with what was written; a refusal, too', async () => {
  const found = await actions(`export SUDO_UID=65534
SLUICE permission install; SLUICE permission remove; SLUICE permission remove
rm -rf /usr/share/polkit-1; touch /usr/share/polkit-1; SLUICE permission install || echo refused`)
  expect(found.other.at(-1)).toBe('refused')
  expect(found.actions).toMatchObject([
    { result: 'ok', person: 'nobody(65534)', text: expect.stringMatching(/^installed the permission: \/usr\/lib\/sluice\/helper\.mjs, .*\/usr\/share\/polkit-1\/actions\/org\.sluice\.policy$/) as string },
    { result: 'ok', text: expect.stringMatching(/^removed the permission: \/usr\/share\/polkit-1\/actions\/org\.sluice\.policy, .*\/usr\/lib\/sluice\/sluice-helper/) as string },
    // Nothing was there any more.
    { result: 'ok', text: 'removed the permission: nothing was there' },
    { result: 'failed', text: 'installed the permission', said: expect.stringMatching(/polkit-1/) as string },
  ])
})

test('by polkit: for whom it was stands there as pkexec said it', async () => {
  const asNobodyWho = 'setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps +setuid,+setgid --ambient-caps +setuid,+setgid --'
  const found = await actions(`${asNobodyWho} SLUICE permission install; ${asNobodyWho} SLUICE permission remove`)
  expect(found.actions).toMatchObject([
    { result: 'ok', person: 'nobody(65534)', text: expect.stringContaining('installed the permission: /usr/lib/sluice/helper.mjs') as string },
    { result: 'ok', person: 'nobody(65534)', text: expect.stringContaining('removed the permission: /usr/share/polkit-1') as string },
  ])
})
