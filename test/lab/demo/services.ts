import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { execa } from 'execa'

import type { Host } from './host.ts'

/** The laboratory's server: its addresses and a folder of files that nothing else uses. */
export interface ServicesOptions {
  readonly server: Host
  readonly folder: string
  readonly addresses: { readonly ipv4: string; readonly ipv6: string }
}
export interface ServedRequest {
  readonly scheme: string
  readonly client: string
  readonly method: string
  readonly target: string
  readonly status: number
}
export interface Services {
  /** What the web server's own log says was asked of it. */
  requests(): readonly ServedRequest[]
  /** SHA-256 of each served file, by path. */
  readonly files: Readonly<Record<string, string>>
}

const sha256 = (data: Buffer | string): string => createHash('sha256').update(data).digest('hex')

/** A page that makes a browser ask for all that browsers ask for; it says in the end what it got. */
const page = `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Laboratory</title><link rel="stylesheet" href="/style.css"></head>
<body><h1>Laboratory</h1><p id="said">not yet</p><img src="/picture.svg" alt="a square"><script src="/program.js"></script></body></html>
`
const program = `fetch('/data.json').then((answer) => answer.json()).then((data) => { document.getElementById('said').textContent = 'data says ' + data.word })
`

function configuration(folder: string, { ipv4, ipv6 }: ServicesOptions['addresses']): string {
  const listen = (port: number, extra = ''): string => `listen ${ipv4}:${port}${extra}; listen [${ipv6}]:${port}${extra};`
  return `user root; worker_processes 1; daemon off; pid ${folder}/nginx.pid; error_log ${folder}/error.log;
events { worker_connections 512; }
http {
  log_format facts '$scheme $remote_addr $request_method $request_uri $status';
  access_log ${folder}/access.log facts;
  include /etc/nginx/mime.types; default_type application/octet-stream; sendfile on; gzip on; gzip_types text/css application/javascript application/json;
  client_body_temp_path ${folder}/t1; proxy_temp_path ${folder}/t2; fastcgi_temp_path ${folder}/t3; uwsgi_temp_path ${folder}/t4; scgi_temp_path ${folder}/t5;
  client_max_body_size 64m;
  server {
    ${listen(80)} ${listen(8080)} ${listen(443, ' ssl')}
    server_name server.test;
    ssl_certificate ${folder}/cert.pem; ssl_certificate_key ${folder}/key.pem; ssl_protocols TLSv1.2 TLSv1.3;
    root ${folder}/www;
    location = /hello { default_type text/plain; return 200 "hello from the server\\n"; }
    location = /missing { return 404 "nothing here\\n"; }
    location = /moved { return 302 /hello; }
    location = /api/orders { default_type application/json; return 201 '{"order":4711,"accepted":true}'; }
    location ~ ^/git(/.*)$ {
      fastcgi_pass unix:${folder}/git.sock;
      include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
      fastcgi_param GIT_HTTP_EXPORT_ALL 1;
      fastcgi_param GIT_PROJECT_ROOT ${folder}/repositories;
      fastcgi_param PATH_INFO $1;
    }
  }
}
`
}

async function makeRepository(folder: string): Promise<void> {
  const work = join(folder, 'work')
  mkdirSync(work, { recursive: true })
  const env = {
    PATH: '/usr/bin:/bin', HOME: folder, GIT_CONFIG_NOSYSTEM: '1', GIT_AUTHOR_NAME: 'Laboratory', GIT_AUTHOR_EMAIL: 'lab@example.test',
    GIT_COMMITTER_NAME: 'Laboratory', GIT_COMMITTER_EMAIL: 'lab@example.test',
  }
  const git = (...args: string[]) => execa('/usr/bin/git', args, { cwd: work, env, extendEnv: false })
  await git('init', '-q', '-b', 'main')
  for (let number = 1; number <= 3; number += 1) {
    writeFileSync(join(work, `file${number}.bin`), randomBytes(64 * 1024))
    await git('add', '.')
    await git('commit', '-q', '-m', `Change ${number}`)
  }
  await git('clone', '-q', '--bare', '.', join(folder, 'repositories', 'project.git'))
}

/** Starts nginx (HTTP and TLS), git over HTTP, HTTP/3, redis and a name server on the server. Resolves when all listen. */
export async function startServices({ server, folder, addresses }: ServicesOptions): Promise<Services> {
  rmSync(folder, { recursive: true, force: true })
  const www = join(folder, 'www')
  mkdirSync(www, { recursive: true })
  mkdirSync(join(folder, 'repositories'))
  const files: Record<string, Buffer> = {
    '/index.html': Buffer.from(page),
    '/style.css': Buffer.from('body { font-family: sans-serif; margin: 2em }\n'.repeat(40)),
    '/program.js': Buffer.from(program),
    '/picture.svg': Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><rect width="40" height="40" fill="teal"/></svg>\n'),
    '/data.json': Buffer.from(`${JSON.stringify({ word: 'well', list: Array.from({ length: 200 }, (_, index) => index) })}\n`),
    '/random.bin': randomBytes(8 << 20),
  }
  for (const [path, data] of Object.entries(files)) writeFileSync(join(www, path), data)
  await makeRepository(folder)
  await execa('/usr/bin/openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '30', '-subj', '/CN=server.test',
    '-addext', `subjectAltName=DNS:server.test,IP:${addresses.ipv4}`, '-keyout', join(folder, 'key.pem'), '-out', join(folder, 'cert.pem'),
  ])
  writeFileSync(join(folder, 'nginx.conf'), configuration(folder, addresses))
  server.start(['/usr/sbin/fcgiwrap', '-s', `unix:${folder}/git.sock`])
  server.start(['/usr/bin/redis-server', '--bind', addresses.ipv4, addresses.ipv6, '--port', '6379', '--save', '', '--protected-mode', 'no', '--dir', folder])
  server.start(['/usr/sbin/nginx', '-c', join(folder, 'nginx.conf'), '-p', folder])
  server.start(['/usr/sbin/gtlsserver', '--quiet', '--htdocs', www, '*', '443', join(folder, 'key.pem'), join(folder, 'cert.pem')])
  server.start([
    '/usr/sbin/dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--no-resolv', '--no-hosts', '--user=root', '--pid-file=', '--bind-interfaces',
    `--listen-address=${addresses.ipv4},${addresses.ipv6}`, `--address=/server.test/${addresses.ipv4}`, `--address=/server.test/${addresses.ipv6}`,
  ])
  const tcp = [`${addresses.ipv4}:80`, `${addresses.ipv4}:443`, `[${addresses.ipv6}]:80`, `${addresses.ipv4}:6379`]
  const udp = [`${addresses.ipv4}:53`, `[${addresses.ipv6}]:53`, '0.0.0.0:443', '[::]:443']
  await awaitPorts(server, [...tcp.map((place) => `tcp ${place}`), ...udp.map((place) => `udp ${place}`)])
  return {
    files: Object.fromEntries(Object.entries(files).map(([path, data]) => [path, sha256(data)])),
    requests: () =>
      readFileSync(join(folder, 'access.log'), 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => {
          const [scheme = '', client = '', method = '', target = '', status = ''] = line.split(' ')
          return { scheme, client, method, target, status: Number(status) }
        }),
  }
}

async function awaitPorts(server: Host, wanted: readonly string[]): Promise<void> {
  const deadline = Date.now() + 15_000
  for (;;) {
    const { output } = await server.run(['/usr/bin/ss', '-Hltun'])
    const listening = output.toString().split('\n').map((line) => line.split(/\s+/))
    const missing = wanted.filter((place) => !listening.some(([transport = '', , , , local = '']) => `${transport} ${local}` === place))
    if (missing.length === 0) return
    if (Date.now() > deadline) throw new Error(`the laboratory's services do not listen on ${missing.join(', ')}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
