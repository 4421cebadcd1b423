package pipeline_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

const minimal = `version: "1.0"
build:
  commands:
    - npm ci
environments:
  - name: dev
    region: eu-west-1
    account: "111111111111"
    stacks:
      - name: ShopData
        path: infra
`

const complete = `# everything that has an effect today
version: "1.0"
build:
  commands:
    - npm ci
    - |
      cd app
      npm run build
  timeout: 45m
  artifacts: dist
  env:
    NODE_ENV: production
    LEVEL: "3"
  credentials: true
tools: [node, npm]
worker:
  image: registry.example.com:5000/team/node:24.1
  resources:
    requests: {cpu: 500m, memory: 1Gi}
    limits: {cpu: 2, memory: 4Gi, ephemeral-storage: 10Gi}
argo:
  url: https://argo.example.com/base
selfModification: next-run
x-owner: team shop
environments:
  - &dev
    name: dev
    region: eu-west-1
    account: "111111111111"
    stacks: &stacks
      - {name: ShopData, path: infra}
      - {name: Prod/Api, path: ./infra/bin/app.ts}
    tests:
      commands: [npm test]
      timeout: 1h30m
    timeout: 2h
    x-note: {any: [thing]}
  - name: prod
    region: us-gov-west-1
    account: "022222222222"
    stacks: *stacks
    roleArn: arn:aws-us-gov:iam::022222222222:role/deploy/shop
    externalId: shop-prod
    context:
      size: 3
      ratio: 1.5
      flag: true
      nothing: null
      since: 2026-01-01
      list: [a, {b: c}]
    requiredContext: ["vpc-id"]
    concurrency: 4
    onFailedStack: rollback
`

// findings loads text that must be refused and returns what is wrong with it.
func findings(t *testing.T, text string) []pipeline.Finding {
	t.Helper()
	config, err := pipeline.Load("aphex-config.yaml", []byte(text))
	require.Error(t, err)
	require.Nil(t, config)
	invalid, ok := errors.AsType[*pipeline.InvalidError](err)
	require.True(t, ok, "%T: %v", err, err)
	require.NotEmpty(t, invalid.Findings)
	return invalid.Findings
}

func TestLoad_Minimal(t *testing.T) {
	t.Parallel()
	config, err := pipeline.Load("aphex-config.yaml", []byte(minimal))
	require.NoError(t, err)
	require.Equal(t, &pipeline.Config{
		Version: "1.0",
		Build:   pipeline.Build{Commands: []string{"npm ci"}, Artifacts: "artifacts/"},
		Environments: []pipeline.Environment{{
			Name: "dev", Region: "eu-west-1", Account: "111111111111",
			Stacks: []pipeline.Stack{{Name: "ShopData", Path: "infra"}},
		}},
		SelfModification: "next-run",
	}, config)
}

func TestLoad_Complete(t *testing.T) {
	t.Parallel()
	stacks := []pipeline.Stack{{Name: "ShopData", Path: "infra"}, {Name: "Prod/Api", Path: "./infra/bin/app.ts"}}
	for name, text := range map[string]string{
		"as it is":        complete,
		"byte order mark": "\ufeff" + complete,
		"Windows lines":   strings.ReplaceAll(complete, "\n", "\r\n"),
		"document marks":  "---\n" + complete + "...\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config, err := pipeline.Load("aphex-config.yaml", []byte(text))
			require.NoError(t, err)
			require.Equal(t, &pipeline.Config{
				Version: "1.0",
				Build: pipeline.Build{
					Commands: []string{"npm ci", "cd app\nnpm run build\n"}, Timeout: 45 * time.Minute, Artifacts: "dist",
					Env: map[string]string{"NODE_ENV": "production", "LEVEL": "3"}, Credentials: true,
				},
				Tools: []string{"node", "npm"},
				Worker: pipeline.Worker{Image: "registry.example.com:5000/team/node:24.1", Resources: pipeline.Resources{
					Requests: map[string]string{"cpu": "500m", "memory": "1Gi"},
					Limits:   map[string]string{"cpu": "2", "memory": "4Gi", "ephemeral-storage": "10Gi"},
				}},
				Argo:             pipeline.Argo{URL: "https://argo.example.com/base"},
				SelfModification: "next-run",
				Environments: []pipeline.Environment{
					{
						Name: "dev", Region: "eu-west-1", Account: "111111111111", Stacks: stacks, Timeout: 2 * time.Hour,
						Tests: &pipeline.Tests{Commands: []string{"npm test"}, Timeout: 90 * time.Minute},
					},
					{
						Name: "prod", Region: "us-gov-west-1", Account: "022222222222", Stacks: stacks,
						RoleARN: "arn:aws-us-gov:iam::022222222222:role/deploy/shop", ExternalID: "shop-prod",
						Context: map[string]any{
							"size": 3, "ratio": 1.5, "flag": true, "nothing": nil, "since": "2026-01-01",
							"list": []any{"a", map[string]any{"b": "c"}},
						},
						RequiredContext: []string{"vpc-id"}, Concurrency: 4, OnFailedStack: "rollback",
					},
				},
			}, config)
			environment, ok := config.Environment("prod")
			require.True(t, ok)
			require.Equal(t, "022222222222", environment.Account)
			_, ok = config.Environment("staging")
			require.False(t, ok)
		})
	}
}

func TestLoad_ReportsEverythingAtOnceInOrder(t *testing.T) {
	t.Parallel()
	text := `version: 1.0
build:
  comands: [npm ci]
environments:
  - name: Dev
    region: ireland
    account: 012345678901
    stacks: []
`
	got := findings(t, text)
	lines := make([]string, len(got))
	for i, finding := range got {
		lines[i] = finding.String()
	}
	require.Equal(t, []string{
		`aphex-config.yaml:1:10: version: 1.0 without quotes is a number and would be read as 1; write version: "1.0"`,
		`aphex-config.yaml:2:1: build: the required key "commands" is missing: Commands of the build, run in order by bash in the worker. The working directory and exported variables carry over from one to the next`,
		`aphex-config.yaml:3:3: build.comands: unknown key; did you mean "commands"?; allowed here: artifacts, commands, credentials, env, secrets, snapshot, timeout, and keys that begin with x-`,
		`aphex-config.yaml:5:11: environments[0].name: "Dev" does not fit; allowed: at most 40 lower-case letters, digits and hyphens, with a letter or digit at both ends, such as "dev"`,
		`aphex-config.yaml:6:13: environments[0].region: "ireland" does not fit; allowed: an AWS region, such as "eu-west-1"`,
		`aphex-config.yaml:7:14: environments[0].account: the account id 012345678901 without quotes is a number and loses its leading zero; write account: "012345678901"`,
		`aphex-config.yaml:8:13: environments[0].stacks: the list is empty; at least 1 entry is required`,
	}, lines)

	_, err := pipeline.Load("aphex-config.yaml", []byte(text))
	invalid, _ := errors.AsType[*pipeline.InvalidError](err)
	var rendered strings.Builder
	require.NoError(t, invalid.Render(&rendered))
	require.Equal(t, strings.Join(lines, "\n")+"\n", rendered.String())
	require.Equal(t, "7 findings: "+strings.Join(lines, "; "), err.Error())
}

// edit returns the complete document with old replaced once.
func edit(t *testing.T, old, replacement string) string {
	t.Helper()
	require.Equal(t, 1, strings.Count(complete, old), "%q must stand once in the document", old)
	return strings.Replace(complete, old, replacement, 1)
}

func TestLoad_OneMistake(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, old, replacement string
		at                     string // line:column: path
		message                string // part of it
	}{
		{"version as a float", `version: "1.0"`, `version: 1.0`, "2:10: version", `1.0 without quotes is a number and would be read as 1; write version: "1.0"`},
		{"version of another time", `version: "1.0"`, `version: "2.0"`, "2:10: version", `"2.0" is not known here; allowed: "1.0"`},
		{"version missing", "version: \"1.0\"\n", "", "2:1: ", `the required key "version" is missing`},
		{"account as a number", `account: "111111111111"`, `account: 111111111111`, "29:14: environments[0].account", `write account: "111111111111"`},
		{"account with a leading zero", `account: "022222222222"`, `account: 012345678901`, "40:14: environments[1].account", `loses its leading zero; write account: "012345678901"`},
		{"account that is octal", `account: "022222222222"`, `account: 012345670123`, "40:14: environments[1].account", `loses its leading zero; write account: "012345670123"`},
		{"account that lost its zero", `account: "022222222222"`, `account: 22222222222`, "40:14: environments[1].account", `a number of 11 digits, so leading zeros may be lost; write all 12 digits in quotes, such as "022222222222"`},
		{"account too short", `account: "111111111111"`, `account: "11111111111"`, "29:14: environments[0].account", `"11111111111" does not fit; allowed: an AWS account id of exactly 12 digits in quotes`},
		{"yes as a boolean", `credentials: true`, `credentials: yes`, "14:16: build.credentials", `"yes" is text in YAML 1.2, not a boolean; allowed: true, false`},
		{"quoted boolean", `credentials: true`, `credentials: "true"`, "14:16: build.credentials", `this is text; allowed is true or false`},
		{"on as text", `NODE_ENV: production`, `NODE_ENV: on`, "12:15: build.env.NODE_ENV", `on without quotes is text for some readers of YAML and a boolean for others`},
		{"No as text", `NODE_ENV: production`, `NODE_ENV: No`, "12:15: build.env.NODE_ENV", `No without quotes`},
		{"true as text", `NODE_ENV: production`, `NODE_ENV: true`, "12:15: build.env.NODE_ENV", `"true" without quotes is a boolean, and text is expected; put it in quotes`},
		{"number as text", `LEVEL: "3"`, `LEVEL: 3`, "13:12: build.env.LEVEL", `"3" without quotes is a number, and text is expected; put it in quotes`},
		{"null as text", `LEVEL: "3"`, `LEVEL: ~`, "13:12: build.env.LEVEL", `"~" without quotes is a null`},
		{"value missing", `LEVEL: "3"`, `LEVEL:`, "13:11: build.env.LEVEL", `the key has no value; allowed is text`},
		{"variable name", `LEVEL:`, `LE-VEL:`, "13:5: build.env.LE-VEL", `the key "LE-VEL" does not fit; allowed: a name of letters, digits and underscores`},
		{"reserved variable", `LEVEL:`, `APHEX_LEVEL:`, "13:5: build.env.APHEX_LEVEL", `names that begin with APHEX_ are set by aphex`},
		{"list instead of text", `- npm ci`, `- [npm, ci]`, "5:7: build.commands[0]", `this is a list (each entry after "- "); allowed is text`},
		{"mapping instead of text", `- npm ci`, `- echo: hello`, "5:7: build.commands[0]", `this is a mapping (key: value); allowed is text`},
		{"text instead of a list", `tools: [node, npm]`, `tools: node`, "15:8: tools", `this is text; allowed is a list`},
		{"blank command", `- npm ci`, `- "  "`, "5:7: build.commands[0]", `the value is blank; allowed: a command that is not blank`},
		{"command with a NUL", `- npm ci`, `- "npm\0ci"`, "5:7: build.commands[0]", `NUL character`},
		{"timeout without a unit", `timeout: 45m`, `timeout: 45`, "9:12: build.timeout", `"45" without quotes is a number, and text is expected`},
		{"timeout in days", `timeout: 45m`, `timeout: 1d`, "9:12: build.timeout", `"1d" does not fit; allowed: a duration in hours, minutes and seconds`},
		{"timeout too long", `timeout: 2h`, `timeout: 25h`, "36:14: environments[0].timeout", `"25h" is out of bounds; allowed are durations from 1s to 24h`},
		{"timeout too short", `timeout: 1h30m`, `timeout: 0.5s`, "35:16: environments[0].tests.timeout", `out of bounds`},
		{"artifacts outside", `artifacts: dist`, `artifacts: ../dist`, "10:14: build.artifacts", `"../dist" leads out of the repository`},
		{"artifacts everything", `artifacts: dist`, `artifacts: ./`, "10:14: build.artifacts", `is the whole repository`},
		{"path absolute", `path: ./infra/bin/app.ts`, `path: /infra`, "32:32: environments[0].stacks[1].path", `"/infra" leads out of the repository`},
		{"path upwards", `path: ./infra/bin/app.ts`, `path: infra/../../x`, "32:32: environments[0].stacks[1].path", `leads out of the repository`},
		{"path of git", `path: ./infra/bin/app.ts`, `path: .git/hooks`, "32:32: environments[0].stacks[1].path", `leads out of the repository`},
		{"path of Windows", `path: ./infra/bin/app.ts`, `path: infra\app`, "32:32: environments[0].stacks[1].path", `with / between its parts`},
		{"stack pattern", `name: Prod/Api`, `name: Prod/*`, "32:16: environments[0].stacks[1].name", `the exact name of one stack, without wildcards`},
		{"stack twice", `{name: Prod/Api, path: ./infra/bin/app.ts}`, `{name: ShopData, path: ./infra/}`, "32:16: environments[0].stacks[1].name", `the stack "ShopData" stands twice in this environment; it is already stack 1`},
		{"stack without path", `, path: ./infra/bin/app.ts`, ``, "32:9: environments[0].stacks[1]", `the required key "path" is missing`},
		{"environment twice", `name: prod`, `name: dev`, "38:11: environments[1].name", `the name "dev" stands twice; environment 1 already has it`},
		{"environment name too long", `name: prod`, `name: ` + strings.Repeat("a", 41), "38:11: environments[1].name", `at most 40 lower-case letters`},
		{"environment called pipeline", `name: prod`, `name: pipeline`, "38:11: environments[1].name", `"pipeline" is taken`},
		{"region", `region: eu-west-1`, `region: eu-west`, "28:13: environments[0].region", `"eu-west" does not fit; did you mean "eu-west-1"?; allowed: an AWS region`},
		{"role that is none", `roleArn: arn:aws-us-gov:iam::022222222222:role/deploy/shop`, `roleArn: deploy`, "42:14: environments[1].roleArn", `allowed: the ARN of an IAM role`},
		{"role of another account", `iam::022222222222:role`, `iam::333333333333:role`, "42:14: environments[1].roleArn", `the role is in account 333333333333, but the environment's account is 022222222222`},
		{"external id alone", `    roleArn: arn:aws-us-gov:iam::022222222222:role/deploy/shop` + "\n", ``, "42:5: environments[1].externalId", `an external id goes with roleArn`},
		{"image without tag", `/node:24.1`, `/node`, "17:10: worker.image", `has no tag`},
		{"image latest", `/node:24.1`, `/node:latest`, "17:10: worker.image", `is not pinned: latest changes`},
		{"image with a quote", `image: registry.example.com:5000/team/node:24.1`, `image: "node:24'"`, "17:10: worker.image", `does not fit; allowed: an image reference of letters, digits`},
		{"image with a template", `image: registry.example.com:5000/team/node:24.1`, `image: "node:{{x}}"`, "17:10: worker.image", `does not fit`},
		{"image of upper case", `/team/node:24.1`, `/Team/node:24.1`, "17:10: worker.image", `is not an image reference`},
		{"memory", `memory: 1Gi`, `memory: 1GB`, "19:35: worker.resources.requests.memory", `"1GB" does not fit; allowed: an amount of bytes`},
		{"cpu of zero", `cpu: 500m`, `cpu: "0"`, "19:21: worker.resources.requests.cpu", `is not an amount above zero`},
		{"cpu as an exponent", `cpu: 2,`, `cpu: 1e1,`, "20:19: worker.resources.limits.cpu", `is not an amount above zero in Kubernetes' notation`},
		{"request above limit", `cpu: 500m`, `cpu: "3"`, "19:21: worker.resources.requests.cpu", `the request 3 is above the limit 2`},
		{"unknown resource", `ephemeral-storage: 10Gi`, `gpu: 1`, "20:35: worker.resources.limits.gpu", `unknown key`},
		{"argo address", `https://argo.example.com/base`, `argo.example.com`, "22:8: argo.url", `allowed: an http or https address`},
		{"argo address with a user", `https://argo.example.com/base`, `https://me@argo.example.com/`, "22:8: argo.url", `without user name`},
		{"tool with a folder", `tools: [node, npm]`, `tools: [/bin/node]`, "15:9: tools[0]", `a program without a folder`},
		{"tool twice", `tools: [node, npm]`, `tools: [node, npm, node]`, "15:20: tools[2]", `the entry stands twice; it is the same as entry 1`},
		{"unknown key", `selfModification:`, `selfmodification:`, "23:1: selfmodification", `unknown key; did you mean "selfModification"?`},
		{"unknown key far from all", `selfModification: next-run`, `zzzzzz: 1`, "23:1: zzzzzz", `unknown key; allowed here: argo, build, cache, environments,`},
		{"duplicate key", `tools: [node, npm]`, "tools: [node, npm]\ntools: [go]", "16:1: tools", `the key stands twice; it was first given in line 15`},
		{"duplicate key, quoted", `x-owner: team shop`, "x-owner: a\n\"x-owner\": b", "25:1: x-owner", `the key stands twice; it was first given in line 24`},
		{"merge key", `    x-note: {any: [thing]}`, `    <<: {timeout: 1h}`, "37:5: environments[0]", `merge keys (<<) are not supported`},
		{"key that is a number", `    x-note: {any: [thing]}`, `    x-note: {1: a}`, "37:14: environments[0].x-note", `the key "1" is not text; write it in quotes`},
		{"tag", `      size: 3`, `      size: !big 3`, "45:13: environments[1].context.size", `the tag "!big" is not supported`},
		{"infinity", `      size: 3`, `      size: .inf`, "45:13: environments[1].context.size", `".inf" is not a number that JSON knows`},
		{"required context blank", `["vpc-id"]`, `[""]`, "51:23: environments[1].requiredContext[0]", `the value is blank`},

		{"secret itself", `  credentials: true`, "  secrets: {NPM_AUTH: \"hunter\"}", "14:23: build.secrets.NPM_AUTH", `never the secret itself`},
		{"Secret without a key", `  credentials: true`, "  secrets: {NPM_AUTH: \"kubernetes:npm\"}", "14:23: build.secrets.NPM_AUTH", `"kubernetes:npm#token"`},
		{"secret of aphex's own", `  credentials: true`, "  secrets: {APHEX_RUN: \"ssm:/x\"}", "14:13: build.secrets.APHEX_RUN", `set by aphex itself`},
		{"secret twice", `  credentials: true`, "  secrets: {LEVEL: \"ssm:/x\"}", "14:13: build.secrets.LEVEL", `the variable LEVEL is in build.env, too`},
		{"cache without a key", `x-owner: team shop`, `cache: [{paths: [node_modules]}]`, "24:9: cache[0]", `key`},
		{"cache without files of a key", `x-owner: team shop`, `cache: [{paths: [node_modules], key: []}]`, "24:38: cache[0].key", ``},
		{"cache outside", `x-owner: team shop`, `cache: [{paths: [../x], key: [a]}]`, "24:18: cache[0].paths[0]", `cannot be kept`},
		{"cache outside of home", `x-owner: team shop`, `cache: [{paths: [~/a/../../x], key: [a]}]`, "24:18: cache[0].paths[0]", `cannot be kept`},
		{"cache of all", `x-owner: team shop`, `cache: [{paths: [a/..], key: [a]}]`, "24:18: cache[0].paths[0]", `cannot be kept`},
		{"cache of home", `x-owner: team shop`, `cache: [{paths: [~/.], key: [a]}]`, "24:18: cache[0].paths[0]", `cannot be kept`},
		{"cache of git's folder", `x-owner: team shop`, `cache: [{paths: [.git/hooks], key: [a]}]`, "24:18: cache[0].paths[0]", `cannot be kept`},
		{"cache twice", `x-owner: team shop`, `cache: [{paths: [a/b], key: [a]}, {paths: [a/./b], key: [b]}]`, "24:44: cache[1].paths[0]", `stands twice under cache`},
		{"cache key outside", `x-owner: team shop`, `cache: [{paths: [a], key: [../b]}]`, "24:28: cache[0].key[0]", `leads out of the repository`},
		{"too many files of a key", `x-owner: team shop`, `cache: [{paths: [a], key: [` + strings.Repeat(`a, `, 21) + `]}]`, "24:27: cache[0].key", `the list has 21 entries; allowed are at most 20`},
		{"address for a reference", `x-owner: team shop`, `notifications: [{type: slack, target: "https://hooks.slack.com/T1/B2/x"}]`, "24:39: notifications[0].target", `a reference such as "secretsmanager:shop/slack#url"`},
		{"reference for a topic", `x-owner: team shop`, `notifications: [{type: sns, target: "ssm:/shop/topic"}]`, "24:37: notifications[0].target", `does not fit the type "sns"`},
		{"topic for a reference", `x-owner: team shop`, `notifications: [{type: github, target: "arn:aws:sns:eu-west-1:111111111111:shop"}]`, "24:40: notifications[0].target", `does not fit the type "github"`},
		{"channel of another kind", `x-owner: team shop`, `notifications: [{type: mail, target: "ssm:/shop/mail"}]`, "24:24: notifications[0].type", `"mail" is not known here; allowed: "slack", "github", "webhook", "sns"`},
		{"channel for an unknown environment", `x-owner: team shop`, `notifications: [{type: slack, target: "ssm:/shop/slack", environments: [nowhere]}]`, "24:73: notifications[0].environments[0]", `"nowhere" is no environment of this file`},
		{"self-modification of another kind", `selfModification: next-run`, `selfModification: at-once`, "23:19: selfModification", `"at-once"`},
		{"concurrency of nobody", `    x-note: {any: [thing]}`, `    concurrency: 0`, "37:18: environments[0].concurrency", `"0" is too small; allowed: 1 or more`},
		{"concurrency without an end", `    x-note: {any: [thing]}`, `    concurrency: 33`, "37:18: environments[0].concurrency", `"33" is too large; allowed: 32 or less`},
		{"concurrency by half", `    x-note: {any: [thing]}`, `    concurrency: 1.5`, "37:18: environments[0].concurrency", `allowed is a whole number`},
		{"onFailedStack of another kind", `    x-note: {any: [thing]}`, `    onFailedStack: ignore`, "37:20: environments[0].onFailedStack", `"ignore" is not known here; allowed: "rollback", "keep"`},
		{"later: onFailedStack", `    x-note: {any: [thing]}`, `    onFailedStack: keep`, "37:20: environments[0].onFailedStack", `not yet supported`},
		{"report outside", `      timeout: 1h30m`, `      reports: ["junit/*.xml", "../out/*.xml"]`, "35:32: environments[0].tests.reports[1]", `"../out/*.xml" leads out of the repository`},
		{"report at home", `      timeout: 1h30m`, `      reports: [~/junit.xml]`, "35:17: environments[0].tests.reports[0]", `leads out of the repository`},
		{"report with a choice that does not end", `      timeout: 1h30m`, `      reports: ["junit/[ab/c].xml"]`, "35:17: environments[0].tests.reports[0]", `"junit/[ab/c].xml" cannot be understood: [ begins a choice of characters`},
		{"report that is blank", `      timeout: 1h30m`, `      reports: [""]`, "35:17: environments[0].tests.reports[0]", `a pattern of a path`},
		{"report with a backslash", `      timeout: 1h30m`, `      reports: ['junit\a.xml']`, "35:17: environments[0].tests.reports[0]", `a pattern of a path with / between its parts, such as "reports/junit.xml"`},
		{"left out by a choice without an end", `  credentials: true`, `  snapshot: {exclude: ["*.log", "a[b"]}`, "14:33: build.snapshot.exclude[1]", `cannot be understood`},
		{"kept by a choice without an end", `  credentials: true`, `  snapshot: {include: ["[]a"]}`, "14:24: build.snapshot.include[0]", `cannot be understood`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := findings(t, edit(t, tt.old, tt.replacement))
			require.Len(t, got, 1, "%v", got)
			require.Equal(t, tt.at, fmt.Sprintf("%d:%d: %s", got[0].Line, got[0].Column, got[0].Path), got[0].Message)
			require.Contains(t, got[0].Message, tt.message)
		})
	}
}

func TestLoad_Notifications(t *testing.T) {
	t.Parallel()
	config, err := pipeline.Load(pipeline.DefaultFile, []byte(edit(t, `x-owner: team shop`, `notifications:
  - {type: slack, target: "secretsmanager:shop/slack#url", events: [failed], environments: [prod]}
  - {type: sns, target: "arn:aws:sns:eu-west-1:111111111111:shop.fifo", x-note: by mail}`)))
	require.NoError(t, err)
	require.Equal(t, []pipeline.Notification{
		{Type: pipeline.NotifySlack, Target: "secretsmanager:shop/slack#url", Events: []string{pipeline.EventFailed}, Environments: []string{"prod"}},
		{Type: pipeline.NotifySNS, Target: "arn:aws:sns:eu-west-1:111111111111:shop.fifo"},
	}, config.Notifications)
}

func TestLoad_Reports(t *testing.T) {
	t.Parallel()
	patterns := []string{"reports/junit.xml", "**/target/surefire-reports/TEST-*.xml", "junit-[0-9]?.xml", "./build/", "/junit.xml"}
	config, err := pipeline.Load(pipeline.DefaultFile, []byte(edit(t, `      timeout: 1h30m`, `      reports: ["`+strings.Join(patterns, `", "`)+`"]`)))
	require.NoError(t, err)
	require.Equal(t, patterns, config.Environments[0].Tests.Reports)
}

func TestLoad_TextThatIsNoDocument(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, at, message string }{
		{"empty", "", "1:1", "the file is empty"},
		{"comment only", "# nothing yet\n", "1:1", "the file is empty"},
		{"null", "~\n", "1:1", "the file is empty"},
		{"mark only", "---\n", "1:1", "the file is empty"},
		{"a list", "- a\n", "1:1", "this is a list"},
		{"text", "hello\n", "1:1", "this is text"},
		{"two documents", minimal + "---\n" + minimal, "12:1", "a second document begins here; allowed is one per file"},
		{"tab", "version: \"1.0\"\nbuild:\n\tcommands: []\n", "3:1", "the line is indented with a tab"},
		{"tab after spaces", "version: \"1.0\"\nbuild:\n  \tcommands: []\n", "3:3", "the line is indented with a tab"},
		{"colon", "version: \"1.0\"\nbuild: a: b\n", "2:1", "put a value that contains \": \" in quotes"},
		{"at sign", "version: @x\n", "1:1", "put a value that begins with @"},
		{"open list", "version: [\n", "1:1", "not valid YAML"},
		{"open list below", "# a\nversion: [1\nbuild: 2\n\n", "2:1", "not valid YAML"},
		{"text behind a quote", "a: 1\nb: \"1\" 2\nc: 3\n", "2:1", "not valid YAML"},
		{"control character", "a: 1\nb: \"\u0085\x01\"\n", "2:1", "control characters are not allowed"},
		{"unknown alias", "version: *v\n", "1:1", "define the anchor (&name) before it is used"},
		{"unknown alias below", "a: a*v\nb: [\"*va\", *v]\n", "2:1", "define the anchor (&name) before it is used"},
		{"UTF-16", "\xff\xfev\x00e\x00", "1:1", "encoded in UTF-16; save it as UTF-8"},
		{"Latin-1", "version: \"1.0\"\n# caf\xe9\n", "2:6", "the byte 0xe9 is not valid UTF-8"},
		{"too large", "# " + strings.Repeat("x", 256<<10), "1:1", "the file has 262146 bytes; allowed are 262144"},
		{"too deep", "x-a: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), "1:38", "nested too deeply or too large"},
		{"alias of itself", "x-a: &a [*a]\n", "1:10", "nested too deeply or too large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := findings(t, tt.text)
			require.Equal(t, tt.at, fmt.Sprintf("%d:%d", got[0].Line, got[0].Column), "%v", got)
			require.Contains(t, got[0].Message, tt.message)
		})
	}
}

func TestLoad_BillionLaughsIsBounded(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("x-0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n")
	for i := 1; i < 30; i++ {
		fmt.Fprintf(&text, "x-%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	begin := time.Now()
	got := findings(t, text.String())
	require.Less(t, time.Since(begin), 30*time.Second)
	require.Len(t, got, 1)
	require.Contains(t, got[0].Message, "too large once its aliases are followed")
}

func TestLoad_FindingsAreBounded(t *testing.T) {
	t.Parallel()
	var unknown, secrets strings.Builder
	unknown.WriteString(minimal)
	for i := range 500 {
		fmt.Fprintf(&unknown, "zz%d: 1\n", i)
		fmt.Fprintf(&secrets, "# password=hunter%d\n", i)
	}
	got := findings(t, unknown.String())
	require.Len(t, got, 201)
	require.Equal(t, "aphex-config.yaml:212:1: 300 more findings from here on are left out", got[200].String())
	got = findings(t, secrets.String())
	require.Len(t, got, 101)
	require.Contains(t, got[100].String(), "aphex-config.yaml:100:12: 100 texts or more look like secrets")
	require.NotContains(t, fmt.Sprint(got), "hunter")
}

func TestLoad_NumbersInEveryForm(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"4": 4, "4.0": 4, "0x4": 4, "32": 32} {
		config, err := pipeline.Load("aphex-config.yaml", []byte(edit(t, `    x-note: {any: [thing]}`, "    concurrency: "+text)))
		require.NoError(t, err, text)
		require.Equal(t, want, config.Environments[0].Concurrency, text)
	}
}
