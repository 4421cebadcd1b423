package pipeline

import "strings"

// nearest returns the known key closest to key, or "" if none is close enough
// to be what was meant.
func nearest(key string, known []string) string {
	best, bestDistance := "", 1+max(1, len(key)/3)
	for _, candidate := range known {
		if plain(candidate) == plain(key) {
			return candidate
		}
		if d := distance(plain(key), plain(candidate)); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// plain makes keys comparable across spelling habits.
func plain(key string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(key))
}

// distance is the number of insertions, deletions, substitutions and swaps of
// neighbours that turn a into b.
func distance(a, b string) int {
	const limit = 64 // known keys are short; nothing longer is a typing error
	if len(a) > limit || len(b) > limit {
		return limit
	}
	before, previous, current := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			current[j] = min(previous[j]+1, current[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, previous, current = previous, current, before
	}
	return previous[len(b)]
}
