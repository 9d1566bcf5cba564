package lightning

import "time"

// Hurry shortens the times for which Watch waits, so that tests of these waits take little time.
func (c *Client) Hurry(firstDelay, maxDelay, confirm, gap time.Duration) {
	c.pace = pace{firstDelay: firstDelay, maxDelay: maxDelay, confirm: confirm, gap: gap}
}
