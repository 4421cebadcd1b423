package workflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aphex-pipeline/aphex/internal/pipeline"
)

// Names and paths of the agent pod. The plugin's container itself comes from
// the executor plugin's ConfigMap; a test holds the two together.
const (
	containerPlugin  = "aphex-executor-plugin"
	containerWorker  = "worker"
	containerInstall = "aphex-install"
	// containerMain is Argo's own container of the agent pod.
	containerMain = "main"

	volumeBinary    = "aphex-bin"
	volumeRun       = "aphex-run"
	volumePrivate   = "aphex-private"
	volumeWorkspace = "aphex-workspace"
	volumeGit       = "aphex-git"
	volumeAWS       = "aphex-aws"

	dirBinary    = "/aphex/bin"
	dirRun       = "/aphex/run"
	dirPrivate   = "/var/aphex"
	dirWorkspace = "/workspace"
	dirGit       = "/var/run/secrets/aphex/git"
	dirAWS       = "/var/run/secrets/aphex/aws"
	// dirBuild has a folder for each Secret that build commands may be given.
	dirBuild    = "/var/run/secrets/aphex/build"
	volumeBuild = "aphex-build-secret-"
	// dirChannels has one for each that channels may be reached with.
	dirChannels    = "/var/run/secrets/aphex/channels"
	volumeChannels = "aphex-channel-secret-"

	binary     = dirBinary + "/aphex"
	socket     = dirRun + "/worker.sock"
	tokenFile  = "token"
	uidWorker  = 10001
	modeSecret = 0o440
	// tokenSeconds is how long a projected token lives; the kubelet renews it
	// at four fifths.
	tokenSeconds = 3600
	// graceSeconds is what the plugin has to detach from its work. Argo 3.7's
	// agent always uses all of it when a node is drained, so it is not longer.
	graceSeconds = 60
	// patchRate is how often the agent hands results to the API server. Argo's
	// default of 10 s would be added to every stage.
	patchRate = "250ms"
)

// The parts of a pod that the patch sets, in the order they are written.
type (
	podSpec struct {
		TerminationGracePeriodSeconds int         `json:"terminationGracePeriodSeconds"`
		InitContainers                []container `json:"initContainers"`
		Containers                    []container `json:"containers"`
		Volumes                       []volume    `json:"volumes"`
	}

	container struct {
		Name            string             `json:"name"`
		RestartPolicy   string             `json:"restartPolicy,omitempty"`
		Image           string             `json:"image,omitempty"`
		ImagePullPolicy string             `json:"imagePullPolicy,omitempty"`
		Command         []string           `json:"command,omitempty"`
		WorkingDir      string             `json:"workingDir,omitempty"`
		Env             []variable         `json:"env,omitempty"`
		Resources       *resources         `json:"resources,omitempty"`
		SecurityContext *containerSecurity `json:"securityContext,omitempty"`
		VolumeMounts    []mount            `json:"volumeMounts,omitempty"`
	}

	variable struct {
		Name      string  `json:"name"`
		Value     string  `json:"value,omitempty"`
		ValueFrom *source `json:"valueFrom,omitempty"`
	}

	source struct {
		FieldRef fieldRef `json:"fieldRef"`
	}

	fieldRef struct {
		FieldPath string `json:"fieldPath"`
	}

	resources struct {
		Requests map[string]string `json:"requests,omitempty"`
		Limits   map[string]string `json:"limits,omitempty"`
	}

	containerSecurity struct {
		RunAsNonRoot             bool         `json:"runAsNonRoot"`
		RunAsUser                int          `json:"runAsUser"`
		RunAsGroup               int          `json:"runAsGroup"`
		AllowPrivilegeEscalation bool         `json:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool         `json:"readOnlyRootFilesystem"`
		Capabilities             capabilities `json:"capabilities"`
		SeccompProfile           *profile     `json:"seccompProfile,omitempty"`
		AppArmorProfile          *profile     `json:"appArmorProfile,omitempty"`
	}

	capabilities struct {
		Drop []string `json:"drop"`
		Add  []string `json:"add,omitempty"`
	}

	profile struct {
		Type string `json:"type"`
	}

	mount struct {
		Name      string `json:"name"`
		MountPath string `json:"mountPath"`
		ReadOnly  bool   `json:"readOnly,omitempty"`
	}

	volume struct {
		Name      string     `json:"name"`
		EmptyDir  *struct{}  `json:"emptyDir,omitempty"`
		Secret    *secret    `json:"secret,omitempty"`
		Projected *projected `json:"projected,omitempty"`
	}

	secret struct {
		SecretName  string `json:"secretName"`
		DefaultMode int    `json:"defaultMode"`
		Optional    bool   `json:"optional"`
	}

	projected struct {
		DefaultMode int              `json:"defaultMode"`
		Sources     []projectedToken `json:"sources"`
	}

	projectedToken struct {
		ServiceAccountToken tokenRequest `json:"serviceAccountToken"`
	}

	tokenRequest struct {
		Audience          string `json:"audience"`
		ExpirationSeconds int    `json:"expirationSeconds"`
		Path              string `json:"path"`
	}
)

// podPatch returns the patch of the agent pod as indented JSON: what makes
// two containers, with a boundary between them, of Argo's one. Every value in
// it was checked by Installation.Validate.
func podPatch(inst pipeline.Installation) (string, error) {
	if inst.Runner == pipeline.RunnerContainer {
		return encodePatch(stagePod(inst))
	}
	return encodePatch(podSpec{
		TerminationGracePeriodSeconds: graceSeconds,
		InitContainers:                []container{installContainer(inst)},
		Containers: []container{
			pluginContainer(inst),
			{Name: containerMain, Env: []variable{{Name: "ARGO_AGENT_PATCH_RATE", Value: patchRate}}},
			workerContainer(inst),
		},
		Volumes: podVolumes(inst),
	})
}

func encodePatch(patch podSpec) (string, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(patch); err != nil {
		return "", fmt.Errorf("encode podSpecPatch: %w", err)
	}
	return out.String(), nil
}

// installContainer copies the binary of the plugin's image to where the
// worker's image, whatever it is, can run it.
func installContainer(inst pipeline.Installation) container {
	return container{
		Name:            containerInstall,
		Image:           inst.Images.Plugin,
		ImagePullPolicy: inst.ImagePullPolicy,
		Command:         []string{"aphex", "install", binary},
		Resources: &resources{
			Requests: map[string]string{"cpu": "10m", "memory": "32Mi"},
			Limits:   map[string]string{"cpu": "500m", "memory": "128Mi"},
		},
		SecurityContext: restricted(uidPlugin, true),
		VolumeMounts:    []mount{{Name: volumeBinary, MountPath: dirBinary}},
	}
}

// pluginContainer adds to the plugin's container what only the pods of this
// pipeline have, and gives it the image the worker's binary comes from. Its
// credentials are mounted nowhere else. The socket's folder, which the worker
// can write, is read-only here.
func pluginContainer(inst pipeline.Installation) container {
	env := []variable{
		{Name: "APHEX_PIPELINE", Value: inst.Pipeline},
		{Name: "APHEX_BUCKET", Value: inst.Bucket},
		{Name: "APHEX_BUCKET_PREFIX", Value: inst.BucketPrefix},
		downward("APHEX_NAMESPACE", "metadata.namespace"),
		downward("APHEX_POD_UID", "metadata.uid"),
		{Name: "APHEX_WORKER_SOCKET", Value: socket},
		{Name: "APHEX_PRIVATE_DIR", Value: dirPrivate},
		{Name: "APHEX_GIT_CREDENTIALS", Value: dirGit},
		{Name: "APHEX_ARGO_URL", Value: inst.ArgoURL},
		{Name: "APHEX_DEPLOYED_BRANCH", Value: inst.Branch},
		// The root file system is read-only.
		{Name: "HOME", Value: dirPrivate},
		{Name: "TMPDIR", Value: dirPrivate},
		{Name: "AWS_REGION", Value: inst.Region},
	}
	if inst.ArtifactRepository.ConfigMap != "" {
		env = append(env, variable{Name: "APHEX_MAIN_LOGS", Value: "true"})
	}
	if inst.Images.Builder != "" {
		env = append(env, variable{Name: "APHEX_IMAGE_BUILDER", Value: inst.Images.Builder})
	}
	if inst.Nudge == pipeline.NudgeOff {
		env = append(env, variable{Name: "APHEX_NUDGE", Value: inst.Nudge})
	}
	if len(inst.BuildSecrets) > 0 {
		env = append(env, variable{Name: "APHEX_BUILD_SECRETS", Value: strings.Join(inst.BuildSecrets, " ")})
	}
	if inst.EndpointURL != "" {
		env = append(env, variable{Name: "AWS_ENDPOINT_URL", Value: inst.EndpointURL})
	}
	mounts := []mount{
		{Name: volumeRun, MountPath: dirRun, ReadOnly: true},
		{Name: volumePrivate, MountPath: dirPrivate},
		{Name: volumeGit, MountPath: dirGit, ReadOnly: true},
	}
	for _, s := range clusterSecrets(inst) {
		mounts = append(mounts, mount{Name: s.volume, MountPath: s.path, ReadOnly: true})
	}
	if inst.AWS.ProjectToken {
		env = append(env,
			variable{Name: "AWS_ROLE_ARN", Value: inst.AWS.RoleARN},
			variable{Name: "AWS_WEB_IDENTITY_TOKEN_FILE", Value: dirAWS + "/" + tokenFile},
		)
		mounts = append(mounts, mount{Name: volumeAWS, MountPath: dirAWS, ReadOnly: true})
	}
	return container{
		Name: containerPlugin, Image: inst.Images.Plugin, ImagePullPolicy: inst.ImagePullPolicy,
		Env: env, VolumeMounts: mounts,
	}
}

// clusterSecret is a Secret of the namespace that the sidecar reads.
type clusterSecret struct{ name, volume, path string }

// clusterSecrets are the Secrets that build commands may be given, and those
// that channels are reached with. The kubelet mounts them, so nobody needs the
// right to read Secrets.
func clusterSecrets(inst pipeline.Installation) []clusterSecret {
	var list []clusterSecret
	for _, ref := range inst.BuildSecrets {
		if name, ok := strings.CutPrefix(ref, "kubernetes:"); ok {
			list = append(list, clusterSecret{name, volumeBuild + strconv.Itoa(len(list)), dirBuild + "/" + name})
		}
	}
	for n, name := range inst.ChannelSecrets {
		list = append(list, clusterSecret{name, volumeChannels + strconv.Itoa(n), dirChannels + "/" + name})
	}
	return list
}

// workerContainer runs the user's commands. It has no credential; its first
// variable keeps the webhook of EKS Pod Identity, which leaves alone a
// container that has it, from adding one.
func workerContainer(inst pipeline.Installation) container {
	env := []variable{{Name: "AWS_CONTAINER_CREDENTIALS_FULL_URI"}}
	for _, name := range slices.Sorted(maps.Keys(inst.WorkerEnv)) {
		env = append(env, variable{Name: name, Value: dollar(inst.WorkerEnv[name])})
	}
	return container{
		Name:            containerWorker,
		Image:           inst.Images.Worker,
		ImagePullPolicy: inst.ImagePullPolicy,
		Command:         []string{binary, "worker", "--socket", socket, "--root", dirWorkspace},
		WorkingDir:      dirWorkspace,
		Env:             env,
		Resources:       &resources{Requests: inst.WorkerResources.Requests, Limits: inst.WorkerResources.Limits},
		SecurityContext: workerSecurity(inst),
		VolumeMounts: []mount{
			{Name: volumeBinary, MountPath: dirBinary, ReadOnly: true},
			{Name: volumeRun, MountPath: dirRun},
			{Name: volumeWorkspace, MountPath: dirWorkspace},
		},
	}
}

// dollar keeps Kubernetes from expanding $(NAME) in a value: it takes two for
// one.
func dollar(value string) string { return strings.ReplaceAll(value, "$", "$$") }

// restricted is the security context of both containers. Toolchains write to
// /tmp and elsewhere as they please, so the worker's root is not read-only.
func restricted(uid int, readOnly bool) *containerSecurity {
	return &containerSecurity{
		RunAsNonRoot: true, RunAsUser: uid, RunAsGroup: uid,
		ReadOnlyRootFilesystem: readOnly,
		Capabilities:           capabilities{Drop: []string{"ALL"}},
	}
}

// workerSecurity is the worker's security context. Rootless builds need a user
// namespace with several users: newuidmap, whose file capabilities count only
// with privilege escalation and within the container's bounds; and mounts in
// that namespace, which the runtime's default profiles forbid.
func workerSecurity(inst pipeline.Installation) *containerSecurity {
	security := restricted(uidWorker, false)
	if inst.Images.Rootless {
		security.AllowPrivilegeEscalation = true
		security.Capabilities.Add = []string{"SETUID", "SETGID"}
		security.SeccompProfile, security.AppArmorProfile = &profile{"Unconfined"}, &profile{"Unconfined"}
	}
	return security
}

func downward(name, path string) variable {
	return variable{Name: name, ValueFrom: &source{FieldRef: fieldRef{FieldPath: path}}}
}

func podVolumes(inst pipeline.Installation) []volume {
	var volumes []volume
	for _, name := range []string{volumeBinary, volumeRun, volumePrivate, volumeWorkspace} {
		volumes = append(volumes, volume{Name: name, EmptyDir: &struct{}{}})
	}
	volumes = append(volumes, volume{
		Name:   volumeGit,
		Secret: &secret{SecretName: inst.GitSecret, DefaultMode: modeSecret, Optional: true},
	})
	for _, s := range clusterSecrets(inst) {
		volumes = append(volumes, volume{Name: s.volume, Secret: &secret{SecretName: s.name, DefaultMode: modeSecret, Optional: true}})
	}
	if inst.AWS.ProjectToken {
		volumes = append(volumes, volume{
			Name: volumeAWS,
			Projected: &projected{
				DefaultMode: modeSecret,
				Sources: []projectedToken{{ServiceAccountToken: tokenRequest{
					Audience: inst.AWS.Audience, ExpirationSeconds: tokenSeconds, Path: tokenFile,
				}}},
			},
		})
	}
	return volumes
}
