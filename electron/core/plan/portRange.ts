import * as v from 'valibot'

/** An inclusive range of ports, 1..65535, from <= to. */
export interface PortRange {
  readonly from: number
  readonly to: number
}

const port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535))
export const portRange = v.strictObject({ from: port, to: port })
