package kubetest

import (
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// review answers a SelfSubjectAccessReview by what Deny and Forbid would do to
// such a call. The lock is held.
func (s *Server) review(sent Object) Object {
	spec, _ := sent["spec"].(map[string]any)
	asked, _ := spec["resourceAttributes"].(map[string]any)
	call := Call{Verb: text(asked["verb"]), Resource: text(asked["resource"]), Namespace: text(asked["namespace"])}
	status := map[string]any{"allowed": true}
	if s.deny != nil {
		if st := s.deny(call); st != nil && st.Reason == metav1.StatusReasonForbidden {
			status = map[string]any{"allowed": false, "reason": st.Message}
		}
	}
	sent["status"] = status
	return sent
}

// SetClock makes the server's clock differ from the machine's.
func (s *Server) SetClock(offset time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset = offset
}

// tell answers /version, with the server's time.
func (s *Server) tell(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Date", time.Now().Add(s.offset).UTC().Format(http.TimeFormat))
	write(w, http.StatusOK, Object{"major": "1"})
}
