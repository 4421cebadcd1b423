package assembly

import (
	"encoding/json"
	"maps"
	"slices"
)

func (u *unit) addAssets(id string, artifact artifactJSON) error {
	var p assetArtifactJSON
	if err := u.properties(id, artifact, &p); err != nil {
		return err
	}
	if err := u.refuseUnknown("asset manifest "+id, artifact.Properties, []string{"file", "requiresBootstrapStackVersion", "bootstrapStackVersionSsmParameter"}); err != nil {
		return err
	}
	file, err := u.path(p.File)
	if err != nil {
		return err
	}
	var doc assetsJSON
	if err := u.loader.decode(file, &doc); err != nil {
		return err
	}
	m := &AssetManifest{ID: id, File: file, Bootstrap: Bootstrap{Version: p.RequiresBootstrap, Parameter: p.BootstrapVersionParam}}
	for _, assetID := range slices.Sorted(maps.Keys(doc.Files)) {
		files, err := u.fileAssets(file, assetID, doc.Files[assetID])
		if err != nil {
			return err
		}
		m.Files = append(m.Files, files...)
	}
	for _, assetID := range slices.Sorted(maps.Keys(doc.DockerImages)) {
		images, err := u.imageAssets(file, assetID, doc.DockerImages[assetID])
		if err != nil {
			return err
		}
		m.Images = append(m.Images, images...)
	}
	u.assets[id] = m
	return nil
}

// fileAssets returns one asset per destination.
func (u *unit) fileAssets(file, id string, in fileJSON) ([]FileAsset, error) {
	var source fileSourceJSON
	if err := json.Unmarshal(in.Source, &source); err != nil {
		return nil, invalid("file %s: asset %s: source: %w", file, id, err)
	}
	if err := u.refuseUnknown("source of asset "+id, in.Source, []string{"path", "packaging", "executable"}); err != nil {
		return nil, err
	}
	base := FileAsset{ID: id, DisplayName: firstOf(in.DisplayName, id)}
	if len(source.Executable) > 0 {
		base.Packaging, base.Executable = PackagingExecutable, source.Executable
	} else {
		p, err := u.path(source.Path)
		if err != nil {
			return nil, err
		}
		base.Path, base.Packaging = p, Packaging(firstOf(source.Packaging, string(PackagingFile)))
		if base.Packaging != PackagingFile && base.Packaging != PackagingZip {
			return nil, invalid("file %s: asset %s: packaging %q is neither \"file\" nor \"zip\"", file, id, source.Packaging)
		}
	}
	var out []FileAsset
	for _, key := range slices.Sorted(maps.Keys(in.Destinations)) {
		raw := in.Destinations[key]
		var d fileDestinationJSON
		if err := json.Unmarshal(raw, &d); err != nil {
			return nil, invalid("file %s: asset %s: destination %s: %w", file, id, key, err)
		}
		known := []string{"bucketName", "objectKey", "region", "assumeRoleArn", "assumeRoleExternalId", "assumeRoleAdditionalOptions"}
		if err := u.refuseUnknown("destination "+key+" of asset "+id, raw, known); err != nil {
			return nil, err
		}
		if d.Bucket == "" || d.Key == "" {
			return nil, invalid("file %s: asset %s: destination %s lacks bucketName or objectKey", file, id, key)
		}
		asset := base
		asset.Bucket, asset.Key, asset.Region = d.Bucket, d.Key, d.Region
		asset.Role = role(d.RoleARN, d.ExternalID, d.Options, Bootstrap{})
		out = append(out, asset)
	}
	return out, nil
}

// imageAssets returns one asset per destination.
func (u *unit) imageAssets(file, id string, in imageJSON) ([]ImageAsset, error) {
	source, err := u.imageSource(file, id, in.Source)
	if err != nil {
		return nil, err
	}
	var out []ImageAsset
	for _, key := range slices.Sorted(maps.Keys(in.Destinations)) {
		raw := in.Destinations[key]
		var d imageDestinationJSON
		if err := json.Unmarshal(raw, &d); err != nil {
			return nil, invalid("file %s: asset %s: destination %s: %w", file, id, key, err)
		}
		known := []string{"repositoryName", "imageTag", "region", "assumeRoleArn", "assumeRoleExternalId", "assumeRoleAdditionalOptions"}
		if err := u.refuseUnknown("destination "+key+" of asset "+id, raw, known); err != nil {
			return nil, err
		}
		if d.Repository == "" || d.Tag == "" {
			return nil, invalid("file %s: asset %s: destination %s lacks repositoryName or imageTag", file, id, key)
		}
		out = append(out, ImageAsset{
			ID: id, DisplayName: firstOf(in.DisplayName, id), Source: source,
			Repository: d.Repository, Tag: d.Tag, Region: d.Region, Role: role(d.RoleARN, d.ExternalID, d.Options, Bootstrap{}),
		})
	}
	return out, nil
}

func (u *unit) imageSource(file, id string, raw json.RawMessage) (ImageSource, error) {
	var in ImageSource
	if err := json.Unmarshal(raw, &in); err != nil {
		return ImageSource{}, invalid("file %s: asset %s: source: %w", file, id, err)
	}
	known := []string{
		"executable", "directory", "dockerFile", "dockerBuildTarget", "dockerBuildArgs", "dockerBuildContexts", "dockerBuildSecrets",
		"dockerBuildSsh", "networkMode", "platform", "dockerOutputs", "cacheFrom", "cacheTo", "cacheDisabled",
	}
	if err := u.refuseUnknown("source of asset "+id, raw, known); err != nil {
		return ImageSource{}, err
	}
	if len(in.Executable) > 0 {
		return ImageSource{Executable: in.Executable}, nil
	}
	dir, err := u.path(in.Directory)
	if err != nil {
		return ImageSource{}, err
	}
	in.Directory = dir
	return in, nil
}
