// Package pipeline is the definition of a pipeline: the configuration a
// repository carries (aphex-config.yaml), its JSON schema, and the settings of
// the pipeline's installation in a cluster.
//
// Load reads a configuration, checks it against the schema and the rules a
// schema cannot express, and reports every finding at once with its position.
// The package does not look at a repository, a cluster or an account: whether
// a path or an account exists is found out by the stages.
package pipeline
