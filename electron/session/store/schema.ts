import type { SortKey } from '#core/contract/inspectorProtocol.ts'

/** Rises with every change of tables or of what dissectors say: an index of another version is built anew. */
export const indexVersion = 2

/**
 * `flows`: one row a flow, columns by FlowRow's fields (what filters say in SQL), `more` the rest of its details as JSON.
 * `chunks`: where a flow's bytes lie in the capture, packed (chunkCodec.ts), in order of arrival; `position`, `up`, `down` say how many
 * bytes of both, of up and of down come before the first. `pieces`: further pieces of bodies that have very many.
 */
export const schema = `
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE flows (
  id INTEGER PRIMARY KEY, transport TEXT NOT NULL, protocol TEXT NOT NULL, scope TEXT NOT NULL, client_address TEXT NOT NULL, client_port INTEGER NOT NULL,
  server_address TEXT NOT NULL, server_port INTEGER NOT NULL, name TEXT, pid INTEGER, process TEXT, user TEXT,
  started_at INTEGER NOT NULL, ended_at INTEGER, state TEXT NOT NULL, closed_by TEXT NOT NULL,
  bytes_up INTEGER NOT NULL, bytes_down INTEGER NOT NULL, bytes_lost INTEGER NOT NULL, datagrams_up INTEGER, datagrams_down INTEGER, info TEXT NOT NULL,
  method TEXT, target TEXT, status INTEGER, exchanges INTEGER, sni TEXT, alpn TEXT, version TEXT, undecodable INTEGER NOT NULL,
  tls TEXT, dns TEXT, qname TEXT, qtype TEXT, rcode TEXT, questions INTEGER, quic TEXT, quic_version TEXT, more TEXT NOT NULL
);
CREATE TABLE exchanges (flow INTEGER NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (flow, number)) WITHOUT ROWID;
CREATE TABLE chunks (
  flow INTEGER NOT NULL, position INTEGER NOT NULL, up INTEGER NOT NULL, down INTEGER NOT NULL, packed BLOB NOT NULL,
  PRIMARY KEY (flow, position)
) WITHOUT ROWID;
CREATE TABLE gaps (
  flow INTEGER NOT NULL, number INTEGER NOT NULL, direction TEXT NOT NULL, offset INTEGER NOT NULL, bytes INTEGER NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY (flow, number)
) WITHOUT ROWID;
CREATE TABLE pieces (
  flow INTEGER NOT NULL, number INTEGER NOT NULL, part TEXT NOT NULL, body_offset INTEGER NOT NULL, packed BLOB NOT NULL,
  PRIMARY KEY (flow, number, part, body_offset)
) WITHOUT ROWID;
`

/** What a column of the list is sorted by; never NULL, so that a flow's place can be counted. Ties go by id. */
export const sortExpressions: Readonly<Record<SortKey, string>> = {
  id: 'id',
  startedAt: 'started_at',
  process: "coalesce(process, '') COLLATE NOCASE",
  transport: 'transport',
  protocol: 'protocol',
  server: 'coalesce(name, server_address) COLLATE NOCASE',
  port: 'server_port',
  client: 'client_address',
  info: 'info',
  bytesUp: 'bytes_up',
  bytesDown: 'bytes_down',
  duration: '(coalesce(ended_at, started_at) - started_at)',
  state: 'state',
  status: 'coalesce(status, -1)',
}
