import Libsql from 'libsql'

/** What may be bound. libsql aborts the process on booleans and on lone objects, so nothing else ever gets there (and always as an array). */
export type SqlValue = string | number | bigint | null | Uint8Array
export type SqlRow = Readonly<Record<string, unknown>>

interface Statement {
  run(parameters: readonly SqlValue[]): unknown
  get(parameters: readonly SqlValue[]): unknown
  all(parameters: readonly SqlValue[]): unknown[]
  iterate(parameters: readonly SqlValue[]): IterableIterator<unknown>
}

function checked(parameters: readonly SqlValue[]): readonly SqlValue[] {
  for (const value of parameters) {
    const good = value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'bigint' || value instanceof Uint8Array
    if (!good) throw new TypeError(`SQL cannot take a ${typeof value}`)
  }
  return parameters
}

/** A thin SQLite: the only place that knows libsql. 64-bit integers beyond 2^53 come back right only as `CAST(x AS TEXT)`. */
export class Database {
  private readonly inner: Libsql.Database
  private readonly statements = new Map<string, Statement>()

  /** Throws with `code` "SQLITE_…". */
  constructor(path: string, options: { readonly readonly?: boolean; readonly timeout?: number } = {}) {
    this.inner = new Libsql(path, { readonly: options.readonly ?? false, timeout: options.timeout ?? 0 })
  }

  exec(sql: string): void {
    this.inner.exec(sql)
  }

  run(sql: string, parameters: readonly SqlValue[] = []): void {
    this.statement(sql).run(checked(parameters))
  }

  get(sql: string, parameters: readonly SqlValue[] = []): SqlRow | undefined {
    return (this.statement(sql).get(checked(parameters)) ?? undefined) as SqlRow | undefined
  }

  all(sql: string, parameters: readonly SqlValue[] = []): SqlRow[] {
    return this.statement(sql).all(checked(parameters)) as SqlRow[]
  }

  /** Not kept among the prepared ones, so that two may run at once. */
  iterate(sql: string, parameters: readonly SqlValue[] = []): IterableIterator<SqlRow> {
    return (this.inner.prepare(sql) as unknown as Statement).iterate(checked(parameters)) as IterableIterator<SqlRow>
  }

  transaction(steps: () => void): void {
    this.exec('BEGIN IMMEDIATE')
    try {
      steps()
      this.exec('COMMIT')
    } catch (error) {
      try {
        this.exec('ROLLBACK')
      } catch {
        // SQLite has rolled back by itself.
      }
      throw error
    }
  }

  close(): void {
    this.statements.clear()
    this.inner.close()
  }

  private statement(sql: string): Statement {
    let statement = this.statements.get(sql)
    if (statement === undefined) {
      // Texts come from filters too: the cache is bounded.
      if (this.statements.size >= 200) this.statements.clear()
      statement = this.inner.prepare(sql)
      this.statements.set(sql, statement)
    }
    return statement
  }
}
