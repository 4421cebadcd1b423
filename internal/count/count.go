// Package count says how many there are of something.
package count

import "fmt"

// Of is "1 stack" or "2 stacks". The noun gets an s for its plural.
func Of(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
