package bounded

import (
	"fmt"
	"runtime/metrics"
	"testing"
	"time"
)

const (
	// maxTime is generous: machines that run tests are slow and busy.
	maxTime = 30 * time.Second
	// maxBytes is what one input may have allocated, in sum.
	maxBytes = 1 << 30
)

// Here bounds what follows in the test tb of one input. An input beyond the
// time ends the process, which Go's fuzzing takes for a finding and keeps.
func Here(tb testing.TB) {
	tb.Helper()
	before := allocated()
	alarm := time.AfterFunc(maxTime, func() { panic(fmt.Sprintf("the input takes more than %s", maxTime)) })
	tb.Cleanup(func() {
		alarm.Stop()
		if more := allocated() - before; more > maxBytes {
			tb.Errorf("the input made the program allocate %d bytes; at most %d are allowed", more, maxBytes)
		}
	})
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
