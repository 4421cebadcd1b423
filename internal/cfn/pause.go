package cfn

import (
	"context"
	"time"
)

// pause is the time between two looks at something that goes on: short at
// first, since much ends at once, then longer and longer. After news the next
// look comes early, but the later the less early: a stack with many resources
// has news all the time.
type pause struct {
	shortest, longest time.Duration
	next, elapsed     time.Duration
}

// earlyAfterNews is the part of the time so far that is waited after news.
const earlyAfterNews = 3

func (l Limits) pause() *pause {
	return &pause{shortest: l.PollMin, longest: l.PollMax, next: l.PollMin}
}

// news makes the next look come early.
func (p *pause) news() { p.next = min(max(p.shortest, p.elapsed/earlyAfterNews), p.longest) }

// advance returns how long to wait now.
func (p *pause) advance() time.Duration {
	now := p.next
	p.elapsed += now
	p.next = min(p.next*2, p.longest)
	return now
}

// wait returns false if ctx ended.
func (p *pause) wait(ctx context.Context) bool {
	timer := time.NewTimer(p.advance())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
