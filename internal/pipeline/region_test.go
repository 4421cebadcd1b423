package pipeline

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func loadRegion(region string) error {
	text := strings.Replace(fmt.Sprintf(host, "c", "npm ci", "x", "y"), "eu-west-1", region, 1)
	_, err := Load("c", []byte(text))
	return err
}

func TestLoad_Region(t *testing.T) {
	t.Parallel()
	for _, region := range append(slices.Clone(knownRegions),
		"ap-southeast-12", "nz-north-1", "us-gov-central-3", "us-isoz-southwest-1", "euxx-fr-northwest-2", // yet to come
	) {
		require.NoError(t, loadRegion(region), region)
	}
	for region, meant := range map[string]string{
		"eu-wset-1": "eu-west-1", "eu-west": "eu-west-1", "eu-west1": "eu-west-1", "euwest1": "eu-west-1", "EU-WEST-1": "eu-west-1", "eu_west_1": "eu-west-1",
		"us-east-1a": "us-east-1", "us-eest-1": "us-east-1", "us-gvo-west-1": "us-gov-west-1", "eu-centrl-1": "eu-central-1", "ap-souteast-2": "ap-southeast-2",
		"cn-nortwest-1": "cn-northwest-1", "use-east-2": "us-east-2", "eu-west-0": "eu-west-1",
		"Frankfurt": "", "eu": "", "global": "", "x-y-z": "",
	} {
		err := loadRegion(region)
		require.Error(t, err, region)
		want := fmt.Sprintf(`c:10:13: environments[0].region: %q does not fit; did you mean %q?; allowed: an AWS region, such as "eu-west-1"`, region, meant)
		if meant == "" {
			want = strings.Replace(want, `; did you mean ""?`, "", 1)
		}
		require.EqualError(t, err, want)
	}
}

func TestInstallation_Region(t *testing.T) {
	t.Parallel()
	c := &check{}
	Installation{Region: "eu-wset-1", Bucket: "team", AWS: AWSIdentity{Audience: "a"}}.checkAWS(c)
	require.Len(t, c.findings, 1)
	require.Equal(t, `"eu-wset-1" is not allowed: an AWS region such as eu-west-1; did you mean "eu-west-1"?`, c.findings[0].Message)
	c = &check{}
	Installation{Region: "eusc-de-east-1", Bucket: "team", AWS: AWSIdentity{Audience: "a"}}.checkAWS(c)
	require.Empty(t, c.findings)
}

// One wrong, missing, doubled or swapped letter of a direction is refused, and
// a region of that direction is offered.
func TestLoad_MistypedDirections(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		region := rapid.SampledFrom(knownRegions).Draw(t, "region")
		begin, end := strings.LastIndexByte(region[:len(region)-2], '-')+1, strings.LastIndexByte(region, '-')
		at := rapid.IntRange(begin, end-2).Draw(t, "at")
		mistyped := rapid.SampledFrom([]string{
			region[:at] + region[at+1:], region[:at] + region[at:at+1] + region[at:],
			region[:at] + region[at+1:at+2] + region[at:at+1] + region[at+2:], region[:at] + "q" + region[at+1:],
		}).Filter(func(s string) bool { return s != region }).Draw(t, "mistyped")
		err := loadRegion(mistyped)
		require.ErrorContains(t, err, fmt.Sprintf("environments[0].region: %q does not fit; did you mean ", mistyped))
		offered := regexp.MustCompile(`did you mean "([^"]+)"`).FindStringSubmatch(err.Error())[1]
		require.Contains(t, knownRegions, offered)
		require.LessOrEqual(t, distance(plain(mistyped), plain(offered)), 1)
	})
}

// Editors complete and check what Load does.
func TestSchema_Regions(t *testing.T) {
	t.Parallel()
	known, err := loadSchema()
	require.NoError(t, err)
	part := known.at("#/properties/environments/items/properties/region")
	var examples []string
	text, err := json.Marshal(part["examples"])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &examples))
	require.Equal(t, knownRegions, examples)
	require.Equal(t, "^"+patternRegion+"$", part["pattern"])
}
