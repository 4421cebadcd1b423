package pipeline

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// maxBuildSecrets keeps a pod's volumes and variables few.
const maxBuildSecrets = 50

// maxTTLDays keeps the derived seconds far below Argo's 32 bits.
const maxTTLDays = 365

// check collects what is wrong with an installation. Findings stand at the
// head of its file until LoadInstallation knows better.
type check struct{ findings []Finding }

func (c *check) add(path, format string, args ...any) {
	c.findings = append(c.findings, Finding{
		File: InstallationKey, Line: 1, Column: 1, Path: path, Message: fmt.Sprintf(format, args...),
	})
}

// match reports value unless all of it matches pattern. An empty value is
// reported if required and passes otherwise.
func (c *check) match(path, value, pattern, allowed string, required bool) bool {
	switch {
	case value == "" && !required:
		return true
	case value == "":
		c.add(path, "is required: %s", allowed)
		return false
	case !regexp.MustCompile(`\A(?:` + pattern + `)\z`).MatchString(value):
		c.add(path, "%q is not allowed: %s", value, allowed)
		return false
	}
	return true
}

// The characters allowed in values that reach a manifest. None of the
// patterns admits a quote, a brace, white space or a control character, so no
// value can end the scalar it stands in or start an Argo tag.
const (
	patternLabel    = `[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?`
	patternName     = `[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?`
	patternBranch   = `[A-Za-z0-9][A-Za-z0-9._/+@=,-]{0,254}`
	patternPath     = `[A-Za-z0-9._@+=,-]+(?:/[A-Za-z0-9._@+=,-]+)*`
	patternBucket   = `[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]`
	patternImage    = `[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}`
	patternRole     = `arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}`
	patternToken    = `[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}` //nolint:gosec // G101: a pattern
	patternKey      = `[A-Za-z0-9._-]{1,253}`
	patternVariable = `[A-Za-z_][A-Za-z0-9_]{0,127}`
	patternValue    = `[A-Za-z0-9 ._~:/@%+,;=*?!#$&|()\[\]-]{0,1000}`
	patternSecret   = `(?:secretsmanager|ssm):[A-Za-z0-9/_+=.@:-]{1,512}|kubernetes:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?`
	patternURL      = `[a-z]+://[A-Za-z0-9._~:/@%+\[\]-]+`
)

// Validate returns nil or an *InvalidError with everything that is wrong, each
// finding with its path. Optional fields must have been filled by
// WithDefaults.
func (i Installation) Validate() error {
	c := &check{}
	i.checkNames(c)
	i.checkRepository(c)
	i.checkAWS(c)
	i.checkPod(c)
	if len(c.findings) == 0 {
		return nil
	}
	return &InvalidError{Findings: c.findings}
}

func (i Installation) checkNames(c *check) {
	const label = "a DNS label: lower-case letters, digits and inner hyphens, at most 63"
	if c.match("pipeline", i.Pipeline, patternLabel, "a DNS label of at most 40 characters", true) && len(i.Pipeline) > 40 {
		c.add("pipeline", "%q has %d characters: at most 40 are allowed, since names of runs and objects are derived from it", i.Pipeline, len(i.Pipeline))
	}
	c.match("controllerNamespace", i.ControllerNamespace, patternLabel, label, true)
	if c.match("namespace", i.Namespace, patternLabel, label, true) && i.Namespace == i.ControllerNamespace {
		c.add("namespace", "%q is the namespace of Argo's controller: agent pods of every namespace would get this pipeline's plugin; use a namespace of its own", i.Namespace)
	}
	c.match("serviceAccount", i.ServiceAccount, patternName, "a Kubernetes object name", true)
	c.match("gitSecret", i.GitSecret, patternName, "a Kubernetes object name", true)
	i.checkBuildSecrets(c)
	i.checkChannelSecrets(c)
	if i.TTLDays < 1 || i.TTLDays > maxTTLDays {
		c.add("ttlDays", "%d is not allowed: 1 to %d", i.TTLDays, maxTTLDays)
	}
}

// checkBuildSecrets keeps the tokens of service accounts, which are Secrets of
// the namespace, too, from being given to commands.
func (i Installation) checkBuildSecrets(c *check) {
	if len(i.BuildSecrets) > maxBuildSecrets {
		c.add("buildSecrets", "has %d entries: at most %d are allowed", len(i.BuildSecrets), maxBuildSecrets)
	}
	for n, ref := range i.BuildSecrets {
		at := fmt.Sprintf("buildSecrets[%d]", n)
		c.match(at, ref, patternSecret, "a reference without a field, such as secretsmanager:shop/npm, ssm:/shop/npm-token or kubernetes:npm", true)
		if strings.HasPrefix(ref, "kubernetes:") && strings.HasSuffix(ref, ".service-account-token") {
			c.add(at, "%q is not allowed: it is the token of a service account, which is not for commands", ref)
		}
		if slices.Index(i.BuildSecrets, ref) < n {
			c.add(at, "%q stands twice", ref)
		}
	}
}

// checkChannelSecrets keeps what a channel is sent to from being the token of a
// service account.
func (i Installation) checkChannelSecrets(c *check) {
	if len(i.ChannelSecrets) > maxBuildSecrets {
		c.add("channelSecrets", "has %d entries: at most %d are allowed", len(i.ChannelSecrets), maxBuildSecrets)
	}
	for n, name := range i.ChannelSecrets {
		at := fmt.Sprintf("channelSecrets[%d]", n)
		c.match(at, name, patternName, "the name of a Secret, such as shop-slack", true)
		if strings.HasSuffix(name, ".service-account-token") {
			c.add(at, "%q is not allowed: it is the token of a service account, which is not for channels", name)
		}
		if slices.Index(i.ChannelSecrets, name) < n {
			c.add(at, "%q stands twice", name)
		}
	}
}

func (i Installation) checkRepository(c *check) {
	c.url("repoUrl", i.RepoURL, true, "http", "https", "ssh")
	if c.match("branch", i.Branch, patternBranch, "a branch name of letters, digits and . _ / + @ = , -", true) && strings.Contains(i.Branch, "..") {
		c.add("branch", "%q is not allowed: git has no branch with two dots in a row", i.Branch)
	}
	c.relative("configPath", i.ConfigPath, true)
	c.url("argoUrl", i.ArgoURL, false, "http", "https")
}

func (i Installation) checkAWS(c *check) {
	c.match("bucket", i.Bucket, patternBucket, "an S3 bucket name: 3 to 63 lower-case letters, digits, dots and hyphens", true)
	c.relative("bucketPrefix", i.BucketPrefix, false)
	repository := i.ArtifactRepository
	c.match("artifactRepository.configMap", repository.ConfigMap, patternName, "the name of a ConfigMap", repository.Key != "")
	c.match("artifactRepository.key", repository.Key, patternKey, "a key of a ConfigMap: letters, digits and . _ -", repository.ConfigMap != "")
	c.match("region", i.Region, patternRegion, "an AWS region such as eu-west-1"+offerRegion(i.Region), true)
	c.url("endpointUrl", i.EndpointURL, false, "http", "https")
	c.match("aws.roleArn", i.AWS.RoleARN, patternRole, "an IAM role ARN such as arn:aws:iam::111111111111:role/aphex", i.AWS.ProjectToken)
	c.match("aws.audience", i.AWS.Audience, patternToken, "letters, digits and . _ : / -", true)
}

func (i Installation) checkPod(c *check) {
	c.match("runner", i.Runner, RunnerPlugin+"|"+RunnerContainer, "plugin or container", true)
	c.match("nudge", i.Nudge, NudgeOn+"|"+NudgeOff, "on or off", true)
	const image = "an image reference of letters, digits and . _ : / @ -"
	c.match("images.plugin", i.Images.Plugin, patternImage, image, true)
	c.match("images.worker", i.Images.Worker, patternImage, image, true)
	c.match("images.builder", i.Images.Builder, BuilderAuto+"|"+BuilderDocker+"|"+BuilderBuildah, "auto, docker or buildah", false)
	c.match("imagePullPolicy", i.ImagePullPolicy, "Always|IfNotPresent|Never", "Always, IfNotPresent or Never", true)
	for n, name := range i.ImagePullSecrets {
		c.match(fmt.Sprintf("imagePullSecrets[%d]", n), name, patternName, "a Kubernetes object name", true)
	}
	c.environment("workerEnv", i.WorkerEnv)
	c.quantities("workerResources.requests", i.WorkerResources.Requests)
	c.quantities("workerResources.limits", i.WorkerResources.Limits)
	for _, name := range slices.Sorted(maps.Keys(i.WorkerResources.Limits)) {
		limit, request := i.WorkerResources.Limits[name], i.WorkerResources.Requests[name]
		if quantityLess(limit, request) {
			c.add("workerResources.limits."+name, "%q is less than the request of %q", limit, request)
		}
	}
}

// url reports a value that is not a plain URL of one of the schemes: with a
// host, without a password, query or fragment.
func (c *check) url(path, value string, required bool, schemes ...string) {
	allowed := "a URL of scheme " + strings.Join(schemes, ", ") + " without credentials, query or fragment"
	u, err := url.Parse(value)
	if err != nil {
		// Neither the value nor the error is repeated: both may hold a credential.
		c.add(path, "is not a URL: %s", allowed)
		return
	}
	if _, withPassword := u.User.Password(); withPassword || u.User != nil && u.Scheme != "ssh" {
		c.add(path, "holds credentials: put them into the Secret that gitSecret names and keep the URL free of them")
		return
	}
	if !c.match(path, value, patternURL, allowed, required) || value == "" {
		return
	}
	if u.Host == "" || !slices.Contains(schemes, u.Scheme) {
		c.add(path, "%q is not allowed: %s", value, allowed)
	}
}

// relative reports a value that is not a clean slash-separated path that
// stays inside its root.
func (c *check) relative(name, value string, required bool) {
	const allowed = "a relative, slash-separated path of letters, digits and . _ @ + = , - without . and .. elements"
	if c.match(name, value, patternPath, allowed, required) && value != "" && (path.Clean(value) != value || value == "." || strings.HasPrefix(value, "..")) {
		c.add(name, "%q is not allowed: %s", value, allowed)
	}
}

func (c *check) quantities(path string, quantities map[string]string) {
	known := []string{"cpu", "memory", "ephemeral-storage"}
	for _, name := range slices.Sorted(maps.Keys(quantities)) {
		if !slices.Contains(known, name) {
			c.add(path+"."+name, "is not a resource the worker can have: %s", strings.Join(known, ", "))
			continue
		}
		if _, err := parseQuantity(quantities[name]); err != nil {
			c.add(path+"."+name, "%q is not allowed: %s", quantities[name], err)
		}
	}
}

// environment reports variables the worker must not have: its container holds
// no credential and nothing that is the sidecar's.
func (c *check) environment(path string, variables map[string]string) {
	reserved := regexp.MustCompile(`\A(?:AWS_|APHEX_|ARGO_|KUBERNETES_)`)
	userinfo := regexp.MustCompile(`://[^/@]*:[^/@]*@`)
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		at, value := path+"."+name, variables[name]
		switch {
		case !c.match(at, name, patternVariable, "a variable name of letters, digits and _", true):
		case reserved.MatchString(name):
			c.add(at, "is not allowed: variables that begin with AWS_, APHEX_, ARGO_ or KUBERNETES_ are not the worker's")
		case userinfo.MatchString(value):
			c.add(at, "holds a password in a URL: every command of the pipeline could read it")
		default:
			c.match(at, value, patternValue, "printable ASCII without quotes, braces, backslash, < and >, at most 1000 characters", false)
		}
	}
}

// errQuantity says what a quantity may look like.
var errQuantity = errors.New(`a number with an optional unit: m, k, M, G, T, Ki, Mi, Gi or Ti, such as "500m" or "2Gi"`)

// parseQuantity returns the value of a quantity in Kubernetes' notation, as
// far as resources of a container need it.
func parseQuantity(s string) (*big.Rat, error) {
	m := regexp.MustCompile(`\A([0-9]{1,15}(?:\.[0-9]{1,9})?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?\z`).FindStringSubmatch(s)
	if m == nil {
		return nil, errQuantity
	}
	value, ok := new(big.Rat).SetString(m[1])
	if !ok {
		return nil, errQuantity
	}
	units := map[string]*big.Rat{
		"": big.NewRat(1, 1), "m": big.NewRat(1, 1000),
		"k": big.NewRat(1e3, 1), "M": big.NewRat(1e6, 1), "G": big.NewRat(1e9, 1), "T": big.NewRat(1e12, 1),
		"Ki": big.NewRat(1<<10, 1), "Mi": big.NewRat(1<<20, 1), "Gi": big.NewRat(1<<30, 1), "Ti": big.NewRat(1<<40, 1),
	}
	return value.Mul(value, units[m[2]]), nil
}

// quantityLess reports whether both are quantities and a is less than b.
func quantityLess(a, b string) bool {
	left, errLeft := parseQuantity(a)
	right, errRight := parseQuantity(b)
	return errLeft == nil && errRight == nil && left.Cmp(right) < 0
}
