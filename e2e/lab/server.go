package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/aphex-pipeline/aphex/e2e/aws"
	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// Names of what Argo's server and its user need in the tenant's namespace.
const (
	artifactRepositories = "artifact-repositories"
	artifactSecret       = "aphex-artifacts"
	person               = "person"
)

// Server is Argo's server as a person in the tenant's namespace uses it. What
// the user interface does, it does by these calls.
type Server struct {
	lab        *Lab
	url, token string
}

// Server returns Argo's server, which the first call starts.
func (l *Lab) Server() (*Server, error) { return l.server() }

// personRights are what somebody needs who works with runs in the user
// interface: those of the ClusterRole argo-aggregate-to-edit of Argo's
// release, as far as reruns go, and the Secret of the artifact repository,
// which the server reads in the name of the caller.
const personRights = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: person}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: person}
rules:
  - {apiGroups: [argoproj.io], resources: [workflows], verbs: [get, list, watch, create, update, patch, delete]}
  - {apiGroups: [argoproj.io], resources: [workflowtemplates], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [pods], verbs: [get, list, watch, delete]}
  - {apiGroups: [""], resources: [pods/log], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [secrets], resourceNames: [aphex-artifacts], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: person}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: person}
subjects: [{kind: ServiceAccount, name: person}]
`

func (l *Lab) startServer(ctx context.Context) (*Server, error) {
	if _, err := l.Kubectl(ctx, []byte(personRights), "apply", "-n", l.Cluster.Namespace(), "-f", "-"); err != nil {
		return nil, err
	}
	token, err := l.Kubectl(ctx, nil, "create", "token", person, "-n", l.Cluster.Namespace(), "--duration", "12h")
	if err != nil {
		return nil, err
	}
	s := &Server{lab: l, token: strings.TrimSpace(token)}
	err = l.timed("Argo's server", func() error {
		if s.url, err = l.Cluster.StartServer(ctx); err != nil {
			return err
		}
		return s.answers(ctx)
	})
	return s, err
}

// answers waits until the server takes calls: its pages are there before its
// gateway has found the API behind it.
func (s *Server) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := s.Get(ctx, "/api/v1/version")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the API of Argo's server: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// artifactRepository describes the pipeline's bucket to Argo. Pipelines share
// the ConfigMap; each applies its own key. The emulator knows an account by
// its access key.
func (l *Lab) artifactRepository(ctx context.Context, inst pipeline.Installation) error {
	secret := func(key string) map[string]any { return map[string]any{"name": artifactSecret, "key": key} }
	repository, err := yaml.Marshal(map[string]any{"s3": map[string]any{
		"endpoint": strings.TrimPrefix(inst.EndpointURL, "http://"), "insecure": true, "region": inst.Region, "bucket": inst.Bucket,
		"accessKeySecret": secret("accesskey"), "secretKeySecret": secret("secretkey"),
	}})
	if err != nil {
		return err
	}
	return l.apply(ctx, inst.Pipeline,
		map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": artifactRepositories, "namespace": inst.Namespace},
			"data":     map[string]any{inst.ArtifactRepository.Key: string(repository)},
		}, map[string]any{
			"apiVersion": "v1", "kind": "Secret",
			"metadata": map[string]any{"name": artifactSecret, "namespace": inst.Namespace},
			"data":     map[string]any{"accesskey": []byte(aws.AccountTools), "secretkey": []byte("test")},
		})
}

// apply applies objects as the manager of that name, which owns what it names.
func (l *Lab) apply(ctx context.Context, manager string, objects ...map[string]any) error {
	var input bytes.Buffer
	encoder := json.NewEncoder(&input)
	for _, o := range objects {
		if err := encoder.Encode(o); err != nil {
			return err
		}
	}
	_, err := l.Kubectl(ctx, input.Bytes(), "apply", "--server-side", "--field-manager", "lab-"+manager, "-f", "-")
	return err
}

// Get returns the body of a path of the server, as a browser would load it.
func (s *Server) Get(ctx context.Context, path string) ([]byte, error) {
	return s.call(ctx, http.MethodGet, path, nil)
}

func (s *Server) call(ctx context.Context, method, path string, body any) ([]byte, error) {
	var text bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&text).Encode(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, &text)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return answer, nil
}

// run makes a Run of the Workflow in an answer.
func (s *Server) run(answer []byte) (*Run, error) {
	var workflow struct {
		Metadata struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(answer, &workflow); err != nil {
		return nil, fmt.Errorf("decode the workflow: %w", err)
	}
	return &Run{lab: s.lab, Namespace: workflow.Metadata.Namespace, Name: workflow.Metadata.Name}, nil
}

// Submit starts a run of a commit from the pipeline's template: the button
// Submit of the user interface.
func (s *Server) Submit(ctx context.Context, p *Pipeline, commit string) (*Run, error) {
	answer, err := s.call(ctx, http.MethodPost, "/api/v1/workflows/"+p.Installation.Namespace+"/submit", map[string]any{
		"namespace": p.Installation.Namespace, "resourceKind": "WorkflowTemplate", "resourceName": p.Installation.Pipeline,
		"submitOptions": map[string]any{"parameters": []string{pipeline.ArgumentCommit + "=" + commit}},
	})
	if err != nil {
		return nil, err
	}
	return s.run(answer)
}

// Act does to a run what the button of that name does (retry, resubmit,
// suspend, resume, stop, terminate) and returns the run that goes on: a new one
// after resubmit, else the same.
func (s *Server) Act(ctx context.Context, run *Run, action string, options map[string]any) (*Run, error) {
	body := map[string]any{"namespace": run.Namespace, "name": run.Name}
	maps.Copy(body, options)
	answer, err := s.call(ctx, http.MethodPut, "/api/v1/workflows/"+run.Namespace+"/"+run.Name+"/"+action, body)
	if err != nil {
		return nil, err
	}
	return s.run(answer)
}
