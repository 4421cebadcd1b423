package pipeline

import "fmt"

// patternRegion is the shape of AWS regions: an area, perhaps a part of it, a
// direction and a number. It admits regions that are yet to come.
const patternRegion = `(?:[a-z]{2}|[a-z]{4})(?:-(?:gov|iso[a-z]?|[a-z]{2}))?-(?:central|(?:north|south)(?:east|west)?|east|west)-[1-9][0-9]?`

// knownRegions are what a mistyped region is compared with.
//
//nolint:gochecknoglobals // a table
var knownRegions = []string{
	"af-south-1", "ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-south-2",
	"ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7",
	"ca-central-1", "ca-west-1", "cn-north-1", "cn-northwest-1", "eu-central-1", "eu-central-2", "eu-isoe-west-1", "eu-north-1",
	"eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3", "eusc-de-east-1", "il-central-1", "me-central-1", "me-south-1",
	"mx-central-1", "sa-east-1", "us-east-1", "us-east-2", "us-gov-east-1", "us-gov-west-1", "us-iso-east-1", "us-iso-west-1",
	"us-isob-east-1", "us-isob-west-1", "us-isof-east-1", "us-isof-south-1", "us-west-1", "us-west-2",
}

// offerRegion is the part of a sentence that offers the region that was
// perhaps meant, or "".
func offerRegion(region string) string {
	near := nearest(region, knownRegions)
	if near == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", near)
}
