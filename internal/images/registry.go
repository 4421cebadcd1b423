package images

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/aphex-pipeline/aphex/internal/awserr"
	"github.com/aphex-pipeline/aphex/internal/fault"
	"github.com/aphex-pipeline/aphex/internal/version"
)

// layersAtOnce is how many layers of one image are sent at a time.
const layersAtOnce = 4

// Destination is where an image goes.
type Destination struct {
	// Name of the asset, for people.
	Name string
	// Repository and Tag, without placeholders.
	Repository, Tag string
	// Session tells credentials apart: equal ones have an equal Session.
	Session string
	// AWS has the credentials to publish with, and the registry's region.
	AWS aws.Config
}

func (d Destination) String() string {
	return fmt.Sprintf("%s:%s in %s", d.Repository, d.Tag, d.AWS.Region)
}

func (d Destination) op() string { return fmt.Sprintf("publish asset %s to %s", d.Name, d) }

// Registry is Amazon ECR in one account. It is safe for concurrent use.
type Registry struct {
	account string
	hide    func(...string)

	mu    sync.Mutex
	known map[string]*once
}

// once is an answer that is asked for once.
type once struct {
	mu    sync.Mutex
	done  bool
	value string
}

// NewRegistry returns the registry of an account. hide is told of every token
// before it is used, so that no log shows it; it may be nil.
func NewRegistry(account string, hide func(...string)) *Registry {
	if hide == nil {
		hide = func(...string) {}
	}
	return &Registry{account: account, hide: hide, known: map[string]*once{}}
}

// ask returns what get returned the first time it succeeded for key.
func (r *Registry) ask(key string, get func() (string, error)) (string, error) {
	r.mu.Lock()
	entry := r.known[key]
	if entry == nil {
		entry = &once{}
		r.known[key] = entry
	}
	r.mu.Unlock()
	entry.mu.Lock()
	defer entry.mu.Unlock()
	if entry.done {
		return entry.value, nil
	}
	value, err := get()
	if err == nil {
		entry.value, entry.done = value, true
	}
	return value, err
}

// Present reports whether the destination has the image: a tag of an asset
// stands for its content.
//
// Errors: NotBootstrapped if there is no such repository, AssetFailed,
// AWSUnavailable, Cancelled.
func (r *Registry) Present(ctx context.Context, d Destination) (bool, error) {
	if _, err := r.address(ctx, d); err != nil {
		return false, err
	}
	there, err := r.tagged(ctx, d)
	if err != nil {
		return false, r.explain(ctx, d, err)
	}
	return there, nil
}

// address is the repository's, as registries know it.
func (r *Registry) address(ctx context.Context, d Destination) (string, error) {
	return r.ask("repository "+d.Session+" "+d.AWS.Region+" "+d.Repository, func() (string, error) {
		out, err := ecr.NewFromConfig(d.AWS).DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{d.Repository}})
		if _, absent := errors.AsType[*ecrtypes.RepositoryNotFoundException](err); absent || err == nil && len(out.Repositories) == 0 {
			return "", fault.Newf(fault.User, fault.NotBootstrapped, d.op(), fmt.Sprintf("Bootstrap the environment: cdk bootstrap aws://%s/%s", r.account, d.AWS.Region),
				"repository %s does not exist", d.Repository)
		}
		if err != nil {
			return "", r.explain(ctx, d, err)
		}
		return aws.ToString(out.Repositories[0].RepositoryUri), nil
	})
}

func (r *Registry) tagged(ctx context.Context, d Destination) (bool, error) {
	out, err := ecr.NewFromConfig(d.AWS).DescribeImages(ctx, &ecr.DescribeImagesInput{
		RepositoryName: aws.String(d.Repository), ImageIds: []ecrtypes.ImageIdentifier{{ImageTag: aws.String(d.Tag)}},
	})
	if _, absent := errors.AsType[*ecrtypes.ImageNotFoundException](err); absent {
		return false, nil
	}
	return err == nil && len(out.ImageDetails) > 0, err
}

// login returns the registry's user and password.
func (r *Registry) login(ctx context.Context, d Destination) (authn.AuthConfig, error) {
	token, err := r.ask("token "+d.Session+" "+d.AWS.Region, func() (string, error) {
		out, err := ecr.NewFromConfig(d.AWS).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
		if err != nil {
			return "", r.explain(ctx, d, err)
		}
		if len(out.AuthorizationData) == 0 {
			return "", fault.Newf(fault.System, fault.AWSRejected, d.op(), "", "the registry gave no token")
		}
		token := aws.ToString(out.AuthorizationData[0].AuthorizationToken)
		r.hide(token)
		return token, nil
	})
	if err != nil {
		return authn.AuthConfig{}, err
	}
	plain, err := base64.StdEncoding.DecodeString(token)
	user, password, ok := strings.Cut(string(plain), ":")
	if err != nil || !ok {
		return authn.AuthConfig{}, fault.Newf(fault.System, fault.AWSRejected, d.op(), "", "the registry gave a token of an unknown form")
	}
	r.hide(password)
	return authn.AuthConfig{Username: user, Password: password}, nil
}

// Push sends an image and returns false if it turned out to be there already:
// tags of a bootstrap's repository are immutable, so when two push, or an
// answer was lost, the second is refused, and all is well. Layers that are
// there are not sent again.
//
// Errors: as of Present.
func (r *Registry) Push(ctx context.Context, image *Image, d Destination) (bool, error) {
	address, err := r.address(ctx, d)
	if err != nil {
		return false, err
	}
	auth, err := r.login(ctx, d)
	if err != nil {
		return false, err
	}
	reference, err := name.NewTag(address + ":" + d.Tag)
	if err != nil {
		return false, fault.Wrap(fault.User, fault.AssetFailed, d.op(), "", err)
	}
	err = remote.Write(reference, image.image, remote.WithContext(ctx), remote.WithAuth(authn.FromConfig(auth)), remote.WithJobs(layersAtOnce),
		remote.WithUserAgent("aphex/"+version.Get().Version))
	if err == nil {
		return true, nil
	}
	if ctx.Err() == nil {
		if there, checkErr := r.tagged(ctx, d); checkErr == nil && there {
			return false, nil
		}
	}
	return false, r.explain(ctx, d, err)
}

// explain turns a failure into what a user needs to know.
func (r *Registry) explain(ctx context.Context, d Destination, err error) error {
	_, isFault := errors.AsType[*fault.Fault](err)
	refusal, refused := errors.AsType[*transport.Error](err)
	const rights = "Check that the publishing role may read and write repository %s of account %s"
	switch {
	case isFault || ctx.Err() != nil:
		return awserr.Fault(ctx, err, d.op())
	case awserr.AccessDenied(err), refused && (refusal.StatusCode == http.StatusUnauthorized || refusal.StatusCode == http.StatusForbidden):
		return fault.Newf(fault.User, fault.AssetFailed, d.op(), fmt.Sprintf(rights, d.Repository, r.account), "%w", awserr.Brief(err))
	case awserr.Temporary(err), awserr.ExpiredCredentials(err):
		return awserr.Fault(ctx, err, d.op())
	case refused && (refusal.Temporary() || refusal.StatusCode >= http.StatusInternalServerError || refusal.StatusCode == http.StatusTooManyRequests):
		return fault.Newf(fault.Transient, fault.AWSUnavailable, d.op(), "Retry the run", "%w", err)
	default:
		return fault.Newf(fault.User, fault.AssetFailed, d.op(), "", "%w", awserr.Brief(err))
	}
}
