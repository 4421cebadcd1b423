package notify

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// maxDescription is the longest description of a commit status.
const maxDescription = 140

// statusURL is where the commit's statuses are set: the API of github.com, or
// that of GitHub's server whose repository it is.
//
// Error: an address that is not one of a repository over HTTP.
func statusURL(repo, commit string) (string, error) {
	address, err := url.Parse(repo)
	if err != nil || address.Host == "" || address.Scheme != "https" && address.Scheme != "http" {
		return "", fmt.Errorf("the repository %q has no http address, so its API is not known", repo)
	}
	parts := strings.Split(strings.TrimSuffix(strings.Trim(address.Path, "/"), ".git"), "/")
	if len(parts) != 2 || parts[0] == "" || parts[1] == "" {
		return "", fmt.Errorf("the path of the repository %q is not owner/name", repo)
	}
	api := address.Scheme + "://" + address.Host + "/api/v3"
	if address.Host == "github.com" {
		api = "https://api.github.com"
	}
	return api + "/repos/" + url.PathEscape(parts[0]) + "/" + url.PathEscape(parts[1]) + "/statuses/" + url.PathEscape(commit), nil
}

// commitStatus is the body of the request that sets a commit status. A commit
// that the run did not deliver, since another run does or has delivered a newer
// one, is pending.
func commitStatus(e Event) map[string]any {
	state, description := "success", "succeeded in "+e.took()
	switch {
	case e.Event == pipeline.EventFailed && e.Failed != nil:
		state, description = "failure", e.Failed.Stage+" failed: "+e.Failed.Message
	case e.Event == pipeline.EventFailed:
		state, description = "failure", "failed after "+e.took()
	case e.PassedOver != "":
		state, description = "pending", e.PassedOver
	case e.Deferred != nil:
		description += ", " + e.change() + ": " + e.Deferred.Message
	case e.Reason != "":
		description += " (" + e.Reason + ")"
	}
	status := map[string]any{"state": state, "context": "aphex/" + e.Pipeline, "description": cut(strings.Join(strings.Fields(description), " "), maxDescription)}
	if e.RunURL != "" {
		status["target_url"] = e.RunURL
	}
	return status
}
