package parity

import (
	"encoding/json"
	"net/http"
)

// imagePresent answers ECR's question for an image, in AWS's words: it is
// there. The emulator means so, too, but names none, which the command line
// takes for a yes and aphex for a no. Nothing is built and pushed, for which
// there would have to be a registry behind it.
func imagePresent(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("X-Amz-Target") != "AmazonEC2ContainerRegistry_V20150921.DescribeImages" {
		return false
	}
	var in struct {
		RepositoryName string `json:"repositoryName"`
		ImageIDs       []struct {
			ImageTag string `json:"imageTag"`
		} `json:"imageIds"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return true
	}
	details := []map[string]any{}
	for _, id := range in.ImageIDs {
		details = append(details, map[string]any{"repositoryName": in.RepositoryName, "imageTags": []string{id.ImageTag}})
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(map[string]any{"imageDetails": details})
	return true
}
