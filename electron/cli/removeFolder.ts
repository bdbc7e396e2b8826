import { execa } from 'execa'

/** What a failed opening made. As the person it was made for: root follows nobody's path. */
export async function removeFolder(folder: string): Promise<void> {
  const [uid, gid] = [process.env['SUDO_UID'], process.env['SUDO_GID']]
  const person = process.geteuid?.() === 0 && uid !== undefined && gid !== undefined && /^\d+$/.test(uid) && /^\d+$/.test(gid) ? { uid: Number(uid), gid: Number(gid) } : {}
  await execa('/usr/bin/rm', ['-rf', '--one-file-system', '--', folder], { reject: false, ...person })
}
