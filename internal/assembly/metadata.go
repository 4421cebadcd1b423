package assembly

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/jsonlimit"
)

const (
	metaError       = "aws:cdk:error"
	metaWarning     = "aws:cdk:warning"
	metaInfo        = "aws:cdk:info"
	metaLogicalID   = "aws:cdk:logicalId"
	metaLegacyAsset = "aws:cdk:asset"
	metaPath        = "aws:cdk:path"
	metaAssetPath   = "aws:asset:path"
	typeNestedStack = "AWS::CloudFormation::Stack"
)

// readMetadata collects annotations, logical ids and legacy assets from the
// manifest itself and from the file it names.
func (u *unit) readMetadata(s *Stack, artifact artifactJSON) error {
	s.logicalIDs = map[string]string{}
	s.collect(artifact.Metadata)
	if artifact.AdditionalMetadataFile == "" {
		return nil
	}
	file, err := u.path(artifact.AdditionalMetadataFile)
	if err != nil {
		return err
	}
	var more map[string][]metadataJSON
	if err := u.loader.decode(file, &more); err != nil {
		return err
	}
	s.collect(more)
	return nil
}

func (s *Stack) collect(metadata map[string][]metadataJSON) {
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		p := strings.TrimPrefix(key, "/")
		for _, entry := range metadata[key] {
			switch entry.Type {
			case metaError:
				s.Messages = append(s.Messages, Message{Level: LevelError, Path: p, Text: text(entry.Data)})
			case metaWarning:
				s.Messages = append(s.Messages, Message{Level: LevelWarning, Path: p, Text: text(entry.Data)})
			case metaInfo:
				s.Messages = append(s.Messages, Message{Level: LevelInfo, Path: p, Text: text(entry.Data)})
			case metaLegacyAsset:
				s.LegacyAssets = append(s.LegacyAssets, p)
			case metaLogicalID:
				id := text(entry.Data)
				if _, seen := s.logicalIDs[id]; !seen {
					s.logicalIDs[id] = p
				}
			}
		}
	}
}

// text returns a JSON string's value, or the JSON itself for anything else.
func text(data json.RawMessage) string {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return string(data)
	}
	return s
}

// Resources maps the logical ids of a template to construct paths.
type Resources struct {
	paths  map[string]string
	nested map[string]*Resources
}

// Path returns the construct path of a resource, such as "Prod/Db/Param". The
// leading ids lead through nested stacks, the last is the resource itself.
// A path that is not known is empty.
func (r *Resources) Path(logicalIDs ...string) string {
	for i, id := range logicalIDs {
		if r == nil {
			return ""
		}
		if i == len(logicalIDs)-1 {
			return r.paths[id]
		}
		r = r.nested[id]
	}
	return ""
}

// Resources reads the construct paths of a stack and of its nested stacks
// from their templates and from the manifest's metadata. A template that
// cannot be read only leaves paths unknown.
func (a *Assembly) Resources(s *Stack) *Resources {
	r := a.resources(s.TemplateFile, map[string]*Resources{})
	for id, p := range s.logicalIDs {
		if _, ok := r.paths[id]; !ok {
			r.paths[id] = p
		}
	}
	return r
}

// resources reads a template that is not among those read. One that several
// nested stacks share is read once; so is one that nests itself.
func (a *Assembly) resources(template string, read map[string]*Resources) *Resources {
	if r, ok := read[template]; ok {
		return r
	}
	r := &Resources{paths: map[string]string{}, nested: map[string]*Resources{}}
	read[template] = r
	data, err := a.ReadFile(template)
	if err != nil || jsonlimit.Check(data, jsonlimit.Document) != nil {
		return r
	}
	var doc struct {
		Resources map[string]struct {
			Type     string                     `json:"Type"`
			Metadata map[string]json.RawMessage `json:"Metadata"`
		} `json:"Resources"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return r
	}
	for id, resource := range doc.Resources {
		if p := text(resource.Metadata[metaPath]); p != "" {
			r.paths[id] = p
		}
		if file := text(resource.Metadata[metaAssetPath]); file != "" && resource.Type == typeNestedStack {
			r.nested[id] = a.resources(siblingOf(template, file), read)
		}
	}
	return r
}

// siblingOf returns file relative to the folder of template.
func siblingOf(template, file string) string {
	if i := strings.LastIndexByte(template, '/'); i >= 0 {
		return template[:i+1] + file
	}
	return file
}
