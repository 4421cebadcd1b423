package execution

import "github.com/aphex-pipeline/aphex/plugin/argo"

// Abandoned reports that this process will never have a final reply to call:
// the run is over, or its journal belongs to another process now.
func (e *Engine) Abandoned(call argo.Call) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r, ok := e.runs[call.Request.Run.UID]; ok && r.finished() {
		return true
	}
	for _, x := range e.live {
		if x.call.Request.Run.UID != call.Request.Run.UID || x.call.NodeName() != call.NodeName() {
			continue
		}
		select {
		case <-x.done:
			if _, ok := x.result(); !ok {
				return true
			}
		default:
		}
	}
	return false
}
