package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/aphex-pipeline/aphex/internal/assembly"
	"github.com/aphex-pipeline/aphex/internal/assets"
	"github.com/aphex-pipeline/aphex/internal/cfn"
	"github.com/aphex-pipeline/aphex/internal/fault"
)

// templateURL is where CloudFormation finds the template; empty to send it in
// the request.
func (s *selection) templateURL(stack *assembly.Stack) string {
	if url, ok := s.uploaded[stack.HierarchicalID]; ok {
		return url
	}
	return s.places.Replace(stack.TemplateAssetURL)
}

// templates returns the uploads of templates that are no assets and too large
// for a request. They go to the bucket of the bootstrap, as the CDK CLI does
// it, with the credentials of the stack.
func (d *deployment) templates(ctx context.Context, s *selection, stacks []*assembly.Stack) ([]assets.File, error) {
	var out []assets.File
	for _, stack := range stacks {
		if stack.TemplateAssetURL != "" {
			continue
		}
		template, err := s.assembly.ReadFile(stack.TemplateFile)
		if err != nil {
			return nil, err
		}
		if _, ok := cfn.Inline(template); ok {
			continue
		}
		session, err := d.session(ctx, s, stack)
		if err != nil {
			return nil, err
		}
		bucket, ok, err := d.deployer(session, nil).Output(ctx, assets.ToolkitStack, "BucketName")
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fault.Newf(fault.User, fault.NotBootstrapped, "publish the template of stack "+stack.String(),
				fmt.Sprintf("Bootstrap the environment: cdk bootstrap aws://%s/%s", d.target.Account, d.target.Region),
				"the template has %d bytes, too many for a request, and there is no stack %s with a bucket for it", len(template), assets.ToolkitStack)
		}
		sum := sha256.Sum256(template)
		key := "cdk/" + stack.ID + "/" + hex.EncodeToString(sum[:]) + ".json"
		s.uploaded[stack.HierarchicalID] = "s3://" + bucket + "/" + key
		out = append(out, assets.File{
			ID: hex.EncodeToString(sum[:]), Name: "template of " + stack.Name, Path: stack.TemplateFile, Bucket: bucket, Key: key, AWS: session.Config,
		})
	}
	return out, nil
}
