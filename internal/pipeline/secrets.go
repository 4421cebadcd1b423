package pipeline

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// secretFormat is a kind of secret that can be told by its looks.
type secretFormat struct {
	what    string
	pattern *regexp.Regexp // the secret is the last group, or the whole match
	check   func(name, secret string) bool
	random  bool // told by its randomness alone
}

// secretFormats are tried in this order; what one has matched no later one
// reports again.
//
//nolint:gochecknoglobals // a table
var secretFormats = []secretFormat{
	{what: "a private key", pattern: regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----`)},
	{what: "an age private key", pattern: regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]{20,}`)},
	{what: "a JSON web token", pattern: regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`)},
	{what: "an AWS access key id", pattern: regexp.MustCompile(`(?:^|[^A-Z0-9])((?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})(?:[^A-Z0-9]|$)`)},
	{what: "a GitHub token", pattern: regexp.MustCompile(`gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}`)},
	{what: "a GitLab token", pattern: regexp.MustCompile(`gl(?:pat|dt|ptt|rt|cbt|ft|soat|agent|imt)-[A-Za-z0-9_.-]{20,}`)},
	{what: "a Slack token", pattern: regexp.MustCompile(`(?:xox[a-z](?:\.xox[a-z])?|xapp)-[A-Za-z0-9-]{10,}`)},
	{what: "a Slack webhook", pattern: regexp.MustCompile(`https://hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/([A-Za-z0-9/]{20,})`)},
	{what: "an npm token", pattern: regexp.MustCompile(`npm_[A-Za-z0-9]{30,}`)},
	{what: "a PyPI token", pattern: regexp.MustCompile(`pypi-[A-Za-z0-9_-]{50,}`)},
	{what: "a Docker Hub token", pattern: regexp.MustCompile(`dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}`)},
	{what: "a Google API key", pattern: regexp.MustCompile(`AIza[A-Za-z0-9_-]{35}`)},
	{what: "a Stripe key", pattern: regexp.MustCompile(`(?:sk|rk|whsec)_(?:live_|test_)?[A-Za-z0-9]{24,}`)},
	{what: "a SendGrid key", pattern: regexp.MustCompile(`SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}`)},
	{what: "a Vault token", pattern: regexp.MustCompile(`hv[sbr]\.[A-Za-z0-9_-]{24,}`)},
	{what: "a DigitalOcean token", pattern: regexp.MustCompile(`do[opr]_v1_[a-f0-9]{64}`)},
	{what: "a Hugging Face token", pattern: regexp.MustCompile(`hf_[A-Za-z0-9]{30,}`)},
	{what: "an API key", pattern: regexp.MustCompile(`\bsk-[A-Za-z0-9_-]{20,}`)},
	{
		what:    "a password in an address",
		pattern: regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@"']*:([^\s/@"']+)@`),
		check:   func(_, secret string) bool { return isLiteral(secret) },
	},
	{
		what:    "credentials of an HTTP request",
		pattern: regexp.MustCompile(`(?i)authorization["']?\s*[:=]\s*["']?(?:bearer|basic|token)\s+([^\s"']+)`),
		check:   func(_, secret string) bool { return isLiteral(secret) },
	},
	{
		what:    "a secret",
		pattern: regexp.MustCompile(`([A-Za-z][A-Za-z0-9_.-]*)["']?(?:=|:=)["']?([^\s"'\x60;|&]{6,})`),
		check:   func(name, secret string) bool { return isSecretName(name) && isLiteral(secret) },
	},
	{
		what:    "a secret",
		pattern: regexp.MustCompile(`(?:^|\s)--?([A-Za-z][A-Za-z0-9-]*)\s+["']?([^\s"'\x60;|&-][^\s"'\x60;|&]{5,})`),
		check:   func(name, secret string) bool { return isSecretName(name) && isLiteral(secret) },
	},
	{
		what:    "a secret",
		pattern: regexp.MustCompile(`([A-Za-z][A-Za-z0-9_.-]*)["']?:\s*["']?([^\s"'\x60;|&,]{6,})`),
		check: func(name, secret string) bool {
			return isSecretName(name) && isLiteral(secret) &&
				strings.ContainsAny(secret, "0123456789!#$%&*+=?@^~") && strings.ContainsFunc(secret, isLetter)
		},
	},
	{
		random:  true,
		what:    "a secret (40 characters at random, as in an AWS secret access key)",
		pattern: regexp.MustCompile(`(?:^|[^A-Za-z0-9/+=_-])([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=_-]|$)`),
		check:   func(_, secret string) bool { return isRandom(secret, 0.4) },
	},
	{
		random:  true,
		what:    "a secret (characters at random)",
		pattern: regexp.MustCompile(`[A-Za-z0-9+/_-]{20,}={0,2}`),
		check:   func(_, secret string) bool { return isRandom(secret, 0.35) },
	},
}

// harmless are texts with characters at random that are no secrets: digests,
// integrity strings, ARNs, UUIDs.
var harmless = regexp.MustCompile(`(?i)sha(?:1|224|256|384|512)[:-][A-Za-z0-9+/=]+|arn:aws[a-z-]*:[^\s"']+|` +
	`[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|data:[a-z]+/[a-z0-9.+-]+;base64,`)

// maxSecrets bounds the work on a document that is nothing but secrets.
const maxSecrets = 100

// scan calls report for every secret in text, from left to right per format,
// up to maxSecrets.
func scan(text string, report func(start, end int, format secretFormat)) {
	var taken, quiet [][2]int
	for _, span := range harmless.FindAllStringIndex(text, -1) {
		quiet = append(quiet, [2]int{span[0], span[1]})
	}
	for _, format := range secretFormats {
		for offset := 0; offset < len(text); {
			match := format.pattern.FindStringSubmatchIndex(text[offset:])
			if match == nil {
				break
			}
			for j := range match {
				match[j] += offset
			}
			start, end := match[len(match)-2], match[len(match)-1]
			name := ""
			if len(match) == 6 {
				name = text[match[2]:match[3]]
			}
			// A delimiter may end one match and begin the next.
			offset = max(end, match[0]+1)
			if start = format.begin(name, text, start, end); start == end {
				continue
			}
			if overlaps(taken, start, end) || format.random && overlaps(quiet, start, end) {
				continue
			}
			taken = append(taken, [2]int{start, end})
			report(start, end, format)
			if len(taken) == maxSecrets {
				return
			}
		}
	}
}

// begin returns where the secret of a match begins, or end if there is none: at
// the value of name, or at that of B in A=B=c.
func (f *secretFormat) begin(name, text string, start, end int) int {
	const shortest = 6 // as in the patterns
	if f.check == nil {
		return start
	}
	named := name != "" // some patterns have no names
	noName := func(r rune) bool { return !isLetter(r) && (r < '0' || r > '9') && !strings.ContainsRune("_.-", r) }
	for !f.check(name, text[start:end]) {
		before, after, _ := strings.Cut(text[start:end], "=")
		if !named || len(after) < shortest {
			return end
		}
		name = before[strings.LastIndexFunc(before, noName)+1:]
		start = end - len(after)
	}
	return start
}

func overlaps(spans [][2]int, start, end int) bool {
	return slices.ContainsFunc(spans, func(s [2]int) bool { return start < s[1] && s[0] < end })
}

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }

// isSecretName reports whether a key or variable of that name holds a secret.
// Only the last word counts: NPM_TOKEN does, TOKEN_TTL and SECRET_ARN do not.
func isSecretName(name string) bool {
	words := splitName(name)
	if len(words) == 0 {
		return false
	}
	last, before := words[len(words)-1], ""
	if len(words) > 1 {
		before = words[len(words)-2]
	}
	switch last {
	case "password", "passwd", "pwd", "passphrase", "secret", "token", "apikey", "apitoken", "accesstoken", "authtoken", "secretkey", "privatekey", "accesskey", "credentials", "pat":
		return true
	case "key":
		return slices.Contains([]string{"api", "secret", "access", "private", "signing", "encryption", "auth", "account"}, before)
	}
	return strings.HasSuffix(last, "password") // PGPASSWORD
}

func splitName(name string) []string {
	var words []string
	word := strings.Builder{}
	flush := func() {
		if word.Len() > 0 {
			words = append(words, strings.ToLower(word.String()))
			word.Reset()
		}
	}
	runes := []rune(name)
	upper := func(i int) bool { return i < len(runes) && runes[i] >= 'A' && runes[i] <= 'Z' }
	lower := func(i int) bool { return i >= 0 && i < len(runes) && runes[i] >= 'a' && runes[i] <= 'z' }
	for i, r := range runes {
		switch {
		case !isLetter(r):
			flush()
			continue
		case upper(i) && (lower(i-1) || lower(i+1)):
			flush()
		}
		word.WriteRune(r)
	}
	flush()
	return words
}

// isLiteral reports whether a value stands for itself, rather than for
// something that is read elsewhere.
func isLiteral(value string) bool {
	if value == "" {
		return false
	}
	for _, prefix := range []string{
		"$", "{{", "<", "%", "*", "/", "./", "~", "arn:", "ssm:", "secretsmanager:", "kubernetes:", "resolve:", "file:", "op://", "vault:",
		"id=", "type=", // docker build --secret
	} {
		if strings.HasPrefix(value, prefix) {
			return false
		}
	}
	switch strings.ToLower(value) {
	case "true", "false", "null", "none", "required", "optional":
		return false
	}
	return true
}

//nolint:gochecknoglobals // constants that have to be computed
var (
	separators = strings.NewReplacer("-", "", "_", "", "/", "", "+", "", "=", "")
	hexDigits  = regexp.MustCompile(`^(?:[0-9a-f]+|[0-9A-F]+)$`)
)

// commonPairs are the pairs of letters that make up more than half of what
// people write in names, and a tenth of what chance writes.
const commonPairs = "th he in er an re nd at on nt ha es st en ed to it ou ea hi is or ti as te et ng of al de se le sa si " +
	"ar ve ra ld ur ro ic ne io me ma co el li la ce ch ta ri il ac om ge ec ot us un tr pr ap pi od vi ct ai sh ho ke ck " +
	"op pl ad po ut ss ll ee "

// isRandom tells keys and tokens from names, paths, digests and commit ids:
// pairs is the share of common pairs of letters below which a text of both
// cases and digits is taken for random. The thresholds were measured: see
// TestIsRandom.
func isRandom(token string, pairs float64) bool {
	token = separators.Replace(token)
	if len(token) < 20 || hexDigits.MatchString(token) {
		return false
	}
	lower, upper, digits := countKinds(token)
	switches, adjacent, common := countPairs(token)
	if lower == 0 || upper == 0 {
		// One case only: names with numbers have few changes between letters
		// and digits. Identifiers of AWS in upper case are short.
		return len(token) >= 32 && digits >= 4 && switches*5 >= len(token)
	}
	enough := digits >= 2 && switches >= 3 || len(token) >= 32 && digits >= 1
	return enough && float64(common) < pairs*float64(adjacent)
}

// countKinds counts the characters of each kind.
func countKinds(token string) (lower, upper, digits int) {
	for i := range len(token) {
		switch c := token[i]; {
		case isDigit(c):
			digits++
		case c >= 'a':
			lower++
		default:
			upper++
		}
	}
	return lower, upper, digits
}

// countPairs counts the changes between letters and digits, the pairs of
// letters within a word, and those of them that are common.
func countPairs(token string) (switches, adjacent, common int) {
	for i := 1; i < len(token); i++ {
		before, c := token[i-1], token[i]
		switch {
		case isDigit(before) != isDigit(c):
			switches++
		case isDigit(c) || before >= 'a' && c < 'a': // the next word begins
		default:
			adjacent++
			if strings.Contains(commonPairs, strings.ToLower(token[i-1:i+1])+" ") {
				common++
			}
		}
	}
	return switches, adjacent, common
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// secretSet holds the secrets of one document, so that no message shows them.
type secretSet struct {
	texts []string
}

// add takes a secret whose text must never be shown.
func (s *secretSet) add(text string) {
	const shortest = 4 // replacing less would only garble messages
	if len(text) < shortest || slices.Contains(s.texts, text) {
		return
	}
	s.texts = append(s.texts, text)
	slices.SortFunc(s.texts, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
}

// mask replaces every secret in text.
func (s *secretSet) mask(text string) string { return s.maskFrom(text, 0) }

// maskFrom replaces the secrets of at least shortest bytes.
func (s *secretSet) maskFrom(text string, shortest int) string {
	for _, secret := range s.texts {
		if len(secret) < shortest {
			continue
		}
		text = strings.ReplaceAll(text, secret, hint(secret))
		if quoted := strings.Trim(strconv.Quote(secret), `"`); quoted != secret {
			text = strings.ReplaceAll(text, quoted, hint(secret))
		}
	}
	return text
}

// hint is what may be shown of a secret: enough to find it, too little to use.
func hint(secret string) string {
	const shown = 4
	if utf8.RuneCountInString(secret) < 16 {
		return "***"
	}
	runes := []rune(secret)
	return string(runes[:shown]) + "***"
}

// secretHit is a secret at a position of the text.
type secretHit struct {
	line, column int
	text, what   string
	place        place
	inText       bool // found in the text, at offset
	offset       int
	inComment    bool
	random       bool
}

// scanText finds secrets anywhere in the text, comments included, and keeps
// them from being shown. It works on text that is not valid YAML, too.
func (d *document) scanText() []secretHit {
	var hits []secretHit
	number, offset := 0, 0
	for line := range strings.SplitSeq(d.text, "\n") {
		number++
		scan(line, func(start, end int, format secretFormat) {
			d.secrets.add(line[start:end])
			hits = append(hits, secretHit{
				line: number, column: 1 + utf8.RuneCountInString(line[:start]), text: line[start:end],
				what: format.what, random: format.random,
				inText: true, offset: offset + start, inComment: true,
			})
		})
		offset += len(line) + 1
		if len(hits) >= maxSecrets { // there may be more, which messages would show
			d.manySecrets = true
			break
		}
	}
	return hits
}

// scanValues finds secrets in the values below root that the text did not
// show as such, and tells for the others where they are.
func (d *document) scanValues(root *yaml.Node, hits []secretHit) []secretHit {
	offset := offsets(d.text)
	walk(root, nil, func(node *yaml.Node, p place) {
		s := d.spanOf(node, offset(node.Line, node.Column))
		d.spans = append(d.spans, s)
		for i := range hits {
			if hit := &hits[i]; s.holds(*hit) {
				hit.place, hit.inComment = p, false
				d.hidden[p.id()] = d.hidden[p.id()] || strings.Contains(node.Value, hit.text)
			}
		}
		report := func(secret, what string, random bool) {
			d.hidden[p.id()] = true
			known := slices.ContainsFunc(hits, func(hit secretHit) bool {
				return hit.text == secret && slices.Equal(hit.place, p)
			})
			if known || d.manySecrets {
				return
			}
			d.secrets.add(secret)
			hits = append(hits, secretHit{line: node.Line, column: node.Column, text: secret, what: what, place: p, random: random})
			d.manySecrets = len(hits) >= maxSecrets
		}
		found := d.hidden[p.id()] // a key that is a secret says nothing about its value
		scan(node.Value, func(start, end int, format secretFormat) {
			found = true
			report(node.Value[start:end], format.what, format.random)
		})
		if !found && len(p) > 0 && isSecretName(p[len(p)-1]) && isLiteral(node.Value) && isValue(node, p) {
			report(node.Value, "a secret", false)
		}
	})
	return slices.DeleteFunc(hits, func(hit secretHit) bool {
		return hit.random && isPublic(hit.place)
	})
}

// isPublic reports whether what stands at p is published anyway, so that it may
// look random: external ids, which usually do, and names of environments and
// stacks.
func isPublic(p place) bool {
	if len(p) < 3 || p[0] != "environments" {
		return false
	}
	switch last := p[len(p)-1]; {
	case len(p) == 3:
		return last == "externalId" || last == "name"
	case len(p) == 5 && p[2] == "stacks":
		return last == "name"
	}
	return false
}

// isValue tells a value that can be a secret from a key, which walk visits at
// the same place, and from true, false and null.
func isValue(node *yaml.Node, p place) bool {
	tag := node.ShortTag()
	return node.Value != p[len(p)-1] && tag != "!!bool" && tag != "!!null" && !isOldBoolean(node.Value)
}

// walk visits the scalar keys and values below node in the order of the text,
// without following aliases.
func walk(node *yaml.Node, p place, visit func(*yaml.Node, place)) {
	switch node.Kind {
	case yaml.ScalarNode:
		visit(node, p)
	case yaml.SequenceNode, yaml.DocumentNode:
		for i, item := range node.Content {
			walk(item, p.child(strconv.Itoa(i)), visit)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			at := p.child(node.Content[i].Value)
			walk(node.Content[i], at, visit)
			walk(node.Content[i+1], at, visit)
		}
	default: // an alias is visited where its anchor is
	}
}
