package assembly

import (
	"crypto/sha256"
	"encoding/hex"
)

// AssetManifest lists what has to be published before its stack is deployed.
type AssetManifest struct {
	// ID is the artifact's id.
	ID string
	// File is the manifest's path in the assembly.
	File string
	// Bootstrap is what publishing asks of the environment.
	Bootstrap Bootstrap
	// Files and Images are sorted by id, then destination.
	Files  []FileAsset
	Images []ImageAsset
}

// Packaging says how the bytes of a file asset are made.
type Packaging string

// The ways of packaging.
const (
	// PackagingFile publishes one file as it is.
	PackagingFile Packaging = "file"
	// PackagingZip publishes a folder as a zip archive.
	PackagingZip Packaging = "zip"
	// PackagingExecutable publishes the file whose path a program prints.
	PackagingExecutable Packaging = "executable"
)

// FileAsset is one file or folder for one destination.
type FileAsset struct {
	// ID is the asset's id, usually a digest of its source.
	ID string
	// DisplayName is for people; the id if the app gives none.
	DisplayName string
	// Path is relative to the assembly's folder, slash-separated; empty for
	// an executable source.
	Path      string
	Packaging Packaging
	// Executable is the command line of an executable source.
	Executable []string
	// Bucket and Key are where it goes; both may hold placeholders.
	Bucket, Key string
	// Region is empty to mean the stack's.
	Region string
	// Role publishes it; nil to use the credentials at hand.
	Role *Role
}

// ProducedPath is where in an assembly's folder the file stands that an
// executable source has made; whoever runs the programs puts it there.
func (f FileAsset) ProducedPath() string {
	sum := sha256.Sum256([]byte(f.ID))
	return "aphex-produced/" + hex.EncodeToString(sum[:8])
}

// ImageAsset is one container image for one destination.
type ImageAsset struct {
	// ID is the asset's id, usually a digest of its source.
	ID string
	// DisplayName is for people; the id if the app gives none.
	DisplayName string
	// Source says how the image is made.
	Source ImageSource
	// Repository and Tag are where it goes; both may hold placeholders.
	Repository, Tag string
	// Region is empty to mean the stack's.
	Region string
	// Role publishes it; nil to use the credentials at hand.
	Role *Role
}

// ImageSource says how an image is made: by a program, or by building a
// folder with a Dockerfile. The options are those of `docker build`, the keys
// those of an asset manifest.
type ImageSource struct {
	// Executable is the command line of a program that makes the image and
	// prints its local name. All else is empty then.
	Executable []string `json:"executable"`
	// Directory is the build context, relative to the assembly's folder,
	// slash-separated.
	Directory string `json:"directory"`
	// Dockerfile is relative to Directory; empty for "Dockerfile".
	Dockerfile string `json:"dockerFile"`
	// Target is the stage to stop at; empty for the last.
	Target string `json:"dockerBuildTarget"`
	// BuildArgs and BuildContexts are by name.
	BuildArgs     map[string]string `json:"dockerBuildArgs"`
	BuildContexts map[string]string `json:"dockerBuildContexts"`
	// Secrets say by id where the builder finds each: "src=path" or
	// "type=env,env=NAME".
	Secrets map[string]string `json:"dockerBuildSecrets"`
	// SSH is an agent or a key to forward.
	SSH string `json:"dockerBuildSsh"`
	// Network and Platform are those of the build.
	Network  string `json:"networkMode"`
	Platform string `json:"platform"`
	// Outputs are further results, such as "type=local,dest=out".
	Outputs []string `json:"dockerOutputs"`
	// CacheFrom and CacheTo are caches to read and to write.
	CacheFrom []ImageCache `json:"cacheFrom"`
	CacheTo   *ImageCache  `json:"cacheTo"`
	// CacheDisabled builds every step anew.
	CacheDisabled bool `json:"cacheDisabled"`
}

// ImageCache is one cache of a builder.
type ImageCache struct {
	// Type is "registry", "local", "inline", …; Params are the type's.
	Type   string            `json:"type"`
	Params map[string]string `json:"params"`
}
