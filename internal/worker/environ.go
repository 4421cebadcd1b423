package worker

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// defaultPath is PATH where the container declares none.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// markVar tags every process of a command; see family.
const markVar = "APHEX_COMMAND_ID"

// serviceLink matches the variables Kubernetes adds for every Service of the
// namespace: they differ from pod to pod and are no part of the image.
var serviceLink = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)

// serviceURL is the value of the one link whose name tells nothing (SHOP_PORT).
var serviceURL = regexp.MustCompile(`^(tcp|udp|sctp)://`)

// inherited returns what of the container's environment commands may see: what
// the image declares (JAVA_HOME, GOPATH, NODE_PATH …) without what the cluster
// or we put there.
func inherited(environ []string) map[string]string {
	env := map[string]string{}
	for _, kv := range environ {
		key, value, ok := strings.Cut(kv, "=")
		if ok && key != "" && !withheld(key, value) {
			env[key] = value
		}
	}
	return env
}

func withheld(key, value string) bool {
	for _, prefix := range []string{"APHEX_", "ARGO_", "AWS_", "KUBERNETES_"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	switch key {
	case "PWD", "OLDPWD", "SHLVL", "_":
		return true
	}
	return serviceLink.MatchString(key) ||
		strings.HasSuffix(key, "_PORT") && serviceURL.MatchString(value)
}

// baseEnv is the default environment of every command below root.
func baseEnv(environ []string, root string) map[string]string {
	env := inherited(environ)
	if env["PATH"] == "" {
		env["PATH"] = defaultPath
	}
	if env["LANG"] == "" {
		env["LANG"] = "C.UTF-8"
	}
	source := filepath.Join(root, SourceDir)
	maps.Copy(env, map[string]string{
		"HOME":   filepath.Join(root, HomeDir),
		"TMPDIR": filepath.Join(root, TempDir),
		"CI":     "true",
		// The instance's own role is not for user code.
		"AWS_EC2_METADATA_DISABLED": "true",
		"GIT_TERMINAL_PROMPT":       "0",
		// The checkout may belong to another user than the command's.
		"GIT_CONFIG_COUNT":   "2",
		"GIT_CONFIG_KEY_0":   "safe.directory",
		"GIT_CONFIG_VALUE_0": source,
		"GIT_CONFIG_KEY_1":   "safe.directory",
		"GIT_CONFIG_VALUE_1": source + "/*",
	})
	return env
}

// commandEnv is the environment of one command, as a map.
func commandEnv(base, env map[string]string, exact bool) map[string]string {
	out := map[string]string{}
	if !exact {
		maps.Copy(out, base)
	}
	maps.Copy(out, env)
	delete(out, markVar)
	return out
}

// environList returns env sorted, with the tag and the directory.
func environList(env map[string]string, mark, dir string) []string {
	out := make([]string, 0, len(env)+2)
	for _, key := range slices.Sorted(maps.Keys(env)) {
		if key != "PWD" {
			out = append(out, key+"="+env[key])
		}
	}
	return append(out, "PWD="+dir, markVar+"="+mark)
}

// carried returns what the next command takes over of an environment block.
func carried(block []string) map[string]string {
	env := make(map[string]string, len(block))
	for _, kv := range block {
		key, value, ok := strings.Cut(kv, "=")
		if !ok || key == "" {
			continue
		}
		switch key {
		case markVar, "PWD", "SHLVL", "_":
			continue
		}
		env[key] = value
	}
	return env
}
