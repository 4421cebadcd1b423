package conformance

import (
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/aphex-pipeline/aphex/internal/kube/kubetest"
)

// refuse is an API server that answers verb on resource with an error.
func refuse(resource, verb string, code int32) func(kubetest.Call) *metav1.Status {
	return func(c kubetest.Call) *metav1.Status {
		if c.Resource == resource && c.Verb == verb {
			reason := metav1.StatusReasonInternalError
			if code == http.StatusServiceUnavailable {
				reason = metav1.StatusReasonServiceUnavailable
			}
			return kubetest.Status(code, reason, "the API server is not well")
		}
		return nil
	}
}

// tooLarge is an API server that takes no patch of more than limit bytes for
// one task set whose text is that of a result: errors of the agent itself,
// which are shorter, pass.
func tooLarge(limit int) func(kubetest.Call) *metav1.Status {
	return func(c kubetest.Call) *metav1.Status {
		if c.Resource == taskSets && c.Verb == "patch" && len(c.Body) > limit {
			return kubetest.Status(http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, "limit is exceeded")
		}
		return nil
	}
}

// everything is an API server that answers nothing.
func everything() func(kubetest.Call) *metav1.Status {
	return func(kubetest.Call) *metav1.Status {
		return kubetest.Status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "the API server is away")
	}
}
