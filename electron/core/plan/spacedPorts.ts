/** A list of ports as a person reads it, with a space behind each comma, however it was typed. */
export function spacedPorts(text: string): string {
  return text
    .split(/[\s,]+/)
    .filter((word) => word !== '')
    .join(', ')
}
