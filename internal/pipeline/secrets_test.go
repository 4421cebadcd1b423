package pipeline

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// letters returns n characters of an alphabet, the same for the same seed.
func letters(seed uint64, alphabet string, n int) string {
	source := rand.New(rand.NewPCG(seed, 1))
	out := make([]byte, n)
	for i := range out {
		out[i] = alphabet[source.IntN(len(alphabet))]
	}
	return string(out)
}

const (
	base62 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	base36 = "abcdefghijklmnopqrstuvwxyz0123456789"
	base32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
)

// secretSamples are secrets by format, built here so that no scanner of this
// repository finds a whole one in its text.
func secretSamples(seed uint64) map[string]string {
	sum := sha256.Sum256(fmt.Append(nil, seed))
	part := func(n int) string { return base64.RawURLEncoding.EncodeToString([]byte(letters(seed, base62, n))) }
	return map[string]string{
		"aws key":         "AKI" + "A" + letters(seed, base32, 16),
		"aws session key": "ASI" + "A" + letters(seed, base32, 16),
		"aws secret":      letters(seed, base62+"/+", 40),
		"github":          "ghp" + "_" + letters(seed, base62, 36),
		"github server":   "ghs" + "_" + letters(seed, base62, 36),
		"github pat":      "github" + "_pat_" + letters(seed, base62, 22) + "_" + letters(seed+1, base62, 59),
		"gitlab":          "glpat" + "-" + letters(seed, base62, 20),
		"slack":           "xoxb" + "-123456789012-123456789012-" + letters(seed, base62, 24),
		"slack webhook":   "https://hooks.slack.com/services/T0" + letters(seed, base32, 8) + "/B0" + letters(seed, base32, 8) + "/" + letters(seed, base62, 24),
		"npm":             "npm" + "_" + letters(seed, base62, 36),
		"jwt":             "ey" + "J" + part(20) + ".ey" + "J" + part(30) + "." + part(32),
		"pem":             "-----BEGIN RSA PRIVATE " + "KEY-----",
		"url":             "https://bot:" + letters(seed, base62, 12) + "@example.com/x",
		"bearer":          "Authorization: Bearer " + letters(seed, base36, 12),
		"assignment":      "DB_PASSWORD=" + letters(seed, base36, 9),
		"psql":            "PGPASSWORD=" + letters(seed, base36, 9),
		"argument":        "--set=auth.user[0]=shop,auth.password=" + letters(seed, base36, 9),
		"flag":            "--password " + letters(seed, base36, 9),
		"base64 of 32":    base64.StdEncoding.EncodeToString(sum[:]),
		"base36 of 50":    letters(seed, base36, 50),
	}
}

// secretPart is what of a sample must not be shown.
func secretPart(name, sample string) string {
	switch name {
	case "url":
		return strings.TrimSuffix(strings.TrimPrefix(sample, "https://bot:"), "@example.com/x")
	case "slack webhook":
		return strings.TrimPrefix(sample, "https://hooks.slack.com/services/")
	case "bearer", "flag":
		return sample[strings.LastIndexByte(sample, ' ')+1:]
	case "assignment", "psql", "argument":
		return sample[strings.LastIndexByte(sample, '=')+1:]
	case "jwt":
		return sample[:strings.LastIndexByte(sample, '.')]
	}
	return sample
}

const host = `version: "1.0"
# %s
build:
  commands:
    - %s
  env:
    VALUE: %s
environments:
  - name: dev
    region: eu-west-1
    account: "111111111111"
    context: {"%s": 1}
    stacks: [{name: A, path: infra}]
`

// Feature: aphex-pipeline, Property 15: Credential absence in configuration
func TestLoad_SecretsAreFoundAnywhereAndNeverShown(t *testing.T) {
	t.Parallel()
	harmlessText := []any{"comment", "npm ci", "text", "key"}
	_, err := Load("c", fmt.Appendf(nil, host, harmlessText...))
	require.NoError(t, err)
	places := []struct {
		name, path string
		line       int
		dress      func(string) string
	}{
		{"comment", "", 2, func(s string) string { return s }},
		{"command", "build.commands[0]", 5, func(s string) string { return "'echo " + s + " > x'" }},
		{"value", "build.env.VALUE", 7, func(s string) string { return `"` + s + `"` }},
		{"key", "environments[0].context", 12, func(s string) string { return s }},
	}
	for name, sample := range secretSamples(7) {
		for i, where := range places {
			t.Run(name+" in a "+where.name, func(t *testing.T) {
				t.Parallel()
				values := append([]any(nil), harmlessText...)
				values[i] = where.dress(sample)
				_, err := Load("c", fmt.Appendf(nil, host, values...))
				require.Error(t, err)
				require.NotContains(t, err.Error(), secretPart(name, sample))
				found := err.(*InvalidError).Findings //nolint:errorlint // the type itself is what Load promises
				require.Len(t, found, 1, "%v", err)
				require.Contains(t, found[0].Message, "a configuration must not hold secrets")
				require.Equal(t, where.line, found[0].Line)
				require.True(t, strings.HasPrefix(found[0].Path, where.path), found[0].Path)
			})
		}
	}
}

func TestLoad_SecretsByKey(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"password", "DB_PASSWORD", "dbPassword", "NPM_TOKEN", "npmToken", "api-key", "API_KEY", "apikey", "clientSecret", "AWS_SECRET_ACCESS_KEY", "GITHUB_PAT"} {
		text := fmt.Sprintf("version: \"1.0\"\nx-%s: hunter2\nx-more: {%s: 12345, b: hunter2}\n", key, key)
		_, err := Load("c", []byte(text))
		require.ErrorContains(t, err, "c:2:", key)
		require.ErrorContains(t, err, "*** looks like a secret", key)
		require.NotContains(t, err.Error(), "hunter2")
		require.NotContains(t, err.Error(), "12345")
	}
	for _, entry := range []string{
		"TOKEN_TTL: \"3600\"", "SECRET_ARN: arn:aws:secretsmanager:eu-west-1:111111111111:secret:shop-AbCdEf", "passwordLength: 12",
		"DB_PASSWORD: $FROM_STORE", "token: \"{{resolve:secretsmanager:shop:SecretString:token}}\"", "token: secretsmanager:shop/npm#token",
		"usePassword: true", "secret: /shop/prod/secret", "tokens: a", "publicKey: abcdef", "authority: example.com", "key: value",
	} {
		_, err := Load("c", fmt.Appendf(nil, "version: \"1.0\"\nx-a: {%s}\n", entry))
		require.NotContains(t, err.Error(), "secrets: remove", entry)
	}
}

func TestLoad_WhatIsNoSecret(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"arn:aws:iam::111111111111:role/cdk-hnb659fds-deploy-role-111111111111-eu-west-1",
		"arn:aws:secretsmanager:eu-west-1:111111111111:secret:prod/shop/DbCredentialsQ2x9Zk7LmN3p-a1B2c3",
		"node@sha256:3f9c1d0b7a5e4c2d8f6b1a0e9d8c7b6a5f4e3d2c1b0a9f8e7d6c5b4a39281706",
		"sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
		"0123456789abcdef0123456789abcdef01234567", "022ad39c0ffee022ad39c0ffee022ad39c0ffee0",
		"d41d8cd98f00b204e9800998ecf8427e", "111111111111", "vpc-0a1b2c3d4e5f67890", "ami-0abcdef1234567890",
		"3fa85f64-5717-4562-b3fc-2c963f66afa6", "Z0123456789ABCDEFGHIJ", "E1A2B3C4D5E6F7",
		"MyCompanyProd2EuWest1NetworkStack", "Prod/ShopApi2Stage3/Service1", "packages/Service1/lib/handlers/V2/Index.ts",
		"cd packages/app && npm ci --no-audit --prefer-offline && npm run build -- --mode=production",
		"docker run --rm -v \"$PWD\":/work -w /work node:24.1 npm test", "NODE_OPTIONS=--max-old-space-size=4096 npx cdk synth",
		"curl -fsS -H \"Authorization: Bearer $TOKEN\" https://user:$PASSWORD@example.com/", "export NPM_TOKEN=$(aws ssm get-parameter --name /npm)",
		"echo \"password: see the vault\"", "npm config set //registry.example.com/:_authToken=${NPM_TOKEN}", "git checkout v1.2.3-rc.4+build.20260101",
		"https://sqs.eu-west-1.amazonaws.com/111111111111/ShopOrdersQueue2026", "vpc-provider:account=111111111111:filter.tag:Name=Main:region=eu-west-1:returnAsymmetricSubnets=true",
		"@aws-cdk/aws-apigateway:requestValidatorUniqueId", "@aws-cdk/aws-ec2:restrictDefaultSecurityGroup", "python3 -m pytest -q --junitxml=reports/junit-2026-01-01.xml tests/",
		"111111111111.dkr.ecr.eu-west-1.amazonaws.com/team/toolchain-node24-python313:2026-01-01", "s3://cdk-hnb659fds-assets-111111111111-eu-west-1/abc",
		"aws cloudformation describe-stacks --stack-name ShopDataStackEuWest1 --query 'Stacks[0].Outputs'", "PIP_INDEX_URL=https://pypi.example.com/simple",
		"task: buildAndPublishTheDocumentationSiteForVersion2", "tokenizer: bert-base-uncased", "secrets: none", "monkey=bananas", "--no-password",
		"docker build --secret id=npmrc,src=.npmrc --secret type=env,id=NPM_TOKEN .", "docker buildx build --secret=id=npm_token,env=NPM_TOKEN .",
		"docker build --build-arg=NPM_TOKEN=$NPM_TOKEN --label=a=b=bananas .", "helm upgrade shop --set=auth.existingSecretName=shop-db,auth.password=$PW",
	} {
		scan(text, func(start, end int, format secretFormat) {
			t.Errorf("%q: %q taken for %s", text, text[start:end], format.what)
		})
		_, err := Load("c", fmt.Appendf(nil, host, text, "'"+strings.ReplaceAll(text, "'", "''")+"'", "x", "y"))
		require.NoError(t, err)
	}
}

// External ids are public and usually random; names may be generated.
func TestLoad_PublicValuesMayBeRandom(t *testing.T) {
	t.Parallel()
	text := strings.Replace(fmt.Sprintf(host, "c", "npm ci", "x", "y"), "name: dev", "name: 41qe2mj4b2oz0zeo2qgt2ad252th2vr2", 1) + "    roleArn: arn:aws:iam::111111111111:role/deploy\n    externalId: " + letters(3, base62, 40) + "\n"
	config, err := Load("c", []byte(text))
	require.NoError(t, err)
	require.Len(t, config.Environments[0].ExternalID, 40)
	_, err = Load("c", []byte(strings.Replace(text, letters(3, base62, 40), "ghp"+"_"+letters(3, base62, 36), 1)))
	require.ErrorContains(t, err, "a GitHub token")
}

// A secret that is spelled with escapes or split over lines is found in its value.
func TestLoad_SecretsBehindEscapes(t *testing.T) {
	t.Parallel()
	secret := "AKI" + "A" + letters(1, base32, 16)
	for name, value := range map[string]string{
		"escape":     `"` + strings.Replace(secret, "A", `\x41`, 1) + `"`,
		"line break": `"` + secret[:8] + "\\\n      " + secret[8:] + `"`,
		"literal":    "|\n        export X=1\n        echo " + secret + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Load("c", fmt.Appendf(nil, host, "c", value, "x", "y"))
			require.ErrorContains(t, err, "build.commands[0]: AKIA*** looks like an AWS access key id")
			require.NotContains(t, err.Error(), secret)
		})
	}
}

func TestLoad_SecretsInBrokenYAML(t *testing.T) {
	t.Parallel()
	secret := "glpat" + "-" + letters(1, base62, 20)
	_, err := Load("c", []byte("a: [\n# "+secret+"\n*"+secret+"\n"))
	require.ErrorContains(t, err, "not valid YAML")
	require.ErrorContains(t, err, "a GitLab token")
	require.NotContains(t, err.Error(), secret)
}

// TestIsRandom measures the thresholds: of random tokens hardly any may pass
// for a name.
func TestIsRandom(t *testing.T) {
	t.Parallel()
	tests := []struct {
		alphabet string
		length   int
		pairs    float64
		most     int // of 4000
	}{
		{base62 + "/+", 40, 0.4, 30},
		{base62, 32, 0.35, 110},
		{base62, 64, 0.35, 15},
		{base36, 50, 0.35, 40},
	}
	for _, tt := range tests {
		missed := 0
		for seed := range uint64(4_000) {
			if !isRandom(letters(seed, tt.alphabet, tt.length), tt.pairs) {
				missed++
			}
		}
		t.Logf("%d characters of %d: %d of 4000 missed", tt.length, len(tt.alphabet), missed)
		require.LessOrEqual(t, missed, tt.most)
	}
}
