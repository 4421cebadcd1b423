package chaos

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/tools/clientcmd"
)

// newKubePassage stands before the API server: callers show their own tokens,
// and the passage has no identity.
// saw is told the UIDs of the pods that write journals.
func newKubePassage(t *tap, kubeconfig string, names *names, saw func(podUID string)) (*passage, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(config.CAData) {
		return nil, errors.New("the kubeconfig has no certificate authority")
	}
	view := &journalView{tap: t, names: names, saw: saw, data: map[string]map[string]string{}}
	return &passage{
		tap: t, target: target,
		transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true},
		name: func(req *http.Request, body []byte) (kind, verb, object string, ok bool) {
			return KindKube, req.Method, view.object(req, body), true
		},
		done: view.done,
	}, nil
}

// journalView turns writes of a run's journal into what they say.
type journalView struct {
	tap   *tap
	names *names
	saw   func(podUID string)

	mu   sync.Mutex
	data map[string]map[string]string // by name of the ConfigMap
}

// object names what a request changes: for a journal, what is new in it.
func (v *journalView) object(req *http.Request, body []byte) string {
	path := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	i := slices.Index(path, "namespaces")
	if i < 0 || i+2 >= len(path) {
		return v.names.plain(req.URL.Path)
	}
	resource := path[i+2]
	if resource != "configmaps" {
		sub := ""
		if len(path) > i+4 {
			sub = "/" + path[i+4]
		}
		return resource + sub
	}
	name, data := configMap(body)
	if !strings.HasPrefix(name, "aphex-journal-") {
		return v.names.plain(name) + phase(data)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return "journal " + strings.Join(news(v.data[name], data), "+")
}

// done keeps what a journal holds after a write.
func (v *journalView) done(_ *http.Request, body []byte, status int) {
	name, data := configMap(body)
	if !strings.HasPrefix(name, "aphex-journal-") || status/100 != 2 {
		return
	}
	v.mu.Lock()
	old := v.data[name]
	v.data[name] = data
	v.mu.Unlock()
	for key, text := range data {
		if e, ok := entryOf(text); ok && old[key] != text {
			v.tap.ended(e.label(), e.Final != nil)
			v.saw(e.PodUID)
		}
	}
}

func configMap(body []byte) (name string, data map[string]string) {
	var object struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Data map[string]string `json:"data"`
	}
	if json.Unmarshal(body, &object) != nil {
		return "", nil
	}
	return object.Metadata.Name, object.Data
}

// phase is what the state of the environments says, in order.
func phase(data map[string]string) string {
	var words strings.Builder
	for _, key := range slices.Sorted(maps.Keys(data)) {
		var state struct {
			Phase string `json:"phase"`
		}
		if json.Unmarshal([]byte(data[key]), &state) == nil && state.Phase != "" {
			words.WriteString(" " + key + "=" + state.Phase)
		}
	}
	return words.String()
}

// entry is one execution in a journal.
type entry struct {
	Stage       string                     `json:"stage"`
	Environment string                     `json:"environment"`
	Starts      int                        `json:"starts"`
	PodUID      string                     `json:"podUID"`
	Effects     map[string]json.RawMessage `json:"effects"`
	Final       json.RawMessage            `json:"final"`
}

func entryOf(text string) (entry, bool) {
	var e entry
	return e, json.Unmarshal([]byte(text), &e) == nil && e.Stage != ""
}

func (e *entry) label() string {
	if e.Environment == "" {
		return e.Stage
	}
	return e.Stage + "-" + e.Environment
}

// news lists what data says that old did not, in order.
func news(old, data map[string]string) []string {
	var out []string
	for key, text := range data {
		if old[key] == text {
			continue
		}
		now, ok := entryOf(text)
		if !ok {
			if key == "writer" {
				out = append(out, "claim")
			}
			continue
		}
		was, _ := entryOf(old[key])
		out = append(out, now.news(&was)...)
	}
	slices.Sort(out)
	return out
}

func (e *entry) news(was *entry) []string {
	var out []string
	if e.Starts != was.Starts {
		out = append(out, e.label()+" begin")
	}
	for name, value := range e.Effects {
		if string(was.Effects[name]) != string(value) {
			out = append(out, e.label()+" "+effect(name, value))
		}
	}
	if e.Final != nil && was.Final == nil {
		out = append(out, e.label()+" end")
	}
	return out
}

// effect names an effect by its name up to a digest, and its step.
func effect(name string, value json.RawMessage) string {
	var intent struct {
		Step string `json:"step"`
	}
	name = hexForm.ReplaceAllString(name, "")
	if json.Unmarshal(value, &intent) == nil && intent.Step != "" {
		return name + " " + intent.Step
	}
	return name
}
