import { expect, type Locator, type Page } from '@playwright/test'

/** The window as a person uses it: by what is written on it. */
export class WindowDriver {
  readonly page: Page
  /** What the gate says of itself; `data-gate` is its face. */
  readonly gate: Locator
  readonly grid: Locator
  /** Rows in sight, without the titles. */
  readonly rows: Locator
  readonly filter: Locator
  readonly details: Locator
  readonly footer: Locator
  readonly toasts: Locator

  constructor(page: Page) {
    this.page = page
    this.gate = page.locator('[data-gate]')
    this.grid = page.getByRole('grid', { name: 'Flows' })
    this.rows = this.grid.locator('.line')
    this.filter = page.getByRole('combobox', { name: 'Filter flows' })
    this.details = page.getByRole('region', { name: 'Details' })
    this.footer = page.locator('main footer')
    this.toasts = page.getByRole('region', { name: 'Notices' })
  }

  /** First answers of the main process are here. */
  async ready(): Promise<void> {
    await this.page.locator('main > *').first().waitFor()
  }
  async go(place: 'Flows' | 'Ports' | 'Doctor'): Promise<void> {
    await this.page.getByRole('navigation', { name: 'Window' }).getByRole('button', { name: place, exact: true }).click()
  }
  button(name: string | RegExp): Locator {
    return this.page.getByRole('button', { name })
  }
  row(text: string | RegExp): Locator {
    return this.rows.filter({ hasText: text })
  }
  async typePorts(text: string): Promise<void> {
    await this.go('Ports')
    await this.page.getByRole('textbox', { name: 'Ports to intercept' }).fill(text)
  }
  async openGate(ports: string): Promise<void> {
    await this.typePorts(ports)
    await this.button('Open gate').click()
    await expect(this.gate).toHaveAttribute('data-gate', 'open')
  }
  async useFilter(text: string): Promise<void> {
    await this.filter.fill(text)
    await this.filter.press('Enter')
  }
  async openTab(name: string): Promise<Locator> {
    await this.details.getByRole('tab', { name, exact: true }).click()
    return this.details.getByRole('tabpanel')
  }
  async theme(theme: 'Light' | 'Dark'): Promise<void> {
    await this.button('More').click()
    await this.page.getByRole('menuitem', { name: 'Settings…' }).click()
    await this.page.getByRole('dialog').getByRole('radio', { name: theme }).click()
    await expect(this.page.locator('html')).toHaveAttribute('data-theme', theme.toLowerCase())
    await this.page.keyboard.press('Escape')
    await expect(this.page.getByRole('dialog')).toHaveCount(0)
  }
}
