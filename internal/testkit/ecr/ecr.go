// Package ecr is a scripted Amazon ECR for tests: the few calls of its control
// plane that publish an image, which check what they receive, in front of a
// real registry, whose tags are immutable as in a bootstrap's repository.
package ecr

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
)

// target precedes the operation in the header that names it.
const target = "AmazonEC2ContainerRegistry_V20150921."

// Password is what GetAuthorizationToken gives; nobody but the registry may
// see it.
const Password = "registry-password-of-twelve-hours"

// Registry is both halves of an ECR. It is safe for concurrent use.
type Registry struct {
	// Host is where the second half is reached, as host:port.
	Host string
	// Loses makes the registry take a manifest that many times without an
	// answer.
	Loses int

	data http.Handler

	mu           sync.Mutex
	repositories []string
	tags         map[string]string
	calls        []string
	strange      []string
}

// New returns an empty ECR with repositories.
func New(repositories ...string) *Registry {
	return &Registry{
		data: registry.New(registry.Logger(log.New(io.Discard, "", 0))), repositories: repositories, tags: map[string]string{},
	}
}

// Calls lists what was asked for, such as "DescribeImages shop:1" and, of the
// registry, "PUT shop:1".
func (r *Registry) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Strange lists what no publisher may send: calls that are not scripted, and
// requests of the registry without its password.
func (r *Registry) Strange() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.strange)
}

// Has reports whether repository has the tag.
func (r *Registry) Has(repository, tag string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tags[repository+":"+tag] != ""
}

// Control is the control plane.
func (r *Registry) Control() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var in struct {
			RepositoryNames []string `json:"repositoryNames"`
			RepositoryName  string   `json:"repositoryName"`
			ImageIDs        []struct {
				ImageTag string `json:"imageTag"`
			} `json:"imageIds"`
		}
		operation, scripted := strings.CutPrefix(req.Header.Get("X-Amz-Target"), target)
		err := json.NewDecoder(req.Body).Decode(&in)
		r.mu.Lock()
		defer r.mu.Unlock()
		signed := strings.Contains(req.Header.Get("Authorization"), "/ecr/aws4_request")
		switch {
		case !scripted || err != nil || !signed:
			r.strange = append(r.strange, fmt.Sprintf("control plane: operation %q, signed for ecr: %t, body: %v", operation, signed, err))
			refuse(w, "ValidationException", "not scripted")
		case operation == "GetAuthorizationToken":
			r.calls = append(r.calls, operation)
			token := base64.StdEncoding.EncodeToString([]byte("AWS:" + Password))
			answer(w, map[string]any{"authorizationData": []any{map[string]any{"authorizationToken": token, "proxyEndpoint": "http://" + r.Host}}})
		case operation == "DescribeRepositories" && len(in.RepositoryNames) == 1:
			name := in.RepositoryNames[0]
			r.calls = append(r.calls, operation+" "+name)
			if !slices.Contains(r.repositories, name) {
				refuse(w, "RepositoryNotFoundException", "The repository with name '"+name+"' does not exist")
				return
			}
			answer(w, map[string]any{"repositories": []any{map[string]any{"repositoryName": name, "repositoryUri": r.Host + "/" + name}}})
		case operation == "DescribeImages" && len(in.ImageIDs) == 1:
			r.calls = append(r.calls, operation+" "+in.RepositoryName+":"+in.ImageIDs[0].ImageTag)
			digest := r.tags[in.RepositoryName+":"+in.ImageIDs[0].ImageTag]
			if digest == "" {
				refuse(w, "ImageNotFoundException", "The image requested does not exist")
				return
			}
			answer(w, map[string]any{"imageDetails": []any{map[string]any{"imageDigest": digest, "imageTags": []string{in.ImageIDs[0].ImageTag}}}})
		default:
			r.strange = append(r.strange, "control plane: "+operation)
			refuse(w, "ValidationException", "not scripted")
		}
	})
}

// Data is the registry itself.
func (r *Registry) Data() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		user, password, ok := req.BasicAuth()
		if !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="ecr",service="ecr.amazonaws.com"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		repository, tag, isManifest := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/manifests/")
		r.mu.Lock()
		defer r.mu.Unlock()
		if user != "AWS" || password != Password {
			r.strange = append(r.strange, "registry: user "+user+" with another password")
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if !isManifest || req.Method != http.MethodPut {
			r.data.ServeHTTP(w, req)
			return
		}
		r.calls = append(r.calls, "PUT "+repository+":"+tag)
		if r.tags[repository+":"+tag] != "" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			message := fmt.Sprintf("The image tag '%s' already exists in the '%s' repository and cannot be overwritten because the repository is immutable.", tag, repository)
			_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": "TAG_INVALID", "message": message}}})
			return
		}
		digest := &header{ResponseWriter: w}
		if r.Loses > 0 {
			digest.ResponseWriter = lost{http.Header{}}
		}
		r.data.ServeHTTP(digest, req)
		if digest.code == http.StatusCreated {
			r.tags[repository+":"+tag] = digest.Header().Get("Docker-Content-Digest")
		}
		if r.Loses > 0 {
			r.Loses--
			panic(http.ErrAbortHandler)
		}
	})
}

// header remembers the status of an answer.
type header struct {
	http.ResponseWriter
	code int
}

func (h *header) WriteHeader(code int) {
	h.code = code
	h.ResponseWriter.WriteHeader(code)
}

// lost is an answer that nobody gets.
type lost struct{ header http.Header }

func (l lost) Header() http.Header            { return l.header }
func (l lost) Write(data []byte) (int, error) { return len(data), nil }
func (l lost) WriteHeader(int)                {}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}
