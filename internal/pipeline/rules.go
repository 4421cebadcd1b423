package pipeline

import (
	"errors"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Bounds of a stage's timeout.
const (
	minTimeout = time.Second
	maxTimeout = 24 * time.Hour
)

// cursor is a value with its place. Its methods tolerate values of another
// type than expected, since the rules run even if the schema had objections.
type cursor struct {
	doc   *document
	place place
	value any
}

// key returns the value of a key; its value is nil if there is none.
func (c cursor) key(name string) cursor {
	object, _ := c.value.(map[string]any) // another type has no keys
	return cursor{doc: c.doc, place: c.place.child(name), value: object[name]}
}

func (c cursor) has(name string) bool {
	object, _ := c.value.(map[string]any) // another type has no keys
	_, ok := object[name]
	return ok
}

// items returns the entries of a list.
func (c cursor) items() []cursor {
	list, _ := c.value.([]any) // another type has no entries
	items := make([]cursor, len(list))
	for i, item := range list {
		items[i] = cursor{doc: c.doc, place: c.place.child(strconv.Itoa(i)), value: item}
	}
	return items
}

// text returns a string, or a number as it was written.
func (c cursor) text() string {
	switch value := c.value.(type) {
	case string:
		return value
	case int, int64, uint64, float64:
		if node := c.doc.values[c.place.id()]; node != nil {
			return node.Value
		}
	}
	return ""
}

// sound reports whether the value is there and nobody objected to it.
func (c cursor) sound() bool { return c.value != nil && !c.doc.flagged[c.place.id()] }

func (c cursor) add(format string, args ...any) { c.doc.add(c.place, format, args...) }

// checkRules adds findings for what the schema cannot express.
func (d *document) checkRules(top cursor) {
	checkUnsupported(top)
	d.checkOldBooleans(top)
	build := top.key("build")
	checkCommands(build)
	checkTimeout(build)
	checkFolder(build.key("artifacts"))
	checkVariables(build.key("env"))
	checkVariables(build.key("secrets"))
	checkTwice(build)
	checkCaches(top.key("cache"))
	checkPatterns(build.key("snapshot").key("exclude"))
	checkPatterns(build.key("snapshot").key("include"))
	names := map[string]int{}
	for i, environment := range top.key("environments").items() {
		checkEnvironment(environment)
		name := environment.key("name")
		if text := name.text(); text != "" && name.sound() {
			if first, found := names[text]; found {
				name.add("the name %s stands twice; environment %d already has it; every environment needs a name of its own", d.show(text), first+1)
				continue
			}
			names[text] = i
		}
	}
	checkImage(top.key("worker").key("image"))
	checkResources(top.key("worker").key("resources"))
	checkURL(top.key("argo").key("url"))
	for _, channel := range top.key("notifications").items() {
		checkNotification(channel, names)
	}
}

// checkUnsupported refuses values that are checked but without effect yet,
// since to ignore them would be worse.
func checkUnsupported(top cursor) {
	for _, environment := range top.key("environments").items() {
		if mode := environment.key("onFailedStack"); mode.text() == "keep" {
			mode.add("not yet supported: %q; allowed for now: %q", "keep", OnFailedStackRollback)
		}
	}
}

// checkOldBooleans refuses yes, no, on and off without quotes: some readers of
// YAML take them for booleans, others for text.
func (d *document) checkOldBooleans(c cursor) {
	switch value := c.value.(type) {
	case map[string]any:
		for name := range value {
			d.checkOldBooleans(c.key(name))
		}
	case []any:
		for _, item := range c.items() {
			d.checkOldBooleans(item)
		}
	case string:
		node := d.values[c.place.id()]
		unquoted := node != nil && node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0
		if unquoted && len(value) > 1 && isOldBoolean(value) && c.sound() {
			c.add("%s without quotes is text for some readers of YAML and a boolean for others; write it in quotes, or write true or false", value)
		}
	}
}

func checkCommands(stage cursor) {
	for _, command := range stage.key("commands").items() {
		if strings.ContainsRune(command.text(), 0) {
			command.add("the command holds a NUL character, which no shell can take; remove it")
		}
	}
}

func checkTimeout(stage cursor) {
	timeout := stage.key("timeout")
	if !timeout.sound() {
		return
	}
	duration, err := time.ParseDuration(timeout.text())
	if err != nil || duration < minTimeout || duration > maxTimeout {
		timeout.add("%s is out of bounds; allowed are durations from 1s to 24h", timeout.doc.showAt(timeout.place))
	}
}

func checkVariables(env cursor) {
	object, _ := env.value.(map[string]any) // another type has no keys
	for name := range object {
		value := env.key(name)
		if strings.HasPrefix(name, "APHEX_") {
			env.doc.addKey(value.place, "names that begin with APHEX_ are set by aphex itself; use another name")
		}
		if strings.ContainsRune(value.text(), 0) {
			value.add("the value holds a NUL character, which no variable can take; remove it")
		}
	}
}

func checkEnvironment(environment cursor) {
	doc := environment.doc
	if name := environment.key("name"); name.text() == Own {
		name.add("\"pipeline\" is taken: its stage would be called deploy-pipeline, like the stage that updates the pipeline itself; use another name")
	}
	checkTimeout(environment)
	checkCommands(environment.key("tests"))
	checkTimeout(environment.key("tests"))
	checkPatterns(environment.key("tests").key("reports"))
	for _, report := range environment.key("tests").key("reports").items() {
		if report.sound() && !insideRepository(strings.TrimPrefix(report.text(), "/")) {
			report.add("%s leads out of the repository; allowed: a pattern of paths relative to its root, such as \"reports/*.xml\"", doc.showAt(report.place))
		}
	}
	seen := map[[2]string]int{}
	for i, stack := range environment.key("stacks").items() {
		checkPath(stack.key("path"))
		checkTimeout(stack)
		name := stack.key("name")
		if name.text() == "" {
			continue
		}
		id := [2]string{name.text(), path.Clean(stack.key("path").text())}
		if first, found := seen[id]; found {
			name.add("the stack %s stands twice in this environment; it is already stack %d; keep one of them", doc.show(name.text()), first+1)
			continue
		}
		seen[id] = i
	}
	checkRole(environment)
}

var roleAccount = regexp.MustCompile(`^arn:[^:]*:iam::([0-9]{12}):role/`)

func checkRole(environment cursor) {
	role, account := environment.key("roleArn"), environment.key("account")
	if !role.sound() {
		if environment.has("externalId") && !environment.has("roleArn") {
			environment.doc.addKey(environment.key("externalId").place, "an external id goes with roleArn, which is missing; add roleArn or remove the key")
		}
		return
	}
	match := roleAccount.FindStringSubmatch(role.text())
	if match != nil && account.sound() && match[1] != account.text() {
		role.add("the role is in account %s, but the environment's account is %s; name a role of the environment's account", match[1], account.text())
	}
}

// checkPath refuses paths that lead out of the repository.
func checkPath(c cursor) {
	if text := c.text(); c.sound() && !insideRepository(text) {
		c.add("%s leads out of the repository; allowed: a path relative to its root, such as \"infra\"", c.doc.showAt(c.place))
	}
}

// checkPatterns refuses patterns that would silently fit nothing.
func checkPatterns(list cursor) {
	for _, pattern := range list.items() {
		for part := range strings.SplitSeq(pattern.text(), "/") {
			if _, err := path.Match(part, ""); err != nil && pattern.sound() {
				pattern.add("%s cannot be understood: [ begins a choice of characters, such as [abc] or [0-9], which ends with ] in the same part of the path; allowed besides: *, ? and **",
					pattern.doc.showAt(pattern.place))
				break
			}
		}
	}
}

func checkFolder(c cursor) {
	checkPath(c)
	if c.sound() && path.Clean(c.text()) == "." {
		c.add("%s is the whole repository; name the folder that holds what is to be published", c.doc.showAt(c.place))
	}
}

func insideRepository(text string) bool {
	clean := path.Clean(text)
	inGit := clean == ".git" || strings.HasPrefix(clean, ".git/")
	return !path.IsAbs(text) && clean != ".." && !strings.HasPrefix(clean, "../") && !strings.HasPrefix(text, "~") && !inGit
}

var imageReference = regexp.MustCompile(`^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?/)?` +
	`[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*` +
	`(?::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?$`)

// checkImage demands an image that stays the same: a moving tag would change
// the toolchain without a commit.
func checkImage(image cursor) {
	if !image.sound() {
		return
	}
	match := imageReference.FindStringSubmatch(image.text())
	const example = "\"registry.example.com/team/node:24.1\" or the same with @sha256:… (64 hexadecimal digits)"
	switch {
	case match == nil:
		image.add("%s is not an image reference; allowed: %s", image.doc.showAt(image.place), example)
	case match[2] != "":
	case match[1] == "":
		image.add("%s has no tag, so it would change under the pipeline's feet; pin it by a tag or digest, such as %s", image.doc.showAt(image.place), example)
	case match[1] == "latest":
		image.add("%s is not pinned: latest changes under the pipeline's feet; use a fixed tag or a digest, such as %s", image.doc.showAt(image.place), example)
	}
}

func checkResources(resources cursor) {
	for _, name := range []string{"cpu", "memory", "ephemeral-storage"} {
		request, requestOK := quantity(resources.key("requests").key(name))
		limit, limitOK := quantity(resources.key("limits").key(name))
		if requestOK && limitOK && request.Cmp(limit) > 0 {
			resources.key("requests").key(name).add("the request %s is above the limit %s; lower it, or raise the limit", request.String(), limit.String())
		}
	}
}

// quantityText is what may reach the pod: no exponents, no signs.
var quantityText = regexp.MustCompile(`^[0-9]+(?:\.[0-9]+)?(?:m|Ki|Mi|Gi|Ti|k|M|G|T)?$`)

// quantity reads a quantity in Kubernetes' notation.
func quantity(c cursor) (resource.Quantity, bool) {
	if !c.sound() {
		return resource.Quantity{}, false
	}
	amount, err := resource.ParseQuantity(c.text())
	if err != nil || !quantityText.MatchString(c.text()) || amount.Sign() <= 0 {
		c.add("%s is not an amount above zero in Kubernetes' notation; allowed are amounts such as \"500m\" and \"2\" for cpu, \"512Mi\" and \"4Gi\" for memory and ephemeral-storage", c.doc.showAt(c.place))
		return resource.Quantity{}, false
	}
	return amount, true
}

func checkURL(c cursor) {
	if !c.sound() {
		return
	}
	address, err := url.Parse(c.text())
	if err == nil && address.Host == "" {
		err = errors.New("no host")
	}
	if err != nil {
		c.add("%s is not an address; allowed: an http or https address such as \"https://argo.example.com\"", c.doc.showAt(c.place))
	}
}

// checkNotification looks at what a channel's type makes of its target, and at
// the environments it names.
func checkNotification(channel cursor, environments map[string]int) {
	target := channel.key("target")
	if topic := strings.HasPrefix(target.text(), "arn:"); target.sound() && topic != (channel.key("type").text() == NotifySNS) {
		target.add("%s does not fit the type %q; allowed: for sns the ARN of a topic such as \"arn:aws:sns:eu-west-1:111111111111:shop\", for the others a reference such as \"secretsmanager:shop/slack#url\"",
			channel.doc.showAt(target.place), channel.key("type").text())
	}
	for _, name := range channel.key("environments").items() {
		if _, known := environments[name.text()]; name.sound() && !known {
			name.add("%s is no environment of this file; allowed are the names under environments", channel.doc.showAt(name.place))
		}
	}
}
