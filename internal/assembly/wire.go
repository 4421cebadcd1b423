package assembly

import (
	"encoding/json"
	"slices"
	"strings"
)

// The documents as they stand in the files. Names follow the published schema
// of the cloud assembly, version 55.

type manifestJSON struct {
	Version   string                  `json:"version"`
	Artifacts map[string]artifactJSON `json:"artifacts"`
	Missing   []MissingContext        `json:"missing"`
}

type artifactJSON struct {
	Type                   string                    `json:"type"`
	Environment            string                    `json:"environment"`
	Dependencies           []string                  `json:"dependencies"`
	DisplayName            string                    `json:"displayName"`
	Metadata               map[string][]metadataJSON `json:"metadata"`
	AdditionalMetadataFile string                    `json:"additionalMetadataFile"`
	Properties             json.RawMessage           `json:"properties"`
}

type metadataJSON struct {
	Type  string          `json:"type"`
	Data  json.RawMessage `json:"data"`
	Trace json.RawMessage `json:"trace"`
}

type stackJSON struct {
	TemplateFile           string            `json:"templateFile"`
	StackName              string            `json:"stackName"`
	Tags                   map[string]string `json:"tags"`
	TerminationProtection  bool              `json:"terminationProtection"`
	NotificationARNs       []string          `json:"notificationArns"`
	AssumeRoleARN          string            `json:"assumeRoleArn"`
	AssumeRoleExternalID   string            `json:"assumeRoleExternalId"`
	AssumeRoleOptions      map[string]any    `json:"assumeRoleAdditionalOptions"`
	ExecutionRoleARN       string            `json:"cloudFormationExecutionRoleArn"`
	LookupRole             *lookupJSON       `json:"lookupRole"`
	TemplateAssetURL       string            `json:"stackTemplateAssetObjectUrl"`
	RequiresBootstrap      int               `json:"requiresBootstrapStackVersion"`
	BootstrapVersionParam  string            `json:"bootstrapStackVersionSsmParameter"`
	Parameters             json.RawMessage   `json:"parameters"`
	ValidateOnSynth        bool              `json:"validateOnSynth"`
	AdditionalDependencies []string          `json:"additionalDependencies"`
}

type lookupJSON struct {
	ARN                   string         `json:"arn"`
	ExternalID            string         `json:"assumeRoleExternalId"`
	Options               map[string]any `json:"assumeRoleAdditionalOptions"`
	RequiresBootstrap     int            `json:"requiresBootstrapStackVersion"`
	BootstrapVersionParam string         `json:"bootstrapStackVersionSsmParameter"`
}

type nestedJSON struct {
	DirectoryName string `json:"directoryName"`
}

type assetArtifactJSON struct {
	File                  string `json:"file"`
	RequiresBootstrap     int    `json:"requiresBootstrapStackVersion"`
	BootstrapVersionParam string `json:"bootstrapStackVersionSsmParameter"`
}

type assetsJSON struct {
	Version      string               `json:"version"`
	Files        map[string]fileJSON  `json:"files"`
	DockerImages map[string]imageJSON `json:"dockerImages"`
}

type fileJSON struct {
	DisplayName  string                     `json:"displayName"`
	Source       json.RawMessage            `json:"source"`
	Destinations map[string]json.RawMessage `json:"destinations"`
}

type fileSourceJSON struct {
	Path       string   `json:"path"`
	Packaging  string   `json:"packaging"`
	Executable []string `json:"executable"`
}

type fileDestinationJSON struct {
	Bucket     string         `json:"bucketName"`
	Key        string         `json:"objectKey"`
	Region     string         `json:"region"`
	RoleARN    string         `json:"assumeRoleArn"`
	ExternalID string         `json:"assumeRoleExternalId"`
	Options    map[string]any `json:"assumeRoleAdditionalOptions"`
}

type imageJSON struct {
	DisplayName  string                     `json:"displayName"`
	Source       json.RawMessage            `json:"source"`
	Destinations map[string]json.RawMessage `json:"destinations"`
}

type imageDestinationJSON struct {
	Repository string         `json:"repositoryName"`
	Tag        string         `json:"imageTag"`
	Region     string         `json:"region"`
	RoleARN    string         `json:"assumeRoleArn"`
	ExternalID string         `json:"assumeRoleExternalId"`
	Options    map[string]any `json:"assumeRoleAdditionalOptions"`
}

func knownStackProperties() []string {
	return []string{
		"templateFile", "stackName", "parameters", "tags", "terminationProtection", "notificationArns",
		"assumeRoleArn", "assumeRoleExternalId", "assumeRoleAdditionalOptions", "cloudFormationExecutionRoleArn",
		"lookupRole", "stackTemplateAssetObjectUrl", "requiresBootstrapStackVersion",
		"bootstrapStackVersionSsmParameter", "validateOnSynth", "additionalDependencies",
	}
}

// unknownKeys returns the sorted keys of the JSON object data that known does
// not list; nil if data is no object.
func unknownKeys(data json.RawMessage, known []string) []string {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return nil
	}
	var out []string
	for key := range object {
		if !slices.Contains(known, key) {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// refuseUnknown is the strict half of the schema rule: an assembly newer than
// we know may be used only if we understand all of data.
func (u *unit) refuseUnknown(what string, data json.RawMessage, known []string) error {
	if !u.strict {
		return nil
	}
	if keys := unknownKeys(data, known); len(keys) > 0 {
		return invalid("%s: %s has the unknown property %s of a schema newer than version %d", u.manifest, what, strings.Join(keys, ", "), KnownMajor)
	}
	return nil
}
