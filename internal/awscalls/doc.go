// Package awscalls counts requests to AWS, so that a deployment can say what
// it took and a comparison with another tool has figures.
package awscalls
