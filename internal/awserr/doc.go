// Package awserr tells AWS failures apart: by error code where the service
// gives one, by recorded text where it gives nothing else.
//
// It is the only place that matches AWS's texts. Every text has a recorded
// sample in testdata.
package awserr
