// Package cloudwatch puts figures of runs and deployments into CloudWatch,
// namespace AphexPipeline, in the account and region of the pipeline's own
// identity.
//
// Figures are beside the point of a run: whoever calls it logs an error and
// goes on. It takes at most Limit, however CloudWatch behaves. What is sent
// may be sent again by a process that resumes a stage.
//
// A retry is an end of its own, which has the figures of its own stages.
//
// Imported by the composition root.
package cloudwatch
