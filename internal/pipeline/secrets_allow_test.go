package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// allowHost takes lines below x-a, from line 2 on.
const allowHost = `version: "1.0"
%s
build: {commands: [npm ci]}
environments: [{name: dev, region: eu-west-1, account: "111111111111", stacks: [{name: A, path: infra}]}]
`

func loadAllowing(lines string) (allowed []string, findings []string) {
	config, err := Load("c", fmt.Appendf(nil, allowHost, lines))
	if invalid, ok := errors.AsType[*InvalidError](err); ok {
		for _, finding := range invalid.Findings {
			findings = append(findings, finding.String())
		}
		return nil, findings
	}
	for _, secret := range config.AllowedSecrets {
		allowed = append(allowed, secret.String())
	}
	return allowed, nil
}

func TestLoad_AllowedSecrets(t *testing.T) {
	t.Parallel()
	token := "ghp" + "_" + letters(1, base62, 36)
	for name, tt := range map[string]struct {
		lines string
		want  []string
	}{
		"end of the line": {
			`x-a: ["DB_PASSWORD=postgres npm test"] # aphex:allow-secret database of this test`,
			[]string{"c:2:20: x-a[0]: secret allowed: database of this test"},
		},
		"line above": {
			"x-a:\n  #aphex:allow-secret:  database   of this test\n  MYSQL_ROOT_PASSWORD: root",
			[]string{"c:4:24: x-a.MYSQL_ROOT_PASSWORD: secret allowed: database of this test"},
		},
		"Windows lines": {
			"x-a:\r\n  # aphex:allow-secret database of this test\r\n  A_PASSWORD: root\r\n  B_PASSWORD: root # aphex:allow-secret another of them\r",
			[]string{"c:4:15: x-a.A_PASSWORD: secret allowed: database of this test", "c:5:15: x-a.B_PASSWORD: secret allowed: another of them"},
		},
		"the key's line of a block": {
			"x-a:\n  - |- # aphex:allow-secret database of this test\n    cd app\n\n    export DB_PASSWORD=postgres\n    npm test",
			[]string{"c:6:24: x-a[0]: secret allowed: database of this test"},
		},
		"the line above a block": {
			"x-a:\n  # aphex:allow-secret database of this test\n  b: >2\n      cd app\n    A_PASSWORD=postgres\n  # the end",
			[]string{"c:6:16: x-a.b: secret allowed: database of this test"},
		},
		"the line above a quoted text": {
			"x-a:\n  # aphex:allow-secret database of this test\n  - \"it's \\\" a\n\n    A_PASSWORD=postgres x\"\n  # aphex:allow-secret database of this test\n  - 'it''s \"\n    A_PASSWORD=postgres x'",
			[]string{"c:6:16: x-a[0]: secret allowed: database of this test", "c:9:16: x-a[1]: secret allowed: database of this test"},
		},
		"the line above a plain text": {
			"x-a:\n  # aphex:allow-secret database of this test\n  - &a cd app;\n    A_PASSWORD=postgres\n    x",
			[]string{"c:5:16: x-a[0]: secret allowed: database of this test"},
		},
		"the last line of a quoted text": {
			"x-a: 'a\n  A_PASSWORD=postgres' # aphex:allow-secret database of this test",
			[]string{"c:3:14: x-a: secret allowed: database of this test"},
		},
		"a key, and several": {
			"x-a: {" + token + ": 1, c: " + token + ", d_password: root} # aphex:allow-secret an example of their handbook",
			[]string{"c:2:7: x-a." + hint(token) + ": secret allowed: an example of their handbook", "c:2:55: x-a.c: secret allowed: an example of their handbook", "c:2:109: x-a.d_password: secret allowed: an example of their handbook"},
		},
		"a comment": {
			"# A_PASSWORD=postgres # aphex:allow-secret database of this test\n# aphex:allow-secret database of this test\n# A_PASSWORD=postgres",
			[]string{"c:2:14: secret allowed: database of this test", "c:4:14: secret allowed: database of this test"},
		},
		"the reason has the secret": {
			`x-a: {password: postgres} # aphex:allow-secret postgres is their default`,
			[]string{"c:2:17: x-a.password: secret allowed: *** is their default"},
		},
		"a comment is no second one": {
			`x-a: {b: "echo ' # aphex:allow-secret of a test' A_PASSWORD=postgres"} # aphex:allow-secret database of this test`,
			[]string{"c:2:61: x-a.b: secret allowed: database of this test"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			allowed, findings := loadAllowing(tt.lines)
			require.Empty(t, findings)
			require.Equal(t, tt.want, allowed)
		})
	}
}

func TestLoad_SecretsThatNoCommentAllows(t *testing.T) {
	t.Parallel()
	const stale = "aphex:allow-secret allows nothing here"
	for name, tt := range map[string]struct {
		lines string
		want  []string // beginnings and ends of the findings
	}{
		"no comment": {
			`x-a: {password: postgres}`,
			[]string{"c:2:17: x-a.password: *** looks like a secret…if it is none, write the comment \"# aphex:allow-secret\" and the reason at the end of the line or alone above it"},
		},
		"no comment in a block": {
			"x-a: |\n  a\n  A_PASSWORD=postgres",
			[]string{"c:4:14: x-a: ***…the reason alone above line 2, where the text begins"},
		},
		"no reason": {
			`x-a: {password: postgres} # aphex:allow-secret`,
			[]string{"c:2:17: x-a.password: ***…the comment aphex:allow-secret in line 2 does not allow it: it gives no reason; write one of two words or more behind it"},
		},
		"hardly a reason": {
			`x-a: {password: postgres} # aphex:allow-secret ok. 123 --`,
			[]string{"c:2:17: x-a.password: ***…it gives no reason; write one of two words or more behind it"},
		},
		"another name": {
			`x-a: {password: postgres} # aphex:allow-secrets database of this test`,
			[]string{"c:2:17: x-a.password: ***…"},
		},
		"the line below": {
			"x-a: {password: postgres}\n# aphex:allow-secret database of this test",
			[]string{"c:2:17: x-a.password: ***…", "c:3:1: " + stale + "…the line below it has nothing that looks like a secret; remove the comment, or put it where it belongs"},
		},
		"two lines above": {
			"x-a:\n  # aphex:allow-secret database of this test\n\n  password: postgres",
			[]string{"c:3:3: " + stale + "…", "c:5:13: x-a.password: ***…"},
		},
		"the end of the line above": {
			"x-a: # aphex:allow-secret database of this test\n  password: postgres",
			[]string{"c:2:6: " + stale + ": its line…", "c:3:13: x-a.password: ***…"},
		},
		"the same again": {
			"x-a:\n  a_password: postgres # aphex:allow-secret database of this test\n  b_password: postgres\n  c: \"pass\\x77ord=postgres\"\n# password=postgres",
			[]string{"c:4:15: x-a.b_password: ***…", "c:5:6: x-a.c: ***…", "c:6:12: *** looks like a secret in a comment…"},
		},
		"part of a command": {
			`x-a: ["A_PASSWORD=postgres", "echo # aphex:allow-secret database of this test"]`,
			[]string{"c:2:19: x-a[0]: ***…"},
		},
		"part of a block": {
			"x-a: |\n  # aphex:allow-secret database of this test\n  A_PASSWORD=postgres # aphex:allow-secret database of this test",
			[]string{"c:4:14: x-a: ***…"},
		},
		"behind a block": {
			"x-a: | # aphex:allow-secret database of this test\n    a\n    A_PASSWORD=postgres\n  # A_PASSWORD=postgres",
			[]string{"c:5:16: *** looks like a secret in a comment…"},
		},
		"the reason": {
			"x-a: {password: postgres} # aphex:allow-secret the same as A_PASSWORD=hunter2",
			[]string{"c:2:71: *** looks like a secret in a comment…; no reason of aphex:allow-secret may hold one"},
		},
		"a reason below": {
			"# aphex:allow-secret the next reason is fine\n# aphex:allow-secret not A_PASSWORD=hunter2\nx-a: {password: postgres}",
			[]string{"c:2:1: " + stale + "…", "c:3:37: *** looks like a secret in a comment…"},
		},
		"one too many": {
			"# aphex:allow-secret database of this test\nx-a: {password: postgres} # aphex:allow-secret database of this test",
			[]string{"c:2:1: " + stale + "…"},
		},
		"nothing": {
			"x-a: b # aphex:allow-secret database of this test",
			[]string{"c:2:8: " + stale + "…"},
		},
		"strange line breaks": {
			"x-a: [\"A_PASSWORD=postgres\"]\u2028x-b: b # aphex:allow-secret database of this test",
			[]string{"c:2:19: x-a[0]: ***…line breaks other than LF and CRLF; remove them"},
		},
		"not YAML": {
			"x-a: {password: postgres} # aphex:allow-secret database of this test\nx-b: [",
			[]string{"c:3:1: not valid YAML…"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, findings := loadAllowing(tt.lines)
			require.Len(t, findings, len(tt.want), "%q", findings)
			for i, want := range tt.want {
				begin, end, _ := strings.Cut(want, "…")
				require.True(t, strings.HasPrefix(findings[i], begin) && strings.HasSuffix(findings[i], end), "%s", findings[i])
			}
			require.NotContains(t, strings.Join(findings, ""), "postgres")
			require.NotContains(t, strings.Join(findings, ""), "hunter2")
		})
	}
}

// A file of nothing but secrets is refused, whatever comments say.
func TestLoad_TooManyAllowedSecrets(t *testing.T) {
	t.Parallel()
	lines := func(n int) string {
		return strings.TrimSuffix(strings.Repeat("# A_PASSWORD=postgres # aphex:allow-secret database of this test\n", n), "\n")
	}
	allowed, findings := loadAllowing(lines(maxSecrets - 1))
	require.Empty(t, findings)
	require.Len(t, allowed, maxSecrets-1)
	_, findings = loadAllowing(lines(maxSecrets))
	require.Len(t, findings, 1)
	require.Contains(t, findings[0], "c:101:14: 100 texts or more look like secrets")
}

// Wherever a secret stands, a comment about its line allows it and nothing
// else; anywhere else in the file the comment does not.
//
// Feature: aphex-pipeline, Property 15: Credential absence in configuration
func TestLoad_CommentsAllowTheirLineOnly(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(fmt.Sprintf(host, "comment", "npm ci", "text", "key")), "\n")
	const comment = "# aphex:allow-secret example of the handbook"
	rapid.Check(t, func(t *rapid.T) {
		samples := secretSamples(rapid.Uint64().Draw(t, "seed"))
		name := rapid.SampledFrom([]string{"aws key", "github", "gitlab", "slack webhook", "jwt", "pem", "url", "bearer", "assignment", "flag"}).Draw(t, "format")
		form := rapid.SampledFrom([]string{"# %s", "x-a: '%s'", "x-a: [\"%s\"]", "x-a: 'a\n  b %s'", "x-a: |\n  a\n  %s\n  b", "x-a: >\n  some\n  %s\n  text", "x-a: a\n  b %s x", "'%s': 1"}).Draw(t, "form")
		if form == "'%s': 1" {
			form = "x-a: {'%s': 1}"
		}
		if strings.HasSuffix(form, "b %s x") && strings.ContainsAny(samples[name], " ") { // is no plain text
			form = "x-a: 'c\n  %s'"
		}
		entry := strings.Split(fmt.Sprintf(form, samples[name]), "\n")
		at := rapid.SampledFrom([]int{0, 1, 2, 7, len(lines)}).Draw(t, "line")
		document := slices.Insert(slices.Clone(lines), at, entry...)
		above := slices.Insert(slices.Clone(document), at, comment)
		load := func(lines []string) ([]AllowedSecret, error) {
			config, err := Load("c", []byte(strings.Join(lines, "\n")))
			if err != nil {
				require.NotContains(t, err.Error(), secretPart(name, samples[name]))
				return nil, err
			}
			return config.AllowedSecrets, nil
		}
		_, err := load(document)
		require.ErrorContains(t, err, "must not hold secrets")
		allowed, err := load(above)
		require.NoError(t, err, "%s", strings.Join(above, "\n"))
		require.NotEmpty(t, allowed)
		require.Equal(t, "example of the handbook", allowed[0].Reason)

		elsewhere := rapid.SampledFrom([]int{0, 1, 2, 3, 8, len(document)}).Filter(func(i int) bool { return i < at || i > at+len(entry)-1 }).Draw(t, "elsewhere")
		if rapid.Bool().Draw(t, "at the end") && elsewhere < len(document) {
			document[elsewhere] += " " + comment
		} else if elsewhere != at {
			document = slices.Insert(document, elsewhere, comment)
		}
		_, err = load(document)
		require.ErrorContains(t, err, "must not hold secrets", "%s", strings.Join(document, "\n"))
		require.ErrorContains(t, err, "allows nothing here", "%s", strings.Join(document, "\n"))
	})
}
