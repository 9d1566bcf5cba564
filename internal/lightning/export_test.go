package lightning

import "time"

// Hurry shortens what Watch waits for, so that tests of its waits are short.
func (c *Client) Hurry(firstDelay, maxDelay, confirm, gap time.Duration) {
	c.pace = pace{firstDelay: firstDelay, maxDelay: maxDelay, confirm: confirm, gap: gap}
}
