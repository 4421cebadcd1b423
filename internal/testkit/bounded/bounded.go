package bounded

import (
	"fmt"
	"runtime/metrics"
	"syscall"
	"testing"
	"time"
)

const (
	// maxWork is how long one input may keep the processor busy. It is not the
	// time on the wall: machines that run tests have others to serve.
	maxWork = 20 * time.Second
	// maxTime is for an input that waits and does nothing.
	maxTime = 10 * time.Minute
	// maxBytes is what one input may have allocated, in sum.
	maxBytes = 1 << 30
	// look is the time between two looks.
	look = time.Second
)

// Here bounds what follows in the test tb of one input. An input beyond the
// time ends the process, which Go's fuzzing takes for a finding and keeps.
func Here(tb testing.TB) {
	tb.Helper()
	before, began, worked := allocated(), time.Now(), work()
	done := make(chan struct{})
	alarm := time.AfterFunc(look, func() { watch(done, began, worked) })
	tb.Cleanup(func() {
		alarm.Stop()
		close(done)
		if more := allocated() - before; more > maxBytes {
			tb.Errorf("the input made the program allocate %d bytes; at most %d are allowed", more, maxBytes)
		}
	})
}

// watch ends the process if done does not come in time.
func watch(done <-chan struct{}, began time.Time, worked time.Duration) {
	for {
		if work()-worked > maxWork || time.Since(began) > maxTime {
			panic(fmt.Sprintf("the input takes more than %s of the processor's time, or %s", maxWork, maxTime))
		}
		select {
		case <-done:
			return
		case <-time.After(look):
		}
	}
}

// work is how long this process has kept the processor busy.
func work() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
