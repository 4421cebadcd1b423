package pipeline

import "time"

// decode turns a valid document into a Config with its defaults filled in.
func decode(top cursor) *Config {
	build, worker := top.key("build"), top.key("worker")
	config := &Config{
		Version: top.key("version").text(),
		Build: Build{
			Commands:    texts(build.key("commands")),
			Timeout:     duration(build.key("timeout")),
			Artifacts:   build.key("artifacts").text(),
			Env:         textMap(build.key("env")),
			Secrets:     textMap(build.key("secrets")),
			Credentials: build.key("credentials").value == true,
			Snapshot: Snapshot{
				Exclude: texts(build.key("snapshot").key("exclude")),
				Include: texts(build.key("snapshot").key("include")),
			},
		},
		Tools: texts(top.key("tools")),
		Worker: Worker{
			Image: worker.key("image").text(),
			Resources: Resources{
				Requests: textMap(worker.key("resources").key("requests")),
				Limits:   textMap(worker.key("resources").key("limits")),
			},
		},
		Argo:             Argo{URL: top.key("argo").key("url").text()},
		SelfModification: top.key("selfModification").text(),
	}
	if config.Build.Artifacts == "" {
		config.Build.Artifacts = DefaultArtifacts
	}
	if config.SelfModification == "" {
		config.SelfModification = SelfModificationNextRun
	}
	for _, item := range top.key("cache").items() {
		config.Cache = append(config.Cache, Cache{Paths: texts(item.key("paths")), Key: texts(item.key("key"))})
	}
	for _, item := range top.key("notifications").items() {
		config.Notifications = append(config.Notifications, Notification{
			Type: item.key("type").text(), Target: item.key("target").text(),
			Events: texts(item.key("events")), Environments: texts(item.key("environments")),
		})
	}
	for _, item := range top.key("environments").items() {
		config.Environments = append(config.Environments, decodeEnvironment(item))
	}
	return config
}

func decodeEnvironment(item cursor) Environment {
	environment := Environment{
		Name:            item.key("name").text(),
		Region:          item.key("region").text(),
		Account:         item.key("account").text(),
		Timeout:         duration(item.key("timeout")),
		RoleARN:         item.key("roleArn").text(),
		ExternalID:      item.key("externalId").text(),
		Concurrency:     whole(item.key("concurrency")),
		OnFailedStack:   item.key("onFailedStack").text(),
		RequiredContext: texts(item.key("requiredContext")),

		ImportExistingResources: item.key("importExistingResources").value == true,
	}
	if context, ok := item.key("context").value.(map[string]any); ok && len(context) > 0 {
		environment.Context = context
	}
	for _, stack := range item.key("stacks").items() {
		environment.Stacks = append(environment.Stacks, Stack{
			Name: stack.key("name").text(), Path: stack.key("path").text(),
			Timeout: duration(stack.key("timeout")), OnEmpty: stack.key("onEmpty").text(),
		})
	}
	if item.has("tests") {
		tests := item.key("tests")
		environment.Tests = &Tests{Commands: texts(tests.key("commands")), Timeout: duration(tests.key("timeout")), Reports: texts(tests.key("reports"))}
	}
	return environment
}

// texts returns the entries of a list of strings, nil if it is empty.
func texts(list cursor) []string {
	var out []string
	for _, item := range list.items() {
		out = append(out, item.text())
	}
	return out
}

// textMap returns a mapping of strings without the keys that begin with x- and
// are the user's own, nil if it is empty.
func textMap(object cursor) map[string]string {
	values, ok := object.value.(map[string]any)
	if !ok || len(values) == 0 {
		return nil
	}
	out := make(map[string]string, len(values))
	for name := range values {
		if len(name) < 2 || name[:2] != "x-" {
			out[name] = object.key(name).text()
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// whole returns a checked whole number, 0 if there is none. YAML also writes
// it as 4.0 or 4e0.
func whole(c cursor) int {
	switch value := c.value.(type) {
	case int:
		return value
	case int64:
		return int(value)
	case uint64:
		return int(value)
	case float64:
		return int(value)
	}
	return 0
}

// duration returns a checked duration, 0 if there is none.
func duration(c cursor) time.Duration {
	value, err := time.ParseDuration(c.text())
	if err != nil {
		return 0
	}
	return value
}
