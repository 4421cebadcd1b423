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
	metaCreation    = "aws:cdk:creationStack"
	metaLegacyAsset = "aws:cdk:asset"
	metaPath        = "aws:cdk:path"
	metaAssetPath   = "aws:asset:path"
	typeNestedStack = "AWS::CloudFormation::Stack"
)

// readMetadata collects annotations, logical ids and legacy assets from the
// manifest itself and from the file it names.
func (u *unit) readMetadata(s *Stack, artifact artifactJSON) error {
	s.logicalIDs, s.sources = map[string]string{}, map[string]string{}
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
				s.made(p, frames(entry.Trace))
			case metaCreation:
				s.made(p, frames(entry.Data))
			}
		}
	}
}

// made notes the line that made a construct: the innermost frame of the stack
// trace that is the app's own.
func (s *Stack) made(constructPath string, trace []string) {
	if s.sources[constructPath] != "" {
		return
	}
	for _, frame := range trace {
		if line := lineOf(frame); line != "" {
			s.sources[constructPath] = line
			return
		}
	}
}

// frames returns a JSON list of texts; nil for anything else.
func frames(data json.RawMessage) []string {
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return nil
	}
	return list
}

// lineOf returns file, line and column of a frame such as "vary
// (/app/kit.ts:15:3)"; empty for a frame of a library or of the runtime.
func lineOf(frame string) string {
	place := strings.TrimPrefix(strings.TrimSpace(frame), "at ")
	if i := strings.LastIndexByte(place, '('); i >= 0 {
		place = strings.TrimSuffix(place[i+1:], ")")
	}
	place = strings.TrimPrefix(place, "file://")
	parts := strings.Split(place, ":")
	if len(parts) < 3 || strings.Trim(parts[len(parts)-1]+parts[len(parts)-2], "0123456789") != "" {
		return ""
	}
	for _, foreign := range []string{"node_modules/", "node:", "jsii-", "/lib/program.js"} {
		if strings.Contains(place, foreign) {
			return ""
		}
	}
	return place
}

// text returns a JSON string's value, or the JSON itself for anything else.
func text(data json.RawMessage) string {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return string(data)
	}
	return s
}

// Resources maps the logical ids of a template to construct paths and to the
// lines of the app that made them.
type Resources struct {
	paths   map[string]string
	nested  map[string]*Resources
	sources map[string]string
}

// Source returns the place in the app that made a resource, such as
// "/app/bin/shop.ts:12:3"; empty if the app does not say. It takes what Path
// takes.
func (r *Resources) Source(logicalIDs ...string) string {
	if path := r.Path(logicalIDs...); path != "" {
		return r.sources[path]
	}
	return ""
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
	r.sources = s.sources
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
