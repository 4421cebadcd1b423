package chaos

import (
	"net/http"
	"strings"
)

// marks is what the pipeline's commands call: POST /<begin|end>/<stage>/<name>.
func marks(t *tap) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
		if len(parts) != 3 {
			http.NotFound(w, req)
			return
		}
		t.command(parts[1], parts[0]+" of "+parts[2])
		point, index := t.begin(KindCommand, parts[0], parts[2])
		t.reach(point, Before)
		t.answered(index, http.StatusOK)
	})
}
